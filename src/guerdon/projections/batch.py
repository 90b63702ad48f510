"""Documents that were folded and the writes that follow from them. Pure: nothing is read or written here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.database import Document
from guerdon.projections.models import PARTITIONS, Aggregate, Feed, Increment, KeyPart, Range, Source, Target, ViewGroup
from guerdon.projections.positions import ViewPosition

States = dict[tuple[str, str], Struct]
"""States by name of the source and subject."""
_BYTES = (bytes,)


class Poison(Exception):
    """A document that the fold does not accept. Documents after it must not be applied."""

    def __init__(self, document: str, error: str) -> None:
        super().__init__(document, error)
        self.document = document
        self.error = error


class Gap(Exception):
    """The document does not follow the one that was applied last: those between them have to be read."""

    def __init__(self, missing: Range) -> None:
        super().__init__(missing)
        self.missing = missing


@dataclass(slots=True)
class _Sum:
    aggregate: Aggregate
    key: tuple[str | int, ...]
    add: dict[str, int]


class Batch:
    """Writes of one transaction for one position."""

    def __init__(self, group: ViewGroup, position: ViewPosition, states: States) -> None:
        """`states` are the stored states of the subjects; the batch adds those that it derives."""
        self._group = group
        self.position = position
        self.states = states
        self.target = Target(position.version, position.part)
        self.changed: set[tuple[str, str]] = set()
        self._sums: dict[tuple[str, tuple[str | int, ...]], _Sum] = {}
        self.applied = self.redelivered = self.repaired = 0
        self.broken = False
        """True if an increment of the last document does not fit its aggregate: the batch must not be written."""

    def mark(self, source: Source[Any], subject: str) -> int:
        """Return the number of the last document of the subject that was applied; 0 before the first one."""
        state = self.states.get((source.name, subject))
        return 0 if state is None else getattr(state, source.watermark)

    def add(self, source: Source[Any], feed: Feed, row: Document) -> bool:
        """Fold a stored document if it is the next one of its subject. Return False if it was applied before.

        Raises:
            Gap: documents before it are missing, or may be.
            Poison: see `fold`.
        """
        subject, number = feed.subject_of(row), feed.number_of(row)
        mark = self.mark(source, subject)
        if number <= mark:
            self.redelivered += 1
            return False
        if number > mark + 1:
            raise Gap(Range(subject, mark, number - 1))
        self.fold(source, subject, number, feed, row)
        return True

    def fold(self, source: Source[Any], subject: str, number: int, feed: Feed, row: Document) -> None:
        """Fold a stored document that is known to be the next one.

        Raises:
            Poison: it cannot be decoded, the fold raised an error, or the new state has another watermark.
        """
        key = (source.name, subject)
        try:
            folded = source.fold(self.states.get(key), feed.decode(row), self.target)
            if getattr(folded.state, source.watermark) != number:
                raise ValueError("the watermark of the state is not the number of the document")
            self.broken = True
            for increment in folded.increments:
                self._sum(increment)
            self.broken = False
        except Exception as error:  # An error of any kind must stop the partition of the document and nothing else.
            raise Poison(str(row["_id"]), _describe(error)) from error
        self.states[key] = folded.state
        self.changed.add(key)
        self.applied += 1

    @property
    def size(self) -> int:
        """Number of rows to write."""
        return len(self.changed) + len(self._sums)

    def writes(self) -> dict[str, list[Document]]:
        """Return the update statements by collection."""
        found: dict[str, list[Document]] = {}
        states = {source.name: source.states for source in self._group.sources}
        for key in sorted(self.changed):
            document = msgspec.to_builtins(self.states[key], builtin_types=_BYTES)
            statement = {"q": {"_id": document["_id"]}, "u": document, "upsert": True}
            found.setdefault(states[key[0]], []).append(statement)
        prefix = f"{self.target.version}|{self.target.part}|"
        for total in self._with_rollups():
            if any(total.add.values()):
                found.setdefault(total.aggregate.collection, []).append(self._increment(total, prefix))
        return found

    def _with_rollups(self) -> Iterable[_Sum]:
        rolled: dict[tuple[str, tuple[KeyPart, ...]], _Sum] = {}
        for total in self._sums.values():
            for rollup in total.aggregate.rollups:
                for key in rollup.keys_of(total.key):
                    name = (rollup.aggregate.collection, key)
                    sums = rolled.get(name)
                    if sums is None:
                        rolled[name] = _Sum(rollup.aggregate, key, dict(total.add))
                    else:
                        _add(sums.add, total.add)
        return (*self._sums.values(), *rolled.values())

    def _increment(self, total: _Sum, prefix: str) -> Document:
        aggregate = total.aggregate
        fields: Document = {"version": self.target.version, "part": self.target.part}
        fields.update(zip(aggregate.key, total.key, strict=True))
        row_id = prefix + "|".join(map(str, total.key))
        return {"q": {"_id": row_id}, "u": {"$inc": total.add, "$setOnInsert": fields}, "upsert": True}

    def _sum(self, increment: Increment) -> None:
        aggregate, key, add = increment
        total = self._sums.get((aggregate.collection, key))
        if total is not None:
            _add(total.add, add)
            return
        if len(key) != len(aggregate.key) or not add.keys() <= set(aggregate.sums):
            raise ValueError(f"an increment does not fit {aggregate.collection}")
        # Every sum is there from the start, so that a row has all of them.
        self._sums[aggregate.collection, key] = _Sum(aggregate, key, {**dict.fromkeys(aggregate.sums, 0), **add})


def _add(sums: dict[str, int], changes: Mapping[str, int]) -> None:
    for name, change in changes.items():
        sums[name] += change


def part_of(field: str) -> Document:
    """Return the expression by which the database computes the partition of an owner."""
    return {"$mod": [{"$abs": {"$toHashedIndexKey": field}}, PARTITIONS]}


def _describe(error: Exception) -> str:
    """Return the type of an error and the place that raised it. Its message may contain data, so it is left out."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}"
    return f"{type(error).__name__}{place}"
