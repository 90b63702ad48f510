"""SIM-3: histories of all commands against the model: 2,000 on the pure ledger, 300 on two processes that race on MongoDB.

GUERDON_TEST_SEQUENCES sets another number for each of the two, GUERDON_TEST_SEED the seed.
"""

import os
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from guerdon.config import Settings
from tests.invariants import test_balance_model as rules
from tests.invariants.state_machine_rules import DONE, RARE, REFUSED, Requests
from tests.invariants.test_ledger_machine import Processes, run_processes
from tests.invariants.test_ledger_model import Worlds, run_worlds
from tests.trust.figures import record

pytestmark = [pytest.mark.trust, pytest.mark.timeout(3600)]


def chosen(what: str, usual: int) -> tuple[int, int]:
    """How many histories are to be told, and the seed that they come from."""
    sequences = int(os.environ.get("GUERDON_TEST_SEQUENCES", usual))
    number = int(os.environ.get("GUERDON_TEST_SEED") or random.randrange(2**32))
    print(f"\nSIM-3: {what}, seed {number}, {sequences} histories")
    return sequences, number


def sequences_of(machine: type[Requests], usual: int) -> int:
    """Seed the machine and return how many histories it is to tell."""
    sequences, number = chosen(machine.__name__, usual)
    seed(number)(machine)
    return sequences


def report(machine: str, histories: int, seen: Counter[str]) -> None:
    record(f"SIM-3 {machine}: histories that differ from the model", f"0 of {histories}", 0)
    record(f"SIM-3 {machine}: requests", seen.total())
    print(f"SIM-3: {sum(seen.values())} requests; " + ", ".join(f"{what} {n}" for what, n in sorted(seen.items())))


def test_two_thousand_histories_agree_with_the_model() -> None:
    sequences = sequences_of(Worlds, 2000)
    run_worlds(sequences, database=None)
    assert sequences < 2000 or set(Worlds.seen) >= RARE, RARE - set(Worlds.seen)
    report("ledger", sequences, Worlds.seen)


@pytest.mark.usefixtures("database")
def test_three_hundred_histories_of_two_processes_agree_with_the_model(settings: Settings) -> None:
    """The same seed asks for the same, but who wins a race is different each time."""
    sequences = sequences_of(Processes, 300)
    run_processes(settings, sequences, database=None)
    assert sequences < 300 or set(Processes.seen) >= DONE | REFUSED, (DONE | REFUSED) - set(Processes.seen)
    report("two processes", sequences, Processes.seen)


# --- the plainest model: balances, and batches of any cut -------------------------------------------------------------


def many(examples: int) -> settings:
    return settings(deadline=None, max_examples=examples, suppress_health_check=[HealthCheck.too_slow], database=None)


def test_two_thousand_histories_agree_with_the_model_of_balances() -> None:
    histories, number = chosen("Books", 2000)
    run_state_machine_as_test(seed(number)(rules.Books), settings=settings(many(histories), stateful_step_count=30))
    record("SIM-3 balances: histories that differ from the model", f"0 of {histories}", 0)


@pytest.mark.parametrize(
    ("prop", "given_what"),
    [(rules.test_batch_borders_change_nothing, rules.CUT), (rules.test_deciding_again_gives_the_same_result, rules.WHOLE)],
    ids=["borders", "twice"],
)
def test_batch_properties_hold_for_two_thousand_batches(prop: Any, given_what: dict[str, Any]) -> None:
    batches, number = chosen(prop.__name__, 2000)
    seed(number)(many(batches)(given(**given_what)(prop.hypothesis.inner_test)))()
    record(f"{prop.__name__.removeprefix('test_').replace('_', ' ')}: batches that break it", f"0 of {batches}", 0)
