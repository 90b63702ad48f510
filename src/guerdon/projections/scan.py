"""Build by scan: read the subjects of partitions in pages, and apply the documents of each that are newer than its watermark.

A build, a rebuild and a catch-up after lost history are the same scan. What is written meanwhile is told apart by its number when the change
stream delivers it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from guerdon.database import Database, Document, Session
from guerdon.projections.applying import commit
from guerdon.projections.batch import Batch, Poison, States, part_of
from guerdon.projections.models import Feed, Range, Source, ViewGroup
from guerdon.projections.positions import ViewPosition, milliseconds_of, to_number

SUBJECTS_MAX, DOCUMENTS_MAX, ROWS_MAX = 2_000, 10_000, 10_000
"""Maximum of subjects and of documents of one page, and of rows of one transaction."""


class ScannedSubject(NamedTuple):
    """ScannedSubject of a page: its partition and the number of its newest document."""

    id: str
    part: int
    newest: int


class Found(NamedTuple):
    """Stored document of a subject."""

    number: int
    id: str
    feed: Feed
    row: Document


class Stopped(Exception):
    """A document stopped a partition. `position` is the position to continue from."""

    def __init__(self, position: ViewPosition, poison: Poison) -> None:
        super().__init__(poison.document)
        self.position = position
        self.poison = poison


class Scan:
    """Scan of partitions that have the same progress. `positions` are the newest ones that were written."""

    def __init__(self, database: Database, group: ViewGroup, positions: Sequence[ViewPosition]) -> None:
        self._database = database
        self._group = group
        self.positions = {position.part: position for position in positions}

    async def run(self) -> None:
        """Scan to the end; the positions then are those of a stream.

        Raises:
            Stopped: a document cannot be applied. The position is that before its page.
            Fenced: a position belongs to another worker.
        """
        async with self._database.client.start_session(causal_consistency=True) as session:
            reply = await self._database.client.admin.command("ping", session=session)
            first = next(iter(self.positions.values()))
            start = first.start or to_number(reply["operationTime"])
            # Reads of the session wait until a majority has what was written before `start`.
            for index in range(first.source, len(self._group.sources)):
                after = first.after if index == first.source else ""
                await self._scan(index, after, start, session)
        # What was committed before `start` is applied, so the partition is up to date as of then.
        at = {"phase": "stream", "source": 0, "after": "", "start": 0, "at": start, "at_ms": milliseconds_of(start)}
        await self._commit({}, {**at, "fault": None, "failures": 0})

    async def _scan(self, index: int, after: str, start: int, session: Session) -> None:
        source = self._group.sources[index]
        while page := await self._subjects(source, after, session):
            after = page[-1].id
            await self._apply_page(source, page, {"source": index, "after": after, "start": start}, session)

    async def _subjects(self, source: Source[Any], after: str, session: Session) -> list[ScannedSubject]:
        pipeline: list[Document] = [
            {"$match": {"_id": {"$gt": after}}},
            {"$sort": {"_id": 1}},
            {"$project": {"part": part_of("$owner"), "newest": f"${source.newest}"}},
            {"$match": {"part": {"$in": sorted(self.positions)}}},
            {"$limit": SUBJECTS_MAX},
        ]
        rows = await self._database.raw[source.subjects].aggregate(pipeline, session=session, batchSize=SUBJECTS_MAX)
        return [ScannedSubject(row["_id"], int(row["part"]), int(row.get("newest") or 0)) async for row in rows]

    async def _apply_page(
        self, source: Source[Any], page: list[ScannedSubject], progress: dict[str, Any], session: Session
    ) -> None:
        """Apply the documents of a page in as many transactions as their number needs. Only the last one moves past the page."""
        versions = {position.version for position in self.positions.values()}
        states = await read_states(self._database, source, versions, [subject.id for subject in page], session)
        batches = self._batches(states)
        parts = {subject.id: subject.part for subject in page}
        for ranges in _ranges(source, page, states):
            if sum(batch.size for batch in batches.values()) > ROWS_MAX:
                await self._commit(batches, {})
                batches = self._batches(states)
            await self._apply_ranges(source, ranges, parts, batches, session)
        await self._commit(batches, progress)

    def _batches(self, states: States) -> dict[int, Batch]:
        return {part: Batch(self._group, position, states) for part, position in self.positions.items()}

    async def _apply_ranges(
        self, source: Source[Any], ranges: list[Range], parts: dict[str, int], batches: dict[int, Batch], session: Session
    ) -> None:
        found = await read_ranges(self._database, source, ranges, session)
        for each in ranges:
            batch = batches[parts[each.subject]]
            for number, row_id, feed, row in found.get(each.subject, ()):
                try:
                    if source.dense and number != batch.mark(source, each.subject) + 1:
                        raise Poison(row_id, "the document before it is missing")
                    batch.fold(source, each.subject, number, feed, row)
                except Poison as poison:
                    raise Stopped(batch.position, poison) from poison

    async def _commit(self, batches: dict[int, Batch], fields: dict[str, Any]) -> None:
        written = [(batches.get(part) or Batch(self._group, position, {}), fields) for part, position in self.positions.items()]
        for position in await commit(self._database, written):
            self.positions[position.part] = position


def _ranges(source: Source[Any], page: Sequence[ScannedSubject], states: States) -> Iterator[list[Range]]:
    """Yield what is to be read for the subjects of a page, in pieces of at most `DOCUMENTS_MAX` documents."""
    piece: list[Range] = []
    left = DOCUMENTS_MAX
    for subject in page:
        state = states.get((source.name, subject.id))
        mark = 0 if state is None else getattr(state, source.watermark)
        unread = state is None  # Documents without a number are only found by reading.
        while unread or mark < subject.newest:
            upto = min(subject.newest, mark + left)
            piece.append(Range(subject.id, mark, upto))
            left -= max(upto - mark, 1)
            mark, unread = upto, False
            if left <= 0:
                yield piece
                piece, left = [], DOCUMENTS_MAX
    if piece:
        yield piece


async def read_states(
    database: Database, source: Source[Any], versions: set[int], subjects: Sequence[str], session: Session | None = None
) -> States:
    """Return the stored states of the subjects, of one version."""
    (version,) = versions
    prefix = f"{version}|"
    ids = [prefix + subject for subject in subjects]
    found: States = {}
    async for row in database.raw[source.states].find({"_id": {"$in": ids}}, session=session):
        found[source.name, row["_id"][len(prefix) :]] = msgspec.convert(row, source.state, builtin_types=(bytes,))
    return found


async def read_ranges(
    database: Database, source: Source[Any], ranges: Sequence[Range], session: Session | None = None
) -> dict[str, list[Found]]:
    """Return the documents of the ranges by subject, in order. Those without a number are read with `after` 0."""
    limits = {each.subject: each for each in ranges}
    assert len(limits) == len(ranges)
    found: defaultdict[str, list[Found]] = defaultdict(list)
    if not ranges:
        return found
    for feed in source.feeds:
        projection = dict.fromkeys(("owner", *feed.fields), 1) if feed.fields else None
        async for row in database.raw[feed.collection].find(feed.where(ranges), projection, session=session):
            subject, number = feed.subject_of(row), feed.number_of(row)
            limit = limits.get(subject)
            if limit is not None and (limit.after < number <= limit.upto or (not number and not limit.after)):
                found[subject].append(Found(number, str(row["_id"]), feed, row))
    for documents in found.values():
        documents.sort(key=lambda document: document[:2])
    return found
