"""SIM-3: histories of all commands against the model: 2,000 on the pure ledger, 300 on two processes that race on MongoDB.

GUERDON_TEST_SEQUENCES sets another number for each of the two, GUERDON_TEST_SEED the seed.
"""

import os
import random
from collections import Counter

import pytest
from hypothesis import seed

from guerdon.config import Settings
from tests.invariants.requests import DONE, RARE, REFUSED, Requests
from tests.invariants.test_ledger_machine import Processes, run_processes
from tests.invariants.test_world import Worlds, run_worlds

pytestmark = [pytest.mark.trust, pytest.mark.timeout(3600)]


def sequences_of(machine: type[Requests], usual: int) -> int:
    """Seed the machine and return how many histories it is to tell."""
    sequences = int(os.environ.get("GUERDON_TEST_SEQUENCES", usual))
    chosen = int(os.environ.get("GUERDON_TEST_SEED") or random.randrange(2**32))
    print(f"\nSIM-3: {machine.__name__}, seed {chosen}, {sequences} histories")
    seed(chosen)(machine)
    return sequences


def report(seen: Counter[str]) -> None:
    print(f"SIM-3: {sum(seen.values())} requests; " + ", ".join(f"{what} {n}" for what, n in sorted(seen.items())))


def test_two_thousand_histories_agree_with_the_model() -> None:
    sequences = sequences_of(Worlds, 2000)
    run_worlds(sequences, database=None)
    assert sequences < 2000 or set(Worlds.seen) >= RARE, RARE - set(Worlds.seen)
    report(Worlds.seen)


def test_three_hundred_histories_of_two_processes_agree_with_the_model(settings: Settings) -> None:
    """The same seed asks for the same, but who wins a race is different each time."""
    sequences = sequences_of(Processes, 300)
    run_processes(settings, sequences, database=None)
    assert sequences < 300 or set(Processes.seen) >= DONE | REFUSED, (DONE | REFUSED) - set(Processes.seen)
    report(Processes.seen)
