"""Which tier a member has at a moment, and when it changes. Pure: the time is an argument.

Qualifying points are kept by the month in which the event occurred, for each asset: what is paid adds to its month, what is taken back
falls from the month of its purchase. From these sums and the versions of the tiers everything follows: a member has the best tier of the
present set that their points justified at any moment of the grace that ends now, by the rules of that moment. So nothing has to run for a
tier to be right, points that came late count where they belong, and points that were taken back have never been there: no grace is due
for them.

What is stored of it (the tier of the last look, when it changes next, the history) follows in the commits that move the standing.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import accumulate

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import Award, EvaluationInputs, MemberState, RecordedEvent, ShopEvent
from guerdon.campaigns.outcome import EventOutcome, award_of
from guerdon.clock import rfc3339, to_datetime, to_ms
from guerdon.tiers.models import Keep, MemberTierView, NextTier, Reason, RollingWindow, TierChange, TierSet, TierSets

Qualifying = Mapping[str, Mapping[str, int]]
"""By asset and month (`2026-11`): what was earned there."""
MONTHS_KEPT = 60
"""Longer than the longest window and grace together."""
POINTS_MAX = 10**17
"""What a month holds at most, so that the sum of all months is a number that the database can hold."""
_FIRST_MS, _LAST_MS = 0, 221_845_392_000_000
"""1970 to 9000: what is said to have happened outside has no month in every time zone, and lies in nobody's window."""
_FIRST_MONTH = 1970 * 12 + 1


class QualifyingGain(Struct, frozen=True):
    """Qualifying points that an event brings, or takes back (negative). Times are those of the purchase when it is refunded."""

    asset: str
    amount: int
    occurred_at: int
    recorded_at: int


class TierProgress(Struct, frozen=True):
    """A standing brought up to the present, and how its tier has changed on the way."""

    standing: MemberState
    changes: tuple[TierChange, ...] = ()


# --- qualifying points ------------------------------------------------------------------------------------------------


def gains_of(
    event: ShopEvent, settled: EventOutcome, inputs: EvaluationInputs, original: RecordedEvent | None = None
) -> list[QualifyingGain]:
    """What an event counts for tiers; `original` is the purchase of a refund.

    All awards count, pending ones too, in the month in which their event occurred. A refund takes its share from the month of the purchase,
    whatever the clawback policy and whatever is left in the wallet: a tier rests on purchases that were kept.
    """
    if event.refund_of is not None:
        if original is None:
            return []
        broken = [
            QualifyingGain(each.award.asset, -each.award.amount, each.occurred_at, each.recorded_at)
            for each in settled.broken
            if each.award is not None
        ]
        return _losses(original.awards, inputs, settled, original.occurred_at, original.recorded_at) + broken
    awards = [award_of(verdict) for verdict in settled.allocations if verdict.amount and verdict.to is None]
    gains = [QualifyingGain(award.asset, award.amount, event.occurred_at, inputs.decided_at) for award in awards]
    if settled.refunded is None:
        return gains
    return gains + _losses(awards, inputs, settled, event.occurred_at, inputs.decided_at)


def _losses(
    awards: Sequence[Award], inputs: EvaluationInputs, settled: EventOutcome, occurred_at: int, recorded_at: int
) -> list[QualifyingGain]:
    """What is refunded now of the awards of a purchase of this moment."""
    taken = {} if inputs.before is None else inputs.before.taken
    known = {} if settled.refunded is None else settled.refunded.taken
    due = {campaign: amount - taken.get(campaign, 0) for campaign, amount in known.items()}
    return [
        QualifyingGain(award.asset, -due[award.campaign], occurred_at, recorded_at)
        for award in awards
        if award.amount > 0 and award.to is None and due.get(award.campaign)
    ]


def counted(
    qualifying: Qualifying, gains: Sequence[QualifyingGain], now_ms: int, calendar: Calendar
) -> dict[str, Mapping[str, int]]:
    """Return the sums with what has been gained. Months of long ago, and those that are more than a month ahead, are not kept."""
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
    """Number the month that holds a moment; the next month has the next number."""
    return _number_of(calendar.names(max(_FIRST_MS, min(at_ms, _LAST_MS)))[1])


