"""Tier of a member at a given time, and the time of its next change. Pure: time is an argument.

Qualifying points are summed per asset and month of the event: an award adds to the month of its event, a clawback subtracts from the month
of its purchase. The tier follows from these sums and the versions of the tier set: a member has the highest tier of the current set that
their points justified at any time within the grace period that ends now, by the rules in force at that time. No job has to run for a tier
to be correct. Points that arrive late count in their own month. Points that were taken back never counted, so they earn no grace.

The stored part (the tier at the last review, the time of the next change, the history) is written in the commits that change the member
state.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from itertools import accumulate

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar, add_months
from guerdon.campaigns.domain import Award, EvaluationInputs, MemberState, RecordedEvent, ShopEvent
from guerdon.campaigns.outcome import EventOutcome, award_of
from guerdon.clock import rfc3339, to_datetime
from guerdon.tiers.models import Keep, MemberTierView, NextTier, Reason, RollingWindow, TierChange, TierSet, TierSets

Qualifying = Mapping[str, Mapping[str, int]]
"""Qualifying points by asset and month (`2026-11`)."""
MONTHS_KEPT = 60
"""Number of months kept; longer than the longest window and the longest grace together."""
POINTS_MAX = 10**17
"""Maximum of one month, so that the sum of all months fits into a 64-bit integer."""
_FIRST_MS, _LAST_MS = 0, 221_845_392_000_000
"""Years 1970 to 9000. A time outside has no month in some time zones, and is in no window."""
_FIRST_MONTH = 1970 * 12 + 1


class QualifyingGain(Struct, frozen=True):
    """Qualifying points of one event; negative for a refund. The times of a refund are those of its purchase."""

    asset: str
    amount: int
    occurred_at: int
    recorded_at: int


class TierProgress(Struct, frozen=True):
    """Member state at the present time, and the tier changes since the last review."""

    member_state: MemberState
    changes: tuple[TierChange, ...] = ()


# --- qualifying points ------------------------------------------------------------------------------------------------


def gains_of(
    event: ShopEvent, outcome: EventOutcome, inputs: EvaluationInputs, original: RecordedEvent | None = None
) -> list[QualifyingGain]:
    """Return the qualifying points of an event; `original` is the purchase of a refund.

    All awards count, pending awards included, in the month of their event. A refund subtracts its share from the month of the purchase,
    independent of the clawback policy and of the balance: a tier depends on the purchases that were kept.
    """
    if event.refund_of is not None:
        if original is None:
            return []
        broken = [
            QualifyingGain(each.award.asset, -each.award.amount, each.occurred_at, each.recorded_at)
            for each in outcome.broken
            if each.award is not None
        ]
        return _losses(original.awards, inputs, outcome, original.occurred_at, original.recorded_at) + broken
    awards = [award_of(allocation) for allocation in outcome.allocations if allocation.amount and allocation.to is None]
    gains = [QualifyingGain(award.asset, award.amount, event.occurred_at, inputs.decided_at) for award in awards]
    if outcome.refunded is None:
        return gains
    return gains + _losses(awards, inputs, outcome, event.occurred_at, inputs.decided_at)


def _losses(
    awards: Sequence[Award], inputs: EvaluationInputs, outcome: EventOutcome, occurred_at: int, recorded_at: int
) -> list[QualifyingGain]:
    """Return the negative points of a refund, dated like the purchase."""
    taken = {} if inputs.before is None else inputs.before.taken
    known = {} if outcome.refunded is None else outcome.refunded.taken
    due = {campaign: amount - taken.get(campaign, 0) for campaign, amount in known.items()}
    return [
        QualifyingGain(award.asset, -due[award.campaign], occurred_at, recorded_at)
        for award in awards
        if award.amount > 0 and award.to is None and due.get(award.campaign)
    ]


def add_gains(
    qualifying: Qualifying, gains: Sequence[QualifyingGain], now_ms: int, calendar: Calendar
) -> dict[str, Mapping[str, int]]:
    """Return the sums with the gains added. Months older than `MONTHS_KEPT` and more than one month ahead are dropped."""
    sums: dict[str, Mapping[str, int]] = dict(qualifying)
    today = month_of(now_ms, calendar)
    for gain in gains:
        month = month_of(gain.occurred_at, calendar)
        if month > month_of(gain.recorded_at, calendar) + 1:
            continue
        months = dict(sums.get(gain.asset, {}))
        name = _name_of(month)
        months[name] = max(-POINTS_MAX, min(POINTS_MAX, months.get(name, 0) + gain.amount))
        newest = min(_number_of(max(months)), today)  # Names of months sort like the months.
        oldest = _name_of(newest - MONTHS_KEPT + 1)
        if min(months) < oldest:
            months = {each: points for each, points in months.items() if each >= oldest}
        sums[gain.asset] = months
    return sums


def month_of(at_ms: int, calendar: Calendar) -> int:
    """Return the number of the month that contains a time; consecutive months have consecutive numbers."""
    return _number_of(calendar.names(max(_FIRST_MS, min(at_ms, _LAST_MS)))[1])


def _number_of(name: str) -> int:
    return int(name[:4]) * 12 + int(name[5:]) - 1


def _name_of(month: int) -> str:
    return f"{month // 12:04d}-{month % 12 + 1:02d}"


@lru_cache(maxsize=1024)
def _start_of(month: int, calendar: Calendar) -> int:
    return calendar.month_bounds(month // 12, month % 12 + 1)[0]


@lru_cache(maxsize=1024)
def _grace_ends_at(moment: int, months: int, days: int, calendar: Calendar) -> int:
    """Return the end of the grace for a tier that was justified until `moment`: a midnight, or `moment` without a grace."""
    if not months and not days:
        return moment
    day = to_datetime(moment).astimezone(calendar.zone).date()
    if calendar.midnight(day) != moment:
        day += timedelta(days=1)
    return calendar.midnight(add_months(day, months) + timedelta(days=days))


# --- the tier over time -----------------------------------------------------------------------------------------------


class TierHistory:
    """Tier of a member over time, if no further points are earned or refunded."""

    def __init__(self, versions: Sequence[TierSet], qualifying: Qualifying, calendar: Calendar) -> None:
        self._versions = versions
        self._calendar = calendar
        self._months: dict[str, list[int]] = {}
        self._sums: dict[str, list[int]] = {}
        for asset in {tiers.asset for tiers in versions}:
            earned = sorted((_number_of(name), points) for name, points in qualifying.get(asset, {}).items())
            self._months[asset] = [month for month, _ in earned]
            self._sums[asset] = [0, *accumulate(points for _, points in earned)]

    def in_force(self, at_ms: int) -> TierSet | None:
        """Return the tier set in force at a time, or None before the first one."""
        for tiers in reversed(self._versions):
            if tiers.effective_at is None or tiers.effective_at <= at_ms:
                return tiers
        return None

    def tier_at(self, at_ms: int) -> str | None:
        """Return the tier at a time, or None."""
        tiers, rank = self.rank_at(at_ms)
        return None if tiers is None or rank < 0 else tiers.tiers[rank].code

    def rank_at(self, at_ms: int) -> tuple[TierSet | None, int]:
        """Return the tier set in force at a time, and the index of the member's tier in it; -1 without a tier."""
        at_ms = max(_FIRST_MS, min(at_ms, _LAST_MS))
        tiers = self.in_force(at_ms)
        if tiers is None:
            return None, -1
        best = self._justified(tiers, at_ms)
        then, moment = tiers, at_ms
        while best < len(tiers.tiers) - 1:
            # The period that contains the time begins with its month or with its tier set.
            began = max(_start_of(month_of(moment, self._calendar), self._calendar), then.effective_at or _FIRST_MS)
            if _grace_ends_at(began, tiers.grace_months, tiers.grace_days, self._calendar) <= at_ms or began <= _FIRST_MS:
                break
            moment = began - 1
            before = self.in_force(moment)
            if before is None:
                break
            then = before
            rank = self._justified(then, moment)
            if rank >= 0:
                best = max(best, tier_rank(tiers, then.tiers[rank].code))
        return tiers, best

    def points_at(self, tiers: TierSet, at_ms: int) -> int:
        """Return the qualifying points that count at a time; at least 0."""
        month = month_of(at_ms, self._calendar)
        months, sums = self._months[tiers.asset], self._sums[tiers.asset]
        first = bisect_right(months, self.window_start(tiers, month) - 1)
        return max(0, sums[bisect_right(months, month)] - sums[first])

    @staticmethod
    def window_start(tiers: TierSet, month: int) -> int:
        """Return the first month whose points count in `month`."""
        return month - tiers.window.months if isinstance(tiers.window, RollingWindow) else month // 12 * 12

    def _justified(self, tiers: TierSet, at_ms: int) -> int:
        points = self.points_at(tiers, at_ms)
        return bisect_right(tiers.tiers, points, key=lambda tier: tier.points) - 1

    def change_times(self, after_ms: int, until_ms: int | None = None) -> Iterator[int]:
        """Yield every time after `after_ms` and up to `until_ms`, in order, at which the tier can change."""
        newest = [months[-1] for months in self._months.values() if months]
        ruled = [tiers.effective_at for tiers in self._versions if tiers.effective_at is not None]
        newest += [month_of(moment, self._calendar) for moment in ruled]
        graces = {(0, 0), *((tiers.grace_months, tiers.grace_days) for tiers in self._versions)}
        begins = month_of(after_ms, self._calendar) - max(months + days // 28 + 1 for months, days in graces)
        # No points count after this month.
        last = max(newest, default=0) + max((_months_of(tiers) for tiers in self._versions), default=0)
        edges = [_start_of(month, self._calendar) for month in range(max(begins, _FIRST_MONTH), last + 2)]
        moments = {_grace_ends_at(edge, months, days, self._calendar) for edge in {*edges, *ruled} for months, days in graces}
        yield from sorted(each for each in moments if each > after_ms and (until_ms is None or each <= until_ms))

    def next_change(self, at_ms: int) -> int | None:
        """Return the time at which the tier changes without further events, or None."""
        tier = self.tier_at(at_ms)
        if tier is None and not self._can_rise(at_ms):
            return None
        return next((moment for moment in self.change_times(at_ms) if self.tier_at(moment) != tier), None)

    def _can_rise(self, at_ms: int) -> bool:
        """Return True if points that count from a later month, or a tier set that comes into force later, are known."""
        today = month_of(at_ms, self._calendar)
        ahead = any(months and months[-1] > today for months in self._months.values())
        return ahead or any(tiers.effective_at is not None and tiers.effective_at > at_ms for tiers in self._versions)

    def caused_by_rules(self, at_ms: int) -> bool:
        """Return True if a change at this time is caused by a new tier set, at once or after the grace."""
        moments = (tiers.effective_at for tiers in self._versions if tiers.effective_at is not None)
        tiers = self.in_force(at_ms)
        assert tiers is not None
        return any(
            at_ms in (moment, _grace_ends_at(moment, tiers.grace_months, tiers.grace_days, self._calendar)) for moment in moments
        )


def _months_of(tiers: TierSet) -> int:
    """Return the number of months after which points no longer count."""
    return tiers.window.months if isinstance(tiers.window, RollingWindow) else 11


def tier_rank(tiers: TierSet, code: str) -> int:
    """Return the index of a tier in a tier set; -1 if the set does not contain it."""
    return next((place for place, tier in enumerate(tiers.tiers) if tier.code == code), -1)


def tier_at(versions: Sequence[TierSet], qualifying: Qualifying, at_ms: int, calendar: Calendar) -> str | None:
    """Return the tier that an event of this time is evaluated with, or None."""
    return TierHistory(versions, qualifying, calendar).tier_at(at_ms)


# --- the member state -------------------------------------------------------------------------------------------------


def review(sets: TierSets | None, member_state: MemberState, now_ms: int, calendar: Calendar) -> TierProgress:
    """Record the tier changes that time and new tier sets have caused since the last review.

    The result does not depend on the times at which reviews run.
    """
    if sets is None or not member_state.count:
        return TierProgress(member_state)
    if member_state.tier_version == sets.count and (member_state.due_at is None or member_state.due_at > now_ms):
        return TierProgress(member_state)
    history = TierHistory(sets.versions, member_state.qualifying, calendar)
    seen = member_state.tier_seen_at if member_state.tier_version else sets.versions[0].created_at
    # A tier set that is new to the member state can be in force since the time of the last review itself.
    moments = [
        *([min(seen, now_ms)] if member_state.tier_version != sets.count else []),
        *history.change_times(seen, now_ms),
        now_ms,
    ]
    changes: list[TierChange] = []
    for moment in moments:
        tiers, rank = history.rank_at(moment)
        if tiers is None:
            continue
        tier = None if rank < 0 else tiers.tiers[rank].code
        if tier == member_state.tier:
            continue
        rises = rank > tier_rank(tiers, member_state.tier or "")
        first = not member_state.tier_version and moment == moments[0]
        reason: Reason = "rules" if first or history.caused_by_rules(moment) else "earned" if rises else "lapsed"
        member_state, change = _step(member_state, tier, reason, (tiers, history, moment, now_ms), None)
        changes.append(change)
    member_state = msgspec.structs.replace(
        member_state, tier_version=sets.count, tier_seen_at=now_ms, due_at=history.next_change(now_ms)
    )
    return TierProgress(member_state, tuple(changes))


def advance(
    sets: TierSets | None,
    member_state: MemberState,
    gains: Sequence[QualifyingGain],
    event_id: str,
    *,
    now_ms: int,
    calendar: Calendar,
) -> TierProgress:
    """Review the member state, and then add the points of an event. A preview without a member has no state."""
    if not member_state.owner:
        return TierProgress(member_state)
    known = TierProgress(member_state) if sets is None else review(sets, member_state, now_ms, calendar)
    member_state = known.member_state
    if gains:
        qualifying = add_gains(member_state.qualifying, gains, now_ms, calendar)
        member_state = msgspec.structs.replace(member_state, qualifying=qualifying)
    if sets is None or (not gains and member_state.tier_version):
        return TierProgress(member_state, known.changes)
    history = TierHistory(sets.versions, member_state.qualifying, calendar)
    tiers, rank = history.rank_at(now_ms)
    tier = None if tiers is None or rank < 0 else tiers.tiers[rank].code
    changes = known.changes
    if tiers is not None and tier != member_state.tier:
        reason: Reason = "earned" if rank > tier_rank(tiers, member_state.tier or "") else "refunded"
        member_state, change = _step(member_state, tier, reason, (tiers, history, now_ms, now_ms), event_id)
        changes = (*changes, change)
    elif member_state.tier_version == sets.count and not _changes_sooner(gains, now_ms, calendar):
        # The state known until now has been reviewed; a late event must not change the history before its arrival.
        return TierProgress(msgspec.structs.replace(member_state, tier_seen_at=now_ms), changes)
    member_state = msgspec.structs.replace(
        member_state, tier_version=sets.count, tier_seen_at=now_ms, due_at=history.next_change(now_ms)
    )
    return TierProgress(member_state, changes)


def _changes_sooner(gains: Sequence[QualifyingGain], now_ms: int, calendar: Calendar) -> bool:
    """Return True if the tier can change earlier than `due_at`: points were removed, or count from next month only."""
    today = month_of(now_ms, calendar)
    return any(gain.amount < 0 or month_of(gain.occurred_at, calendar) > today for gain in gains)


def _step(
    member_state: MemberState,
    tier: str | None,
    reason: Reason,
    where: tuple[TierSet, TierHistory, int, int],
    event_id: str | None,
) -> tuple[MemberState, TierChange]:
    tiers, course, at_ms, now_ms = where
    number = member_state.tier_changes + 1
    change = TierChange(
        id=f"{member_state.id}#{number:06d}",
        owner=member_state.owner,
        before=member_state.tier,
        after=tier,
        reason=reason,
        points=course.points_at(tiers, at_ms),
        version=tiers.version,
        event=event_id,
        at=at_ms,
        recorded_at=now_ms,
    )
    return msgspec.structs.replace(member_state, tier=tier, tier_since=at_ms, tier_changes=number), change


def view_tier(sets: TierSets | None, member_state: MemberState, now_ms: int, calendar: Calendar) -> MemberTierView:
    """Return a member's tier, the points missing to the next tier, and the points needed to keep the current one."""
    member_state = review(sets, member_state, now_ms, calendar).member_state
    history = TierHistory(() if sets is None else sets.versions, member_state.qualifying, calendar)
    tiers, rank = history.rank_at(now_ms)
    if tiers is None:
        return MemberTierView(member_state.id, None, None, None, 0, None, None, None)
    points = history.points_at(tiers, now_ms)
    above = tiers.tiers[rank + 1] if rank + 1 < len(tiers.tiers) else None
    return MemberTierView(
        member_id=member_state.id,
        tier=None if rank < 0 else tiers.tiers[rank].code,
        since=None if rank < 0 or member_state.tier_since is None else rfc3339(member_state.tier_since),
        asset=tiers.asset,
        qualifying_points=points,
        version=tiers.version,
        next=None if above is None else NextTier(above.code, above.points, above.points - points),
        keep=None if rank < 0 else _keep(history, tiers.tiers[rank].code, now_ms, calendar),
    )


def _keep(history: TierHistory, code: str, now_ms: int, calendar: Calendar) -> Keep | None:
    """Return the points needed to keep a tier, or None if it needs none."""
    for until in history.change_times(now_ms):
        tiers, rank = history.rank_at(until)
        if tiers is None or 0 <= tier_rank(tiers, code) <= rank:
            continue
        # With a grace, points earned before its end are enough; without one, they must count at its end.
        looked_at = until - 1 if tiers.grace_months or tiers.grace_days else until
        ruling = history.in_force(looked_at) or tiers
        begins = _start_of(history.window_start(ruling, month_of(looked_at, calendar)), calendar)
        counts_from, place = max(now_ms, begins), tier_rank(ruling, code)
        possible = counts_from < until and place >= 0 and tier_rank(tiers, code) >= 0
        missing = max(0, ruling.tiers[place].points - history.points_at(ruling, looked_at)) if possible else None
        return Keep(missing, rfc3339(counts_from), rfc3339(until))
    return None
