"""Segments: definitions and their versions, the members of the newest finished run, and requests for a new one."""

import re
from collections.abc import Sequence

import msgspec

from guerdon.campaigns.cel import compile_segment, require_bounded
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS, SERVING, row_id, segment_ids, segments_among
from guerdon.campaigns.warnings import ReadKnownNames, warnings_of_member_rules
from guerdon.clock import Clock
from guerdon.database import Database, Document, DuplicateKeyError
from guerdon.errors import InvalidState, NotFound, Validation, collect
from guerdon.http.cursor import decode_cursor, decode_text, encode_cursor
from guerdon.ids import IdSource
from guerdon.lifecycle import Definitions, version_id
from guerdon.permissions import Actor
from guerdon.segments.models import (
    NAME_PATTERN,
    RFM_GROUPS,
    SEGMENT_RUNS,
    SEGMENT_VERSIONS,
    SEGMENTS,
    SEGMENTS_MAX,
    MemberRow,
    Segment,
    SegmentMemberPage,
    SegmentMemberQuery,
    SegmentMemberView,
    SegmentPage,
    SegmentRun,
    SegmentSet,
    SegmentVersion,
    SegmentView,
    view_member_row,
    view_segment,
)
from guerdon.types import DefinitionWarning, PageQuery

WRITES_MAX = 10
"""Maximum number of attempts to store a segment that other requests change at the same time."""
_NAME = re.compile(rf"{NAME_PATTERN}\Z")
_RUN_ID = re.compile(r"sgr_[0-9a-f]{32}\Z")
_BY_NAME = "segment:"
"""Beginning of the positions of the list of segments."""
NO_SEGMENT = "there is no such segment"


