"""The course of a tier: the edges of its windows, and any history against a plain model."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import MemberState
from guerdon.clock import to_datetime, to_ms
from guerdon.tiers.models import CalendarYear, MemberTierView, RollingWindow, Tier, TierChange, TierSet, TierSets, Window
from guerdon.tiers.rules import (
    MONTHS_KEPT,
    QualifyingGain,
    TierHistory,
    TierProgress,
    add_gains,
    advance,
    review,
    tier_at,
    tier_rank,
    view_tier,
)

BERLIN, AUCKLAND, LOS_ANGELES = (Calendar(zone) for zone in ("Europe/Berlin", "Pacific/Auckland", "America/Los_Angeles"))
SANTIAGO = Calendar("America/Santiago")
"""Its clocks change at midnight: there are days that begin at one o'clock."""


def ms(moment: str) -> int:
    return to_ms(datetime.fromisoformat(moment).astimezone(UTC))


def ladder(
    window: Window, grace_months: int = 0, grace_days: int = 0, *, version: int = 1, effective_at: int | None = None, points: Sequence[int] = (100, 500)
) -> TierSet:  # fmt: skip
    tiers = tuple(Tier(code, code.title(), least) for code, least in zip(("silver", "gold"), points, strict=True))
    return TierSet(
        version=version, asset="PTS", window=window, tiers=tiers, grace_months=grace_months, grace_days=grace_days,
        effective_at=effective_at, created_at=0, created_by="tests",
    )  # fmt: skip


EDGES: list[tuple[Calendar, TierSet, str, str]] = [
    # (zone, tiers, earned at, the last millisecond before it is lost)
    (BERLIN, ladder(RollingWindow(12)), "2027-02-01T00:00:00+01:00", "2028-02-29T23:59:59.999+01:00"),
    (BERLIN, ladder(RollingWindow(12)), "2028-02-29T23:59:59.999+01:00", "2029-02-28T23:59:59.999+01:00"),
    (BERLIN, ladder(RollingWindow(36)), "2028-02-29T12:00:00+01:00", "2031-02-28T23:59:59.999+01:00"),
    # The clocks change in the month in which it ends, and on the very day.
    (BERLIN, ladder(RollingWindow(1)), "2027-02-28T12:00:00+01:00", "2027-03-31T23:59:59.999+02:00"),
    (BERLIN, ladder(RollingWindow(1)), "2027-09-30T12:00:00+02:00", "2027-10-31T23:59:59.999+01:00"),
    (SANTIAGO, ladder(RollingWindow(1), grace_days=5), "2026-07-31T12:00:00-04:00", "2026-09-05T23:59:59.999-04:00"),
    (AUCKLAND, ladder(CalendarYear()), "2027-12-31T23:59:59.999+13:00", "2027-12-31T23:59:59.999+13:00"),
    (AUCKLAND, ladder(CalendarYear()), "2028-01-01T00:00:00+13:00", "2028-12-31T23:59:59.999+13:00"),
    (LOS_ANGELES, ladder(CalendarYear(), 12), "2027-06-01T00:00:00-07:00", "2028-12-31T23:59:59.999-08:00"),
    # A month and days after the end of January of a leap year.
    (BERLIN, ladder(CalendarYear(), 1, 29), "2027-06-01T00:00:00+02:00", "2028-02-29T23:59:59.999+01:00"),
    (BERLIN, ladder(CalendarYear(), 1, 29), "2026-06-01T00:00:00+02:00", "2027-03-01T23:59:59.999+01:00"),
]


@pytest.mark.parametrize(("calendar", "tiers", "earned", "last"), EDGES)
def test_tier_is_lost_at_its_exact_millisecond(calendar: Calendar, tiers: TierSet, earned: str, last: str) -> None:
    qualifying = add_gains({}, [QualifyingGain("PTS", 100, ms(earned), ms(earned))], ms(earned), calendar)
    assert [tier_at([tiers], qualifying, ms(last) + more, calendar) for more in (0, 1)] == ["silver", None]
    course = TierHistory([tiers], qualifying, calendar)
    assert course.next_change(ms(earned)) == ms(last) + 1
    assert course.next_change(ms(last) + 1) is None


