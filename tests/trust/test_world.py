"""SIM-3: two thousand histories of all commands against the model (GUERDON_TEST_SEQUENCES sets another number)."""

import os
import random

import pytest
from hypothesis import seed

from tests.invariants.test_world import REPEATED, Worlds, run_worlds

pytestmark = [pytest.mark.trust, pytest.mark.timeout(3600)]


def test_two_thousand_histories_agree_with_the_model() -> None:
    sequences = int(os.environ.get("GUERDON_TEST_SEQUENCES", "2000"))
    chosen = int(os.environ.get("GUERDON_TEST_SEED") or random.randrange(2**32))
    print(f"\nSIM-3: seed {chosen}, {sequences} histories of up to 50 steps")
    seed(chosen)(Worlds)
    run_worlds(sequences, database=None)
    assert sequences < 2000 or set(Worlds.seen) >= REPEATED, REPEATED - set(Worlds.seen)
    print(f"SIM-3: {sum(Worlds.seen.values())} requests; " + ", ".join(f"{what} {n}" for what, n in sorted(Worlds.seen.items())))