def _number_of(name: str) -> int:
    return int(name[:4]) * 12 + int(name[5:]) - 1


def _name_of(month: int) -> str:
    return f"{month // 12:04d}-{month % 12 + 1:02d}"


@lru_cache(maxsize=1024)
def _start_of(month: int, calendar: Calendar) -> int:
    return calendar.month_bounds(month // 12, month % 12 + 1)[0]


@lru_cache(maxsize=1024)
def _held_until(moment: int, months: int, days: int, calendar: Calendar) -> int:
    """When the grace is over for what was justified until `moment`: at a midnight, unless there is no grace."""
    if not months and not days:
        return moment
    day = to_datetime(moment).astimezone(calendar.zone).date()
    if _midnight(day, calendar) != moment:
        day += timedelta(days=1)
    count = day.year * 12 + day.month - 1 + months
    first = date(count // 12, count % 12 + 1, 1)
    after = date((count + 1) // 12, (count + 1) % 12 + 1, 1)
    return _midnight(first.replace(day=min(day.day, (after - first).days)) + timedelta(days=days), calendar)


def _midnight(day: date, calendar: Calendar) -> int:
    return to_ms(datetime.combine(day, time.min, calendar.zone).astimezone(UTC))


# --- the course of a tier ---------------------------------------------------------------------------------------------


class TierHistory:
    """How a member's tier goes through time when nothing is earned or refunded any more."""

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
        """The rules of a moment; None before there are any."""
        for tiers in reversed(self._versions):
            if tiers.effective_at is None or tiers.effective_at <= at_ms:
                return tiers
        return None

    def tier_at(self, at_ms: int) -> str | None:
        """The tier at a moment; None is none."""
        tiers, rank = self.rank_at(at_ms)
        return None if tiers is None or rank < 0 else tiers.tiers[rank].code

    def rank_at(self, at_ms: int) -> tuple[TierSet | None, int]:
        """The rules of a moment, and the place among their tiers that a member has; -1 is none."""
        at_ms = max(_FIRST_MS, min(at_ms, _LAST_MS))
        tiers = self.in_force(at_ms)
        if tiers is None:
            return None, -1
        best = self._justified(tiers, at_ms)
        then, moment = tiers, at_ms
        while best < len(tiers.tiers) - 1:
            # The stretch that holds the moment began here: with the month, or with the rules.
            began = max(_start_of(month_of(moment, self._calendar), self._calendar), then.effective_at or _FIRST_MS)
            if _held_until(began, tiers.grace_months, tiers.grace_days, self._calendar) <= at_ms or began <= _FIRST_MS:
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
        """The points that count at a moment; fewer than none are none."""
        month = month_of(at_ms, self._calendar)
        months, sums = self._months[tiers.asset], self._sums[tiers.asset]
        first = bisect_right(months, self.window_start(tiers, month) - 1)
        return max(0, sums[bisect_right(months, month)] - sums[first])

    @staticmethod
    def window_start(tiers: TierSet, month: int) -> int:
        """The first month whose points count in a month."""
        return month - tiers.window.months if isinstance(tiers.window, RollingWindow) else month // 12 * 12

    def _justified(self, tiers: TierSet, at_ms: int) -> int:
        points = self.points_at(tiers, at_ms)
        return bisect_right(tiers.tiers, points, key=lambda tier: tier.points) - 1

    def turns(self, after_ms: int, until_ms: int | None = None) -> Iterator[int]:
        """Every moment after `after_ms`, in order, at which the tier may become another one; `until_ms` is the last."""
        newest = [months[-1] for months in self._months.values() if months]
        ruled = [tiers.effective_at for tiers in self._versions if tiers.effective_at is not None]
        newest += [month_of(moment, self._calendar) for moment in ruled]
        graces = {(0, 0), *((tiers.grace_months, tiers.grace_days) for tiers in self._versions)}
        begins = month_of(after_ms, self._calendar) - max(months + days // 28 + 1 for months, days in graces)
        # In the month after that nothing counts any more.
        last = max(newest, default=0) + max((_months_of(tiers) for tiers in self._versions), default=0)
        edges = [_start_of(month, self._calendar) for month in range(max(begins, _FIRST_MONTH), last + 2)]
        moments = {_held_until(edge, months, days, self._calendar) for edge in {*edges, *ruled} for months, days in graces}
        yield from sorted(each for each in moments if each > after_ms and (until_ms is None or each <= until_ms))

    def next_change(self, at_ms: int) -> int | None:
        """When the tier becomes another one by itself; None is never."""
        tier = self.tier_at(at_ms)
        if tier is None and not self._may_rise(at_ms):
            return None
        return next((moment for moment in self.turns(at_ms) if self.tier_at(moment) != tier), None)

    def _may_rise(self, at_ms: int) -> bool:
        """Whether points that will only count later, or rules that will only be in force later, are known."""
        today = month_of(at_ms, self._calendar)
        ahead = any(months and months[-1] > today for months in self._months.values())
        return ahead or any(tiers.effective_at is not None and tiers.effective_at > at_ms for tiers in self._versions)

    def ruled(self, at_ms: int) -> bool:
        """Whether a change at this moment comes from a change of the rules, at once or after the grace."""
        moments = (tiers.effective_at for tiers in self._versions if tiers.effective_at is not None)
        tiers = self.in_force(at_ms)
        assert tiers is not None
        return any(
            at_ms in (moment, _held_until(moment, tiers.grace_months, tiers.grace_days, self._calendar)) for moment in moments
        )


def _months_of(tiers: TierSet) -> int:
    """After how many months at most points do not count any more."""
    return tiers.window.months if isinstance(tiers.window, RollingWindow) else 11


def tier_rank(tiers: TierSet, code: str) -> int:
    """The place of a tier among others; -1 when there is no such tier."""
    return next((place for place, tier in enumerate(tiers.tiers) if tier.code == code), -1)


def tier_at(versions: Sequence[TierSet], qualifying: Qualifying, at_ms: int, calendar: Calendar) -> str | None:
    """The tier by which an event that occurred at this moment is judged."""
    return TierHistory(versions, qualifying, calendar).tier_at(at_ms)


# --- a member's standing ----------------------------------------------------------------------------------------------


def review(sets: TierSets | None, standing: MemberState, now_ms: int, calendar: Calendar) -> TierProgress:
    """Write down what time and changes of the rules have done since somebody looked: the same, whenever somebody looks."""
    if sets is None or not standing.count:
        return TierProgress(standing)
    if standing.tier_version == sets.count and (standing.due_at is None or standing.due_at > now_ms):
        return TierProgress(standing)
    course = TierHistory(sets.versions, standing.qualifying, calendar)
    seen = standing.tier_seen_at if standing.tier_version else sets.versions[0].created_at
    # Rules that are new to the standing may be in force since the very moment at which it was seen.
    moments = [*([min(seen, now_ms)] if standing.tier_version != sets.count else []), *course.turns(seen, now_ms), now_ms]
    changes: list[TierChange] = []
    for moment in moments:
        tiers, rank = course.rank_at(moment)
        if tiers is None:
            continue
        tier = None if rank < 0 else tiers.tiers[rank].code
        if tier == standing.tier:
            continue
        rises = rank > tier_rank(tiers, standing.tier or "")
        first = not standing.tier_version and moment == moments[0]
        reason: Reason = "rules" if first or course.ruled(moment) else "earned" if rises else "lapsed"
        standing, change = _step(standing, tier, reason, (tiers, course, moment, now_ms), None)
        changes.append(change)
    standing = msgspec.structs.replace(standing, tier_version=sets.count, tier_seen_at=now_ms, due_at=course.next_change(now_ms))
    return TierProgress(standing, tuple(changes))


def advance(
    sets: TierSets | None, standing: MemberState, gains: Sequence[QualifyingGain], event_id: str, *, now_ms: int, calendar: Calendar
) -> TierProgress:
    """Bring a standing up to the present, and then count what an event brings or takes. Of nobody (a preview) nothing is known."""
    if not standing.owner:
        return TierProgress(standing)
    known = review(sets, standing, now_ms, calendar)
    standing = known.standing
    if gains:
        qualifying = counted(standing.qualifying, gains, now_ms, calendar)
        standing = msgspec.structs.replace(standing, qualifying=qualifying)
    if sets is None or (not gains and standing.tier_version):
        return TierProgress(standing, known.changes)
    course = TierHistory(sets.versions, standing.qualifying, calendar)
    tiers, rank = course.rank_at(now_ms)
    tier = None if tiers is None or rank < 0 else tiers.tiers[rank].code
    changes = known.changes
    if tiers is not None and tier != standing.tier:
        reason: Reason = "earned" if rank > tier_rank(tiers, standing.tier or "") else "refunded"
        standing, change = _step(standing, tier, reason, (tiers, course, now_ms, now_ms), event_id)
        changes = (*changes, change)
    elif standing.tier_version == sets.count and not _turns_sooner(gains, now_ms, calendar):
        # What was known until now has been looked at; what has come late must not change the history before it came.
        return TierProgress(msgspec.structs.replace(standing, tier_seen_at=now_ms), changes)
    standing = msgspec.structs.replace(standing, tier_version=sets.count, tier_seen_at=now_ms, due_at=course.next_change(now_ms))
    return TierProgress(standing, changes)


def _turns_sooner(gains: Sequence[QualifyingGain], now_ms: int, calendar: Calendar) -> bool:
    """Whether the tier may change earlier than was known: points have gone, or some will only count next month."""
    today = month_of(now_ms, calendar)
    return any(gain.amount < 0 or month_of(gain.occurred_at, calendar) > today for gain in gains)


def _step(
    standing: MemberState,
    tier: str | None,
    reason: Reason,
    where: tuple[TierSet, TierHistory, int, int],
    event_id: str | None,
) -> tuple[MemberState, TierChange]:
    tiers, course, at_ms, now_ms = where
    number = standing.tier_changes + 1
    change = TierChange(
        id=f"{standing.id}#{number:06d}",
        owner=standing.owner,
        before=standing.tier,
        after=tier,
        reason=reason,
        points=course.points_at(tiers, at_ms),
        version=tiers.version,
        event=event_id,
        at=at_ms,
        recorded_at=now_ms,
    )
    return msgspec.structs.replace(standing, tier=tier, tier_since=at_ms, tier_changes=number), change


def view_tier(sets: TierSets | None, standing: MemberState, now_ms: int, calendar: Calendar) -> MemberTierView:
    """What a member has now, what is missing to the next tier, and what it takes to keep this one."""
    standing = review(sets, standing, now_ms, calendar).standing
    course = TierHistory(() if sets is None else sets.versions, standing.qualifying, calendar)
    tiers, rank = course.rank_at(now_ms)
    if tiers is None:
        return MemberTierView(standing.id, None, None, None, 0, None, None, None)
    points = course.points_at(tiers, now_ms)
    above = tiers.tiers[rank + 1] if rank + 1 < len(tiers.tiers) else None
    return MemberTierView(
        member_id=standing.id,
        tier=None if rank < 0 else tiers.tiers[rank].code,
        since=None if rank < 0 or standing.tier_since is None else rfc3339(standing.tier_since),
        asset=tiers.asset,
        qualifying_points=points,
        version=tiers.version,
        next=None if above is None else NextTier(above.code, above.points, above.points - points),
        keep=None if rank < 0 else _keep(course, tiers.tiers[rank].code, now_ms, calendar),
    )


def _keep(course: TierHistory, code: str, now_ms: int, calendar: Calendar) -> Keep | None:
    """What it takes to keep a tier; None when it stays by itself."""
    for until in course.turns(now_ms):
        tiers, rank = course.rank_at(until)
        if tiers is None or 0 <= tier_rank(tiers, code) <= rank:
            continue
        # With a grace it is enough to justify the tier right before its end; without one it has to be justified at that moment.
        looked_at = until - 1 if tiers.grace_months or tiers.grace_days else until
        ruling = course.in_force(looked_at) or tiers
        begins = _start_of(course.window_start(ruling, month_of(looked_at, calendar)), calendar)
        counts_from, place = max(now_ms, begins), tier_rank(ruling, code)
        possible = counts_from < until and place >= 0 and tier_rank(tiers, code) >= 0
        missing = max(0, ruling.tiers[place].points - course.points_at(ruling, looked_at)) if possible else None
        return Keep(missing, rfc3339(counts_from), rfc3339(until))
    return None
