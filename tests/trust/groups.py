"""How `make trust` spreads the checks over its two workers."""

import pytest

ALONE = pytest.mark.xdist_group("alone")
"""For a check that measures time: it runs when no other check does."""
REPLICA_SET = pytest.mark.xdist_group("replica-set")
"""For a check that runs three mongods under load: never two of them at once."""
LONGEST = ("test_bank_faults", "test_failover", "test_world", "test_fuzz", "test_seasoned", "test_proof", "test_campaigns")
"""Modules that start first, so that the workers end at about the same time."""


def is_alone(item: pytest.Item) -> bool:
    return "alone" in _groups(item)


def order_of(item: pytest.Item) -> tuple[int, int]:
    """Return the sort key of an item: other tests, then the longest checks, the rest, and those that run alone."""
    if item.get_closest_marker("trust") is None:
        return (0, 0)
    module = item.path.stem
    return (2 if is_alone(item) else 1, LONGEST.index(module) if module in LONGEST else len(LONGEST))


def _groups(item: pytest.Item) -> list[str]:
    return [str(mark.args[0]) for mark in item.iter_markers("xdist_group")]
