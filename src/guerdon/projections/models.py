"""Definitions of view groups, and the changes that a fold returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from msgspec import Struct
from pymongo import IndexModel

PARTITIONS = 16
"""Number of partitions of a view group: `$toHashedIndexKey(owner) mod 16`, computed by the database alone. It is part of the version."""

State = TypeVar("State", bound=Struct)
KeyPart = str | int


@dataclass(frozen=True)
class Aggregate:
    """A collection of sums. Each partition has rows of its own, so partitions never change the same row; a query adds them up.

    `_id` is `{version}|{partition}|` and the parts of the key, separated by `|`. The row has the fields `version` and `part`, those of the key,
    and the sums.
    """

    collection: str
    key: tuple[str, ...]
    """Names of the fields that identify a row, in the order of `Increment.key`."""
    sums: tuple[str, ...]
    """Names of the integer fields."""
    indexes: tuple[IndexModel, ...] = ()


class Increment(NamedTuple):
    """Signed change of one row of an aggregate."""

    aggregate: Aggregate
    key: tuple[KeyPart, ...]
    """Values of `Aggregate.key`. An absent value is "" so that every row has every field."""
    add: Mapping[str, int]
    """Signed changes by name of `Aggregate.sums`."""


@dataclass(frozen=True)
class Folded(Generic[State]):
    """Result of a fold: the state after a document, and the changes of aggregates that follow from it."""

    state: State
    increments: Sequence[Increment]


class Target(NamedTuple):
    """Rows that a fold writes to. States begin with `{version}|` and carry both fields."""

    version: int
    """Number of the generation: the version of every row. A rebuild makes a new generation beside the old one."""
    part: int
    """Partition of the subject."""