def test_a_grace_after_the_end_of_a_day_counts_whole_days() -> None:
    """The rules change on the 31st of January, in the middle of the day."""
    changed = ms("2028-01-31T12:00:00+01:00")
    for months, days, last in (
        (0, 0, "2028-01-31T12:00:00+01:00"),
        (1, 0, "2028-03-01T00:00:00+01:00"),
        (0, 1, "2028-02-02T00:00:00+01:00"),
    ):
        new = ladder(RollingWindow(12), months, days, version=2, effective_at=changed, points=(1000, 5000))
        course = TierHistory([ladder(RollingWindow(12)), new], {"PTS": {"2027-12": 100}}, BERLIN)
        assert [course.tier_at(ms(last) + more) for more in (-1, 0)] == ["silver", None]
        assert course.next_change(changed - 1) == ms(last)


def test_old_months_are_dropped_in_any_order_of_arrival() -> None:
    now = ms("2027-06-15T00:00:00+00:00")
    ages = [0, 59, 60, 61, 1000, -1, -2]
    month = 2027 * 12 + 5
    gains = [
        QualifyingGain("PTS", 1, ms(f"{(month - age) // 12}-{(month - age) % 12 + 1:02}-03T00:00:00+00:00"), now) for age in ages
    ]
    kept = {}
    for order in (gains, gains[::-1]):
        kept = {}
        for gain in order:
            kept = add_gains(kept, [gain], now, Calendar())
        assert sorted(kept["PTS"]) == ["2022-07", "2027-06", "2027-07"], "two months ahead, and 60 months ago, do not count"
    assert MONTHS_KEPT == 60


def test_qualifying_sums_fit_the_database() -> None:
    now = ms("2027-06-15T00:00:00+00:00")
    qualifying = {"PTS": {f"{year}-{month:02}": 10**17 - 1 for year in range(2022, 2028) for month in range(1, 13)}}
    qualifying = add_gains(qualifying, [QualifyingGain("PTS", 10**15, now, now)], now, Calendar())
    assert 0 < sum(qualifying["PTS"].values()) < 2**63


# --- any history ----------------------------------------------------------------------------------------------------------


class Rules(NamedTuple):
    """A version of the tiers, from a day on."""

    day: date
    tiers: TierSet


class Model:
    """Sums by month, and every day of the grace looked at again."""

    def __init__(self) -> None:
        self.months: dict[tuple[int, int], int] = {}
        self.rules: list[Rules] = []

    def level(self, day: date, ranked: Sequence[Tier]) -> int:
        tiers = [rules.tiers for rules in self.rules if rules.day <= day][-1]
        number = day.year * 12 + day.month
        first = number - tiers.window.months if isinstance(tiers.window, RollingWindow) else day.year * 12 + 1
        points = max(0, sum(amount for (year, month), amount in self.months.items() if first <= year * 12 + month <= number))
        codes = [tier.code for tier in tiers.tiers if tier.points <= points]
        return max((place for place, tier in enumerate(ranked) if codes and tier.code == codes[-1]), default=-1)

    def tier(self, today: date) -> str | None:
        rules = [each.tiers for each in self.rules if each.day <= today][-1]
        day, best = today, -1
        seen: dict[tuple[int, int, int], int] = {}
        while day >= self.rules[0].day and later(day + timedelta(days=1), rules.grace_months, rules.grace_days) > today:
            place = (day.year, day.month, sum(each.day <= day for each in self.rules))
            if place not in seen:
                seen[place] = self.level(day, rules.tiers)
            best = max(best, seen[place])
            day -= timedelta(days=1)
        return None if best < 0 else rules.tiers[best].code


