"""Every stored field of an entry is hashed, and every description of the hash lists the same fields."""

import json
import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guerdon.ledger.entry_hash import HASHED_FIELDS, POSITIONAL_FIELDS, entry_hash
from guerdon.ledger.models import Entry
from guerdon.ledger.store import decode_entry, encode
from tests.invariants import in_memory_ledger
from tests.invariants.full_ledger import KINDS
from tests.invariants.tampering import other_value

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
GOLDEN: list[dict[str, Any]] = json.loads((ROOT / "tests" / "golden" / "entries.json").read_text(encoding="utf-8"))["entries"]
FROZEN = (
    "_id", "owner", "asset", "transaction", "kind", "amount", "balance_after", "held_after", "counter", "actor", "at", "reason",
    "reference", "key", "fingerprint", "metadata", "once",
)  # fmt: skip
"""The elements of the hashed array. Entries that are stored depend on their order, so it never changes."""
BINARY = {"prev", "hash", "fingerprint"}


def stored(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the golden file as the database holds it."""
    row = {name: bytes.fromhex(value) if name in BINARY else value for name, value in row.items()}
    return {**row, "once": [bytes.fromhex(key) for key in row["once"]]} if "once" in row else row


def test_the_positional_fields_are_frozen() -> None:
    assert HASHED_FIELDS[:POSITIONAL_FIELDS] == FROZEN


def test_every_stored_field_of_an_entry_is_hashed() -> None:
    fields = [info.encode_name for info in msgspec.structs.fields(Entry) if info.encode_name not in {"prev", "hash"}]
    assert sorted(fields) == sorted(HASHED_FIELDS), "add a new field of Entry at the end of HASHED_FIELDS"


def test_the_page_lists_the_hashed_fields() -> None:
    section = PAGE.partition("## The hash of an entry")[2].partition("```python")[0]
    array, _, rest = section.partition("in this order,")[2].partition("with `null`")
    listed = re.findall(r"\w+", array)
    optional = re.findall(r"`(\w+)`", rest.partition("If an entry has any of")[2].partition(", they form")[0])
    assert (*listed, *optional) == HASHED_FIELDS, "docs/verify.md lists other fields than HASHED_FIELDS"


def test_the_program_of_the_page_hashes_these_fields() -> None:
    program = PAGE.partition("```python")[2]
    positional, optional = [
        " ".join(re.findall(r'"([^"]*)"', found)).split()
        for found in re.findall(r'^(?:PLAIN|RARE) = (\("[^)]*"\)|"[^"]*")', program, re.MULTILINE)
    ]
    assert (*positional, *optional) == HASHED_FIELDS, "the program in docs/verify.md hashes other fields than HASHED_FIELDS"
    assert len(positional) == POSITIONAL_FIELDS


def test_the_independent_hash_hashes_these_fields() -> None:
    assert (*in_memory_ledger.POSITIONAL, *in_memory_ledger.OPTIONAL) == HASHED_FIELDS, (
        "tests/invariants/in_memory_ledger.py hashes other fields than HASHED_FIELDS"
    )


def test_the_table_of_entries_describes_every_field() -> None:
    table = ARCHITECTURE.partition("`entries` is append-only")[2].partition("The counterparty of")[0]
    first_cells = "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", first_cells)) == {*HASHED_FIELDS, "prev", "hash"}


def test_the_golden_file_has_every_kind_and_every_field() -> None:
    assert {row["kind"] for row in GOLDEN} == KINDS
    assert set().union(*GOLDEN) == {*HASHED_FIELDS, "prev", "hash"}


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["kind"])
def test_a_golden_hash_follows_from_the_file_alone(row: dict[str, Any]) -> None:
    assert in_memory_ledger.hash_of_row(row).hex() == row["hash"]


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["kind"])
def test_a_golden_entry_is_read_hashed_and_stored_as_before(row: dict[str, Any]) -> None:
    entry = decode_entry(stored(row))
    assert entry_hash(entry).hex() == row["hash"]
    assert in_memory_ledger.without_bytes(encode(entry)) == row


@pytest.mark.parametrize("name", HASHED_FIELDS)
def test_a_change_of_any_field_changes_the_hash(name: str) -> None:
    rng = random.Random(name)
    for row in GOLDEN:
        if row.get(name) and name not in {"lots", "hold", "terms"}:
            entry = decode_entry({**stored(row), name: other_value(rng, stored(row)[name])})
            assert entry_hash(entry) != entry.hash
        if row.get(name) is not None and name not in FROZEN:
            without = {field: value for field, value in stored(row).items() if field != name}
            assert entry_hash(decode_entry(without)).hex() != row["hash"]
