"""Sums that are compared, and the differences between them. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from guerdon.database import Document
from guerdon.projections.models import Aggregate, Increment

BUCKET, BUCKET_LENGTH = "bucket", 6
"""Name of a field in place of `owner` in the key of a subtotal: the beginning of the owner's id, of this length."""
Key = tuple[object, ...]
Sums = dict[Key, tuple[int, ...]]
"""Values by key. A key without values is the same as one whose values are 0."""


class Difference(Struct, frozen=True):
    """A value of the views that differs from the same value computed from the ledger and the events."""

    view: str
    """Collection of the view, or what else was compared."""
    where: str
    """Row, account or member."""
    detail: str


ReportDifference = Callable[[Difference], None]


class Subtotal(Struct, frozen=True):
    """Sums of an aggregate by some of its fields, which an independent computation gives too."""

    aggregate: Aggregate
    by: tuple[str, ...]
    sums: tuple[str, ...]
    expected: Sums
    keep: Callable[[Key], bool] = lambda _: True
    """Function that returns True for the keys to compare."""


def add_to(sums: Sums, key: Key, values: Sequence[int]) -> None:
    known = sums.get(key)
    sums[key] = tuple(values) if known is None else tuple([a + b for a, b in zip(known, values, strict=True)])


def expand(increments: Iterable[Increment]) -> Iterable[Increment]:
    """Return the increments with those of the aggregates that are rolled up from them."""
    for increment in increments:
        yield increment
        for rollup in increment.aggregate.rollups:
            for key in rollup.keys_of(increment.key):
                yield Increment(rollup.aggregate, key, increment.add)


def subtotal_of(subtotal: Subtotal, increments: Iterable[Increment]) -> Sums:
    """Return the same sums of increments that the views do not have yet."""
    found: Sums = {}
    for aggregate, key, add in increments:
        if aggregate.collection == subtotal.aggregate.collection:
            fields = dict(zip(aggregate.key, key, strict=True))
            values = [str(fields["owner"])[:BUCKET_LENGTH] if name == BUCKET else fields[name] for name in subtotal.by]
            add_to(found, tuple(values), [add.get(name, 0) for name in subtotal.sums])
    return found


def rows_to_sums(rows: Iterable[Document], by: Sequence[str], names: Sequence[str]) -> Sums:
    found: Sums = {}
    for row in rows:
        key: Document = row["_id"] or {}
        add_to(found, tuple(key.get(name, "") for name in by), [int(row[name]) for name in names])
    return found


def compare(
    view: str, names: Sequence[str], found: Mapping[Key, tuple[int, ...]], expected: Mapping[Key, tuple[int, ...]]
) -> list[Difference]:
    """Return the differences between two sums, ordered by key."""
    differences: list[Difference] = []
    zeros = (0,) * len(names)
    for key in sorted(found.keys() | expected.keys(), key=str):
        left, right = found.get(key, zeros), expected.get(key, zeros)
        if left != right:
            told = ", ".join(
                f"{name} is {a}, the entries and events give {b}" for name, a, b in zip(names, left, right, strict=True) if a != b
            )
            differences.append(Difference(view, "|".join(map(str, key)), told))
    return differences