class Segments:
    """Service of segments."""

    def __init__(self, database: Database, clock: Clock, ids: IdSource, *, known: ReadKnownNames) -> None:
        self._definitions = Definitions(database, (SEGMENTS, Segment), (SEGMENT_VERSIONS, SegmentVersion), noun="segment")
        self._runs = database.collection(SEGMENT_RUNS, SegmentRun)
        self._rows = database.collection(MEMBER_SEGMENTS, MemberRow)
        self._clock = clock
        self._ids = ids
        self._known = known

    # --- commands ---------------------------------------------------------------------------------------------------

    async def set_segment(self, actor: Actor, name: str, body: SegmentSet) -> SegmentView:
        """Store a segment as its next version. The same content makes no new version. The members change with the next run.

        Raises:
            Validation: the name is not acceptable or belongs to a group of Guerdon, or the condition does not compile or could take too long.
            InvalidState: there are too many segments, or other requests kept changing the segment.
        """
        faults = list(_faults_of_name(name))
        with collect(faults):
            require_bounded(body.condition, "/condition")
            compile_segment(body.condition, "/condition")
        if faults:
            raise Validation.all_of(faults)
        warnings = await self._warnings(body)
        for _ in range(WRITES_MAX):
            current = await self._definitions.current.get(name)
            if current is not None and current.status == "active" and _content(current) == _content(body):
                return view_segment(name, current, await self.get_serving_run(), warnings)
            if current is None or current.status != "active":
                await self._require_room()
            segment = Segment(
                id=name,
                status="active",
                version=1 if current is None else current.version + 1,
                count=1 if current is None else current.count + 1,
                condition=body.condition,
                description=body.description,
                created_at=self._clock.now_ms(),
                created_by=actor.id,
            )
            if await self._store(segment, current):
                return view_segment(name, segment, await self.get_serving_run(), warnings)
        raise self._definitions.conflict("active")

    async def delete(self, actor: Actor, name: str) -> None:
        """Delete a segment, and request a run that removes its members. Its versions are kept, and a later segment of this name continues them.

        Raises:
            NotFound: the segment does not exist.
            InvalidState: it is a group of Guerdon, or another request changed it at the same time.
        """
        if name in RFM_GROUPS:
            raise InvalidState(f"{name} is computed by Guerdon and cannot be deleted", status_now="active")
        current = await self._get_own(name)
        deleted = msgspec.structs.replace(current, status="deleted", count=current.count + 1)
        unchanged = {"_id": name, "count": current.count}
        await self._definitions.replace(deleted, None, unchanged=unchanged, status_now=current.status)
        await self._request(actor)

    async def refresh(self, actor: Actor, name: str) -> SegmentRun:
        """Request a run, which computes all segments as of its start; return it. A run that is waiting already is returned.

        Raises:
            NotFound: the segment does not exist.
        """
        if name not in RFM_GROUPS:
            await self._get_own(name)
        return await self._request(actor)

    async def _request(self, actor: Actor) -> SegmentRun:
        waiting = await self._runs.find_one({"open": True, "status": "waiting", "day": {"$exists": False}})
        if waiting is not None:
            return waiting
        run = SegmentRun(id=self._ids.new("sgr"), status="waiting", open=True, created_at=self._clock.now_ms(), created_by=actor.id)
        await self._runs.insert(run)
        return run

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_segment(self, name: str) -> SegmentView:
        """Return a segment, with the number of its members in the newest finished run.

        Raises:
            NotFound: the segment does not exist.
        """
        segment = None if name in RFM_GROUPS else await self._get_own(name)
        return view_segment(name, segment, await self.get_serving_run())

    async def list_segments(self, query: PageQuery) -> SegmentPage:
        """Return one page of all segments, ordered by name.

        Raises:
            Validation: the cursor was not returned by this list.
        """
        after = "" if query.cursor is None else decode_cursor(query.cursor, _BY_NAME).removeprefix(_BY_NAME)
        own = {segment.id: segment for segment in await self.list_own()}
        names = [name for name in sorted([*RFM_GROUPS, *own]) if name > after]
        run = await self.get_serving_run()
        page = names[: query.limit]
        views = [view_segment(name, own.get(name), run) for name in page]
        return SegmentPage(views, encode_cursor(_BY_NAME + page[-1]) if len(names) > query.limit else None)

    async def list_members(self, name: str, query: SegmentMemberQuery) -> SegmentMemberPage:
        """Return one page of the members of a segment in the newest finished run, ordered by id. Empty before the first run.

        Raises:
            NotFound: the segment does not exist.
            Validation: the cursor was not returned by this list.
        """
        if name not in RFM_GROUPS:
            await self._get_own(name)
        after = "" if query.cursor is None else decode_cursor(query.cursor, "mem_")
        run = await self.get_serving_run()
        if run is None:
            return SegmentMemberPage([], 0, None)
        where: Document = {"slot": run.slot, "segments": name, "_id": {"$gt": f"{run.slot}/{after}"}}
        found = await self._rows.find(where, sort=[("_id", 1)], limit=query.limit + 1)
        page = found[: query.limit]
        cursor = encode_cursor(page[-1].owner) if len(found) > query.limit else None
        return SegmentMemberPage([view_member_row(row, run.currency) for row in page], run.counts.get(name, 0), cursor)

    async def get_run(self, run_id: str) -> SegmentRun:
        """
        Raises:
            NotFound: the run does not exist.
        """
        run = await self._runs.get(run_id)
        if run is None:
            raise NotFound("there is no such run")
        return run

    async def list_runs(self, query: PageQuery) -> tuple[list[SegmentRun], str | None]:
        """Return one page of the runs, newest first, and the cursor of the next.

        Raises:
            Validation: the cursor was not returned by this list.
        """
        where: Document = {} if query.cursor is None else {"_id": {"$lt": decode_text(query.cursor, _RUN_ID)}}
        found = await self._runs.find(where, sort=[("_id", -1)], limit=query.limit + 1)
        page = found[: query.limit]
        return page, encode_cursor(page[-1].id) if len(found) > query.limit else None

    async def find_segments_of(self, member_ids: Sequence[str]) -> dict[str, Sequence[str]]:
        """Return the names of the segments of several members, by id, in the newest finished run."""
        wanted = {each for member in member_ids for each in segment_ids(member)}
        rows = {str(row["_id"]): row async for row in self._rows.raw.find({"_id": {"$in": sorted(wanted)}})}
        return {member: segments_among(rows, member) for member in member_ids}

    async def find_member_rows(self, member_id: str) -> list[SegmentMemberView]:
        """Return what the newest finished run has computed of a member. Empty for a member who is newer than the run."""
        run = await self.get_serving_run()
        row = None if run is None else await self._rows.get(row_id(run.slot, member_id))
        return [] if run is None or row is None else [view_member_row(row, run.currency)]

    async def get_names(self) -> frozenset[str]:
        """Return the names of all segments."""
        return frozenset([*RFM_GROUPS, *(segment.id for segment in await self.list_own())])

    async def list_own(self) -> list[Segment]:
        """Return the segments of the programme's own, ordered by name."""
        return await self._definitions.current.find({"status": "active"}, sort=[("_id", 1)], limit=SEGMENTS_MAX)

    async def get_serving_run(self) -> SegmentRun | None:
        """Return the newest finished run, whose memberships are read, or None before the first."""
        serving = await self._rows.raw.find_one({"_id": SERVING})
        return None if serving is None else await self._runs.get(serving["run"])

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _get_own(self, name: str) -> Segment:
        segment = await self._definitions.current.get(name)
        if segment is None or segment.status != "active":
            raise NotFound(NO_SEGMENT)
        return segment

    async def _warnings(self, body: SegmentSet) -> list[DefinitionWarning]:
        known = msgspec.structs.replace(await self._known(), segments=frozenset(RFM_GROUPS))
        return warnings_of_member_rules([("/condition", body.condition)], [], known)

    async def _require_room(self) -> None:
        if len(await self.list_own()) >= SEGMENTS_MAX:
            raise InvalidState(f"there are {SEGMENTS_MAX} segments already; delete one first", status_now="active")

    async def _store(self, segment: Segment, current: Segment | None) -> bool:
        """Store a version and make it the current one. Return False if another request changed the segment first."""
        proof = await self._definitions.proof_of(segment, version_id(segment.id, segment.version - 1))
        archived = SegmentVersion(id=version_id(segment.id, segment.version), segment=segment, proof=proof)
        try:
            if current is None:
                await self._definitions.insert(segment, archived)
            else:
                unchanged = {"_id": segment.id, "count": current.count}
                await self._definitions.replace(segment, archived, unchanged=unchanged, status_now=current.status)
        except (DuplicateKeyError, InvalidState):
            return False
        return True


def _faults_of_name(name: str) -> list[Validation]:
    if name in RFM_GROUPS:
        return [Validation.at("name", f"{name} is computed by Guerdon; choose another name")]
    if _NAME.match(name) is None:
        words = "a name has up to 40 small letters, digits, - and _, and begins with a letter"
        return [Validation.at("name", words)]
    return []


def _content(segment: Segment | SegmentSet) -> tuple[object, ...]:
    return segment.condition, segment.description
