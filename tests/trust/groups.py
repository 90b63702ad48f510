"""How `make trust` spreads the checks over its workers."""

import pytest

ALONE = pytest.mark.alone
"""For a check that measures time: it runs when no other check does."""
REPLICA_SET = ("test_bank_faults", "test_failover")
"""Modules whose checks run three mongods under load: one worker runs them all, so that two never run at once."""
LONGEST = (
    *REPLICA_SET,
    "test_fuzz",
    "test_ledger_histories",
    "test_replay_order",
    "test_tampering",
    "test_campaigns",
    "test_gift_cards",
)
"""Modules that start first, so that the workers end at about the same time."""


def group_of(nodeid: str) -> str:
    """Return the name of the group that a check belongs to: checks of one group run on one worker, one after the other."""
    module = nodeid.partition("::")[0].rpartition("/")[2].removesuffix(".py")
    return "replica-set" if module in REPLICA_SET else nodeid


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def order_of(item: pytest.Item) -> tuple[int, int]:
    """Return the sort key of an item: other tests, then the longest checks, the rest, and those that run alone."""
    if item.get_closest_marker("trust") is None:
        return (0, 0)
    module = item.path.stem
    return (2 if is_alone(item) else 1, LONGEST.index(module) if module in LONGEST else len(LONGEST))
