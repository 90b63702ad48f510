"""Wire and stored shapes of segments, of their runs and of the memberships."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.campaigns.member_segments import MEMBER_SEGMENTS, SLOTS, row_id
from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.proofs import ArchivedVersion
from guerdon.types import DefinitionWarning, PageQuery, Text

SEGMENTS, SEGMENT_VERSIONS, SEGMENT_RUNS = "segments", "segment_versions", "segment_runs"
INDEXES: dict[str, list[IndexModel]] = {
    # Deleted segments accumulate, and keep their versions.
    SEGMENTS: [IndexModel([("status", 1), ("_id", 1)], name="status")],
    SEGMENT_VERSIONS: [],
    SEGMENT_RUNS: [
        # Partial: a worker looks every few seconds for the few runs with work left, and each night has one run.
        IndexModel([("open", 1), ("_id", 1)], name="open", partialFilterExpression={"open": True}),
        IndexModel([("day", 1)], name="day", unique=True, partialFilterExpression={"day": {"$exists": True}}),
    ],
    MEMBER_SEGMENTS: [IndexModel([("slot", 1), ("segments", 1), ("_id", 1)], name="segment")],
}
RFM_GROUPS = (
    "champions",
    "loyal",
    "active",
    "new",
    "promising",
    "needs-attention",
    "at-risk",
    "previously-loyal",
    "almost-lost",
    "dormant",
    "prospects",
)
"""Names of the segments that every programme has. Each member is in exactly one of them."""
SEGMENTS_MAX = 50
"""Maximum number of segments of the programme's own."""
NAME_PATTERN = r"[a-z][a-z0-9_-]{0,39}"
RunStatus = Literal["waiting", "running", "done", "failed"]


def _of_member(member_id: str) -> Document:
    return {"_id": {"$in": [row_id(slot, member_id) for slot in SLOTS]}}


ERASABLE_ROWS = [ErasableRows("segments", MEMBER_SEGMENTS, _of_member)]


# --- stored ---------------------------------------------------------------------------------------------------------


class Segment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A segment of the programme's own, as it is now or as one of its versions."""

    NOT_CONTENT = frozenset({"status", "count", "created_at", "created_by"})

    id: str = field(name="_id")
    """Name of the segment."""
    version: int
    status: Literal["active", "deleted"]
    count: int
    """Number of changes, deletions included."""
    condition: str
    description: str | None = None
    created_at: int
    """Time of this version, in milliseconds."""
    created_by: str


class SegmentVersion(ArchivedVersion, frozen=True, kw_only=True):
    """Archived version of a segment."""

    id: str = field(name="_id")
    """`{name}/{version}`"""
    segment: Segment

    @property
    def definition(self) -> Segment:
        return self.segment


class RunCondition(Struct, frozen=True):
    """Version of a segment that a run evaluates."""

    name: str
    version: int
    condition: str


class RfmBounds(Struct, frozen=True):
    """Upper bounds of the first four fifths of the scored members, by value. A member's score follows from them, so equal values score the same."""

    days: tuple[int, ...] = ()
    """Whole days since the last purchase: 5 points up to the first bound, 1 point above the last."""
    purchases: tuple[int, ...] = ()
    """Number of purchases that are not wholly refunded: 1 point up to the first bound, 5 points above the last."""
    spent: tuple[int, ...] = ()
    """Net spend in minor units: 1 point up to the first bound, 5 points above the last."""