def later(day: date, months: int, days: int) -> date:
    number = day.year * 12 + day.month - 1 + months
    for last in (day.day, 30, 29, 28):
        try:
            return date(number // 12, number % 12 + 1, min(last, day.day)) + timedelta(days=days)
        except ValueError:
            continue
    raise AssertionError


class Books:
    """A member's standing as the ledger would move it."""

    def __init__(self, calendar: Calendar) -> None:
        self.calendar = calendar
        self.standing = MemberState(id="mem", owner="mem")
        self.changes: list[TierChange] = []

    def keep(self, progress: TierProgress) -> None:
        if progress.member_state != self.standing:
            self.standing = msgspec.structs.replace(progress.member_state, count=self.standing.count + 1)
        self.changes += progress.changes

    def history(self) -> list[Any]:
        return [msgspec.structs.replace(change, recorded_at=0) for change in self.changes]


def assert_can_be_kept(view: MemberTierView, books: Books, sets: TierSets, now_ms: int) -> None:
    """The tier lasts until it is said to be lost, and what is said to be missing keeps it."""
    if view.keep is None or view.tier is None:
        return
    counts_from, until = ms(view.keep.counts_from), ms(view.keep.until)
    course = TierHistory(sets.versions, books.standing.qualifying, books.calendar)
    tiers, rank = course.rank_at(until)
    assert tiers is not None
    assert not 0 <= tier_rank(tiers, view.tier) <= rank
    assert tier_at(sets.versions, books.standing.qualifying, until - 1, books.calendar) is not None
    if view.keep.missing is not None:
        gains = [QualifyingGain("PTS", view.keep.missing, at, at) for at in (until - 1,) if at >= counts_from]
        more = add_gains(books.standing.qualifying, gains, until - 1, books.calendar)
        _, kept = TierHistory(sets.versions, more, books.calendar).rank_at(until)
        assert kept >= tier_rank(tiers, view.tier) >= 0


windows = st.one_of(st.integers(1, 14).map(RollingWindow), st.just(CalendarYear()))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("earn"), st.integers(1, 400), st.sampled_from([0, 0, 1, 20, 70, 400])),
        st.tuples(st.just("refund"), st.integers(0, 30), st.integers(1, 100)),
        st.tuples(st.just("pass"), st.sampled_from([1, 5, 27, 31, 90, 400]), st.just(0)),
        st.tuples(st.just("rules"), st.tuples(windows, st.sampled_from([0, 0, 1, 6, 12]), st.sampled_from([0, 0, 3, 40, 92])), st.integers(1, 300)),
    ),
    max_size=15,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    first=windows, grace=st.tuples(st.integers(0, 12), st.integers(0, 92)), steps=steps, zone=st.sampled_from([BERLIN, AUCKLAND])
)
def test_any_history_ends_in_the_tier_of_the_plain_model(
    first: Window, grace: tuple[int, int], steps: list[tuple[str, Any, int]], zone: Calendar
) -> None:
    today = date(2027, 11, 20)
    model = Model()
    model.rules.append(Rules(date(2020, 1, 1), ladder(first, *grace)))
    sets = TierSets(count=1, versions=(model.rules[0].tiers,))
    eager, lazy = Books(zone), Books(zone)
    purchases: list[tuple[int, date, int]] = []

    def now() -> int:
        return to_ms(datetime(today.year, today.month, today.day, tzinfo=zone.zone).astimezone(UTC))

    def event(amount: int, day: date) -> None:
        occurred = to_ms(datetime(day.year, day.month, day.day, 12, tzinfo=zone.zone).astimezone(UTC))
        model.months[day.year, day.month] = model.months.get((day.year, day.month), 0) + amount
        for books in (eager, lazy):
            books.keep(
                advance(
                    sets, books.standing, [QualifyingGain("PTS", amount, occurred, now())], "event", now_ms=now(), calendar=zone
                )
            )

    for kind, what, more in steps:
        if kind == "earn":
            day = today - timedelta(days=more)
            purchases.append((what, day, what))
            event(what, day)
        elif kind == "refund" and what < len(purchases) and purchases[what][2]:
            amount, day, left = purchases[what]
            part = min(left, more)
            purchases[what] = (amount, day, left - part)
            event(-part, day)
        elif kind == "rules":
            # On a new day, before anybody looks: of a moment at which tiers are lost and saved nobody shall see the half.
            today += timedelta(days=1)
            window, months, days = what
            tiers = ladder(window, months, days, version=sets.count + 1, effective_at=now(), points=(more, more + 200))
            model.rules.append(Rules(today, tiers))
            sets = TierSets(count=tiers.version, versions=(*sets.versions, tiers))
        for _ in range(what if kind == "pass" else 0):
            today += timedelta(days=1)
            eager.keep(review(sets, eager.standing, now(), zone))
        expected = model.tier(today)
        assert view_tier(sets, lazy.standing, now(), zone).tier == expected
        view = view_tier(sets, eager.standing, now(), zone)
        assert view.tier == expected
        assert_can_be_kept(view, eager, sets, now())
    for books in (eager, lazy):
        books.keep(review(sets, books.standing, now(), zone))
    assert eager.history() == lazy.history(), "whoever looks, and when, makes no difference"
    assert eager.standing.tier == (expected if (expected := model.tier(today)) and eager.standing.count else eager.standing.tier)
    assert [each.before for each in eager.changes] == [None, *(each.after for each in eager.changes)][: len(eager.changes)]
    assert [each.id for each in eager.changes] == [f"mem#{number:06d}" for number in range(1, len(eager.changes) + 1)]
    for change in eager.changes:
        assert to_datetime(change.at).astimezone(zone.zone).hour == 0, "days begin at midnight here"
