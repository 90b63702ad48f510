"""Definitions of view groups, and the changes that a fold returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct
from pymongo import IndexModel

from guerdon.database import Document

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
    rollups: "tuple[Rollup, ...]" = ()


@dataclass(frozen=True)
class Rollup:
    """Another aggregate whose rows are sums of the rows of an aggregate. A fold increments the fine rows alone."""

    aggregate: Aggregate
    keys_of: Callable[[tuple[KeyPart, ...]], Sequence[tuple[KeyPart, ...]]]
    """Function that returns the rows to which a row with this key belongs. They have the same sums."""


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


Fold = Callable[[State | None, Any, Target], Folded[State]]
"""Pure function of the state of a subject (None before its first document), the next document as its feed decodes it, and the target. The
state that it returns has the number of the document as its watermark."""


class Range(NamedTuple):
    """Documents of one subject to read: numbers above `after` up to `upto`."""

    subject: str
    after: int
    upto: int


@dataclass(frozen=True)
class Feed:
    """A collection of documents that never change. Each belongs to one subject and has a number in it."""

    collection: str
    fields: tuple[str, ...]
    """Names of the stored fields that the fold reads, besides `_id` and `owner`; an empty tuple means all of them. Fewer cost less."""
    decode: Callable[[Document], Any]
    """Function that returns the document for the fold."""
    subject_of: Callable[[Document], str]
    """Function that returns the subject of a stored document."""
    number_of: Callable[[Document], int]
    """Function that returns the number of a stored document; 0 for one that has none, which is older than the numbers."""
    where: Callable[[Sequence[Range]], Document]
    """Function that returns a filter that finds at least the documents of the ranges. An index must answer it."""
    inserted: Document = field(default_factory=dict[str, Any])
    """Further conditions on the changes, such as `{"fullDocument.kind": {"$exists": True}}`."""


@dataclass(frozen=True)
class Source(Generic[State]):
    """Subjects, the documents that describe them in order, and the fold that derives their states."""

    name: str
    subjects: str
    """Collection that has one document of each subject, with `owner`; a build scans it."""
    newest: str
    """Field of it with the number of the newest document of the subject."""
    feeds: tuple[Feed, ...]
    states: str
    """Collection of the states."""
    state: type[State]
    watermark: str
    """Field of the state with the number of the last document that was applied."""
    fold: Fold[State]
    dense: bool = True
    """True if the numbers have no gaps. Otherwise a gap is read before it is passed over, as it may be empty."""


@dataclass(frozen=True)
class ViewGroup:
    """Views that are derived in one pass and have one position."""

    name: str
    definition: int
    """Version of what is derived. A worker with a higher number builds a new generation."""
    sources: tuple[Source[Any], ...]
    aggregates: tuple[Aggregate, ...]
