"""IN-1: every whole number of every body against every way of writing something else."""

import json
from typing import Any

from msgspec import inspect as mi

from guerdon.database import Database
from tests.factories import Factory
from tests.matrix.bodies import Leaf, bodied, samples_of
from tests.matrix.conftest import Scene, rows

MALFORMED, INVALID = (400, "malformed-json"), (422, "validation")
HOSTILE = {
    "0": INVALID, "-0": INVALID, "-1": INVALID, "1.0": INVALID, "1.5": INVALID, "1e3": INVALID, "1e400": INVALID, "-1e400": INVALID,
    '"5"': INVALID, '" 5"': INVALID, '"５"': INVALID, "true": INVALID, "false": INVALID, "null": INVALID, "[]": INVALID, "{}": INVALID,
    '{"$gt":0}': INVALID, "[5]": INVALID, str(2**31): INVALID, str(2**53 + 1): INVALID, str(2**63 - 1): INVALID, str(2**63): INVALID,
    str(2**64): INVALID, str(-(2**63)): INVALID, str(10**15 + 1): INVALID, "9" * 5000: INVALID,
    "NaN": MALFORMED, "Infinity": MALFORMED, "-Infinity": MALFORMED, "0x10": MALFORMED, "1_000": MALFORMED, "01": MALFORMED,
    "+1": MALFORMED, "1.": MALFORMED, ".5": MALFORMED, "５": MALFORMED, "": MALFORMED, "undefined": MALFORMED,
}  # fmt: skip
"""Raw JSON text in the place of a number, and the answer it earns: what is JSON but no such number is invalid, the rest is malformed."""
AMOUNTS_MIN = 18
"""So many fields of bodies are amounts of money, or more."""


def fits(leaf: Leaf, text: str) -> bool:
    """Is the text after all something that the field takes: a bound of a million is lower than an amount's, a limit may be null."""
    value: Any = json.loads(text) if HOSTILE[text] == INVALID and len(text) < 4000 else ""
    for kind in leaf.kinds:
        match kind:
            case mi.IntType() if type(value) is int and (kind.ge or 0) <= value <= (kind.le or 0):
                return True
            case mi.NoneType() if value is None:
                return True
            case mi.BoolType() if isinstance(value, bool):
                return True
            case mi.StrType() if isinstance(value, str) and value:
                return True
    return False


async def test_every_number_of_every_body_refuses_other_values(scene: Scene, factory: Factory, database: Database) -> None:
    before, amounts = await rows(database), 0
    for route in bodied(scene.routes):
        for sample in samples_of(route.operation.body):
            for leaf in [leaf for leaf in sample.leaves if leaf.of(mi.IntType)]:
                amounts += any(isinstance(kind, mi.IntType) and kind.le == 10**15 for kind in leaf.kinds)
                for text in [text for text in HOSTILE if not fits(leaf, text)]:
                    answer = await scene.send(route, sample.with_raw(leaf.pointer, text))
                    told = answer.json()
                    assert (answer.status_code, told["code"]) == HOSTILE[text], (route.path, leaf.pointer, text[:40], told)
                    if HOSTILE[text] == INVALID:
                        assert told["errors"][0]["pointer"] == leaf.pointer, (route.path, text)
    assert amounts >= AMOUNTS_MIN
    assert await rows(database) == before
    await factory.assert_books_balance()