class SegmentRun(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One computation of all segments. Its result is visible as a whole when it is done, and never before."""

    id: str = field(name="_id")
    day: str | UnsetType = UNSET
    """Day of a nightly run in the programme's time zone. Unset for a run that was requested."""
    status: RunStatus
    open: bool | UnsetType = UNSET
    """True until the run has ended."""
    created_at: int
    created_by: str
    started_at: int | None = None
    ended_at: int | None = None
    error: str | None = None
    at: int = 0
    """Time that the run computes: the midnight that begins `day`, or the start of a requested run."""
    since: int = 0
    """Start of the 365 days before `at`."""
    slot: int = 0
    """Slot of the memberships that the run writes, which is not read before its end."""
    conditions: tuple[RunCondition, ...] = ()
    phase: Literal["measure", "assign"] = "measure"
    page: int = 0
    """Number of pages that were saved. A page is saved only on the number that it was computed from."""
    after: str = ""
    """Id of the last member of the newest page of the phase."""
    page_from: str = ""
    """Id of the last member of the page before it."""
    tries: int = 0
    """Number of starts since the newest saved page."""
    members: int = 0
    """Number of members measured."""
    scored: int = 0
    """Number of them with a purchase in the 365 days."""
    currencies: dict[str, int] = {}
    """Number of counted purchases by currency."""
    currency: str | None = None
    """Currency of the money; None without a purchase."""
    bounds: RfmBounds | None = None
    unevaluated: dict[str, int] = {}
    """By segment: number of members for whom its condition could not be evaluated."""
    counts: dict[str, int] = {}
    """By segment: number of members."""


class MemberPurchases(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Purchases of one member as a run has measured them."""

    days: int | None = None
    """Whole days of the programme's calendar since the last purchase; None without one."""
    purchases: int = 0
    """Number of purchases in the 365 days that are not wholly refunded."""
    spent: dict[str, int] = {}
    """By currency: amounts of the purchases in the 365 days less refunds, in minor units."""


class MemberRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Segments of one member, as one run has computed them."""

    id: str = field(name="_id")
    """`{slot}/{member}`"""
    owner: str
    slot: int
    run: str
    segments: tuple[str, ...] = ()
    """Names in alphabetical order. Empty while the run is measuring."""
    group: str = ""
    """The one of `RFM_GROUPS`."""
    recency: int = 0
    frequency: int = 0
    monetary: int = 0
    """Scores from 1 to 5; 0 without a purchase."""
    measured: MemberPurchases = MemberPurchases()


# --- wire -----------------------------------------------------------------------------------------------------------


class SegmentSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Condition of a segment."""

    condition: Annotated[str, Meta(min_length=1, max_length=2000, examples=["member.attributes.country == 'GB'"])]
    """CEL condition over `member` and `now` that is true for the members of the segment."""
    description: Text | None = None
    """Purpose of the segment, for people."""


class SegmentView(Struct, frozen=True, kw_only=True):
    """A segment. Its members are those of the last run."""

    name: str
    """Name, as conditions use it in `"…" in member.segments`."""
    kind: Literal["rfm", "own"]
    """`rfm` for the eleven groups that Guerdon computes, `own` for a segment with a condition."""
    condition: str | None
    """CEL condition over `member` and `now`; null for an `rfm` segment."""
    description: str | None
    """Purpose of the segment, or null."""
    version: int | None
    """Number of the version, from 1; null for an `rfm` segment. Every change makes a new one."""
    created_at: str | None
    """Time of this version, RFC 3339 in UTC; null for an `rfm` segment."""
    created_by: str | None
    """Id of the caller who created this version; null for an `rfm` segment."""
    members: int | None
    """Number of members; null before the first run that has evaluated the segment."""
    unevaluated: int | None
    """Number of members for whom the condition could not be evaluated, who are not members of the segment; null like `members`."""
    run_version: int | None
    """Version that the members belong to; null for an `rfm` segment, and before the first run."""
    evaluated_at: str | None
    """Time that the members belong to, RFC 3339 in UTC; null before the first run."""
    run_id: str | None
    """Id of the run that has computed the members; null before the first run."""
    warnings: list[DefinitionWarning] = []
    """Parts of the condition that are valid and probably not meant. Only the answer to a change has them."""


class SegmentPage(Struct, frozen=True):
    """One page of segments, ordered by name."""

    items: list[SegmentView]
    """The segments of this page."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


class SegmentMemberView(Struct, frozen=True, kw_only=True):
    """A member of a segment, with what the run has computed of the member."""

    member_id: str
    """Id of the member."""
    segments: list[str]
    """All segments of the member, in alphabetical order."""
    recency: int
    """Score of the days since the last purchase, 1 to 5; 0 without a purchase."""
    frequency: int
    """Score of the number of purchases, 1 to 5; 0 without a purchase."""
    monetary: int
    """Score of the net spend, 1 to 5; 0 without a purchase."""
    days_since_last: int | None
    """Whole days of the programme's calendar since the last purchase; null without one."""
    purchases: int
    """Number of purchases in the 365 days before the run that are not wholly refunded."""
    spent: int
    """Their amounts less refunds, in minor units of the run's currency."""


class SegmentMemberPage(Struct, frozen=True):
    """One page of the members of a segment, ordered by id."""

    items: list[SegmentMemberView]
    """The members of this page."""
    count: int
    """Number of members of the segment in the last run."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


class SegmentMemberQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of the members of a segment, ordered by id."""


class BoundsView(Struct, frozen=True):
    """Upper bounds of the first four fifths of the members with a purchase in the 365 days. Empty if there are none."""

    days_since_last: list[int]
    """Bounds of the days since the last purchase. The recency is 5 up to the first bound, and 1 above the last."""
    purchases: list[int]
    """Bounds of the number of purchases. The frequency is 1 up to the first bound, and 5 above the last."""
    spent: list[int]
    """Bounds of the net spend in minor units of `currency`. The monetary score is 1 up to the first bound, and 5 above the last."""


class SegmentRunView(Struct, frozen=True, kw_only=True):
    """One computation of all segments."""

    id: str
    """Id of the run."""
    kind: Literal["nightly", "refresh"]
    """`nightly`, or `refresh` for a run that was requested."""
    day: str | None
    """Day of a nightly run in the programme's time zone; null for a refresh."""
    status: RunStatus
    """`waiting`, `running`, `done` or `failed`. Conditions and lists use the newest run that is done."""
    at: str | None
    """Time that the run computes, RFC 3339 in UTC: the beginning of `day`, or the start of a refresh. Null while the run waits."""
    currency: str | None
    """Currency of the money; null without a purchase, and until the members are measured."""
    members: int
    """Number of members measured so far."""
    scored: int
    """Number of them with a purchase in the 365 days before `at`."""
    bounds: BoundsView | None
    """Bounds of the scores; null until the members are measured."""
    counts: dict[str, int]
    """By segment: number of members. Empty until the run is done."""
    unevaluated: dict[str, int]
    """By segment: number of members for whom the condition could not be evaluated."""
    versions: dict[str, int]
    """By segment of the programme's own: version that the run evaluates."""
    created_at: str
    """Time at which the run was requested or became due, RFC 3339 in UTC."""
    created_by: str
    """Id of the caller who requested it, or `system:worker`."""
    started_at: str | None
    """Time of the start, RFC 3339 in UTC; null while the run waits."""
    ended_at: str | None
    """Time of the end, RFC 3339 in UTC; null until then."""
    error: str | None
    """Reason of a failure; null unless `status` is `failed`."""


class SegmentRunPage(Struct, frozen=True):
    """One page of runs, newest first."""

    items: list[SegmentRunView]
    """The runs of this page."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


# --- views ----------------------------------------------------------------------------------------------------------


def view_segment(
    name: str, segment: Segment | None, run: SegmentRun | None, warnings: Sequence[DefinitionWarning] = ()
) -> SegmentView:
    """Return the wire shape of a segment, with its members in the newest run that is done. `segment` is None for a group of `RFM_GROUPS`."""
    evaluated = None if run is None else next((each.version for each in run.conditions if each.name == name), None)
    if run is not None and segment is not None and evaluated is None:
        run = None
    return SegmentView(
        name=name,
        kind="rfm" if segment is None else "own",
        condition=None if segment is None else segment.condition,
        description=None if segment is None else segment.description,
        version=None if segment is None else segment.version,
        created_at=None if segment is None else rfc3339(segment.created_at),
        created_by=None if segment is None else segment.created_by,
        members=None if run is None else run.counts.get(name, 0),
        unevaluated=None if run is None else run.unevaluated.get(name, 0),
        run_version=evaluated,
        evaluated_at=None if run is None else rfc3339(run.at),
        run_id=None if run is None else run.id,
        warnings=list(warnings),
    )


def view_run(run: SegmentRun) -> SegmentRunView:
    """Return the wire shape of a run."""
    bounds = run.bounds
    return SegmentRunView(
        id=run.id,
        kind="refresh" if run.day is UNSET else "nightly",
        day=None if run.day is UNSET else run.day,
        status=run.status,
        at=rfc3339(run.at) if run.at else None,
        currency=run.currency,
        members=run.members,
        scored=run.scored,
        bounds=None if bounds is None else BoundsView(list(bounds.days), list(bounds.purchases), list(bounds.spent)),
        counts=run.counts,
        unevaluated=run.unevaluated,
        versions={each.name: each.version for each in run.conditions},
        created_at=rfc3339(run.created_at),
        created_by=run.created_by,
        started_at=optional_rfc3339(run.started_at),
        ended_at=optional_rfc3339(run.ended_at),
        error=run.error,
    )


def view_member_row(row: MemberRow, currency: str | None) -> SegmentMemberView:
    """Return the wire shape of a member of a segment; `currency` is that of the run."""
    return SegmentMemberView(
        member_id=row.owner,
        segments=list(row.segments),
        recency=row.recency,
        frequency=row.frequency,
        monetary=row.monetary,
        days_since_last=row.measured.days,
        purchases=row.measured.purchases,
        spent=row.measured.spent.get(currency or "", 0),
    )
