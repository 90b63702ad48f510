"""Bounds of fifths, scores and groups, against ranks in plain Python."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.calendar import Calendar
from guerdon.clock import to_ms
from guerdon.segments.models import RFM_GROUPS, MemberPurchases, RfmBounds
from guerdon.segments.rules import (
    GROUPS,
    Fifths,
    Scores,
    chosen_currency,
    days_between,
    fifth_of,
    group_of,
    scores_of,
    window_start,
)


def bounds_of(values: list[int]) -> tuple[int, ...]:
    fifths = Fifths(len(values))
    for value in sorted(set(values)):
        fifths.add(value, values.count(value))
    return fifths.bounds


@given(st.lists(st.integers(-5, 40), min_size=1, max_size=60))
def test_a_score_is_one_more_than_the_fifths_of_smaller_values(values: list[int]) -> None:
    bounds = bounds_of(values)
    assert len(bounds) == 4
    assert list(bounds) == sorted(bounds)
    for value in values:
        below = sum(other < value for other in values)
        assert fifth_of(value, bounds) == 1 + 5 * below // len(values)


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        ([7], [1]),
        ([1, 2], [1, 3]),
        ([1, 2, 3], [1, 2, 4]),
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
        ([9, 9, 9, 9, 9, 9], [1] * 6),
        ([1, 1, 1, 1, 2], [1, 1, 1, 1, 5]),
        ([1, 2, 2, 2, 2], [1, 2, 2, 2, 2]),
    ],
)
def test_few_and_equal_values(values: list[int], scores: list[int]) -> None:
    bounds = bounds_of(values)
    assert [fifth_of(value, bounds) for value in values] == scores


def test_no_values_have_no_bounds() -> None:
    assert Fifths(0).bounds == ()


def test_every_combination_of_scores_is_in_one_group() -> None:
    assert [group.name for group in GROUPS] == list(RFM_GROUPS)
    found: set[str] = set()
    for recency in range(1, 6):
        for frequency in range(1, 6):
            for monetary in range(1, 6):
                value = frequency + monetary
                fitting = [
                    group.name
                    for group in GROUPS
                    if group.recency[0] <= recency <= group.recency[1] and group.value[0] <= value <= group.value[1]
                ]
                assert fitting == [group_of(Scores(recency, frequency, monetary))]
                found.update(fitting)
    assert found | {group_of(Scores(0, 0, 0))} == set(RFM_GROUPS)


def test_the_newest_buyers_have_the_highest_recency() -> None:
    bounds = RfmBounds((1, 2, 3, 4), (1, 1, 1, 1), (5, 5, 5, 5))
    scores = [scores_of(MemberPurchases(days=days, purchases=1, spent={"GBP": 5}), "GBP", bounds) for days in range(1, 6)]
    assert scores == [Scores(recency, 1, 1) for recency in (5, 4, 3, 2, 1)]
    assert scores_of(MemberPurchases(), "GBP", bounds) == Scores(0, 0, 0)
    assert scores_of(MemberPurchases(days=366, purchases=9, spent={"GBP": 99}), "GBP", bounds) == Scores(1, 1, 1)
    # Everything was refunded: the member has bought, and counts as the least.
    assert scores_of(MemberPurchases(days=1), "GBP", bounds) == Scores(5, 1, 1)


def test_days_are_those_of_the_calendar() -> None:
    zone = ZoneInfo("Europe/London")
    calendar = Calendar(zone.key)

    def at(*parts: int) -> int:
        return to_ms(datetime(*parts, tzinfo=zone).astimezone(UTC))  # type: ignore[arg-type]

    midnight = at(2027, 3, 29)
    assert [days_between(moment, midnight, calendar) for moment in (midnight - 1, at(2027, 3, 28), at(2027, 3, 27, 23, 59))] == [
        1,
        1,
        2,
    ]
    # The day of the change of the clocks has 23 hours, the year has 365 days all the same.
    assert at(2027, 3, 29) - at(2027, 3, 28) == 23 * 3_600_000
    assert window_start(midnight, calendar) == at(2026, 3, 29)
    assert days_between(window_start(midnight, calendar), midnight, calendar) == 365
    assert days_between(midnight + 5, midnight, calendar) == 0


def test_the_currency_of_most_purchases_is_chosen() -> None:
    assert chosen_currency({}, None) is None
    assert chosen_currency({"EUR": 2, "GBP": 3}, None) == "GBP"
    assert chosen_currency({"GBP": 2, "EUR": 2}, None) == "EUR"
    assert chosen_currency({"GBP": 2}, "USD") == "USD"
