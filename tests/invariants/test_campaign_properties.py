"""Any campaigns on any history: caps and budgets hold, what is said is what is booked, and the order of arrival makes no difference to sums.

`tests/trust/test_campaigns.py` runs the same on many more histories.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import ShopEvent
from guerdon.campaigns.models import Award, Campaign, Cap
from tests.invariants.campaign_histories import (
    DELIVERED,
    HOUR_MS,
    MEMBERS,
    Shop,
    Step,
    anything,
    awards,
    budgets,
    campaign,
    caps_of,
    events_of,
    steps_of,
    told,
)
from tests.invariants.late_refunds import LATE_REFUNDS

Property = Callable[..., None]
orders = st.integers(0, 2**32).map(random.Random)


def run(prop: Property, examples: int, *, chosen: int | None = None) -> None:
    """Try a property on so many histories: those of a seed, or always the same."""
    many = settings(
        max_examples=examples,
        derandomize=chosen is None,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    # A function can be tried in one way only: every run has one of its own.
    tried = many(given(**PROPERTIES[prop])(prop))
    (tried if chosen is None else seed(chosen)(tried))()


def laws_hold_whatever_happens(campaigns: list[Campaign], steps: list[Step]) -> None:
    """And a preview says what then happens when nothing else moves."""
    shop = Shop(campaigns)
    batch: list[ShopEvent] = []
    for event, step in zip(events_of(steps), steps, strict=True):
        if any(other.id == event.about for other in batch):
            # The service looks for the purchase first, so that the two are never in one batch.
            shop.record(batch)
            batch = []
        batch.append(event)
        if step.with_next:
            continue
        shop.now_ms += step.waits * HOUR_MS
        alone = told(shop.preview(event)) if len(batch) == 1 else None
        recorded = shop.record(batch)
        assert alone is None or alone == told(recorded[0])
        batch = []
    shop.record(batch)
    shop.assert_laws()
    shop.assert_decided_again()


def limited_sums_do_not_depend_on_the_order(
    award: Award, caps: list[Cap], budget: int | None, steps: list[Step], order: random.Random
) -> None:
    rule = campaign(0, award=award, caps=caps, budget=budget)
    events = events_of(steps)
    for shop in arrived([rule], events, order):
        wanted = wanted_of(rule, events, shop.calendar)
        shop.assert_laws()
        shop.assert_decided_again()
        paid = paid_by(shop)
        assert sum(paid.values()) == (sum(wanted.values()) if budget is None else min(budget, sum(wanted.values())))
        assert budget is not None or paid == wanted


def refunds_leave_the_same_in_every_order(award: Award, steps: list[Step], order: random.Random) -> None:
    """Before their purchase, after it, in parts and more than there was."""
    rule, events = campaign(0, award=award, event_types=["purchase"]), events_of(steps)
    alone = Shop([rule])
    refunded: Counter[str] = Counter()
    for event in events:
        refunded[event.refund_of or ""] += event.amount if event.refund_of else 0
    kept: defaultdict[str, int] = defaultdict(int)
    for event in events:
        if event.type == "purchase":
            [recorded] = alone.record([event])
            for each in recorded.awards:
                kept[recorded.owner] += each.amount * max(0, event.amount - refunded[event.id]) // event.amount
    for shop in arrived([rule], events, order):
        shop.assert_laws()
        shop.assert_decided_again()
        assert {owner: amount for owner, amount in paid_by(shop).items() if amount} == {o: a for o, a in kept.items() if a}


def arrived(campaigns: Sequence[Campaign], events: Sequence[ShopEvent], order: random.Random) -> list[Shop]:
    """A shop whose events come one by one as they happened, and two where half of them come twice, late and in batches."""
    shops = [Shop(campaigns) for _ in range(3)]
    for event in events:
        shops[0].record([event])
    for shop in shops[1:]:
        arriving = [*events, *order.sample(events, len(events) // 2)]
        order.shuffle(arriving)
        while arriving:
            size = order.randint(1, 4) if all(event.refund_of is None for event in arriving[:4]) else 1
            batch, arriving = arriving[:size], arriving[size:]
            shop.record(batch)
    return shops


def paid_by(shop: Shop) -> dict[str, int]:
    """What each member was paid, less what was taken back."""
    paid = dict.fromkeys(MEMBERS, 0)
    for event in shop.recorded:
        paid[event.owner] += sum(award.amount for award in event.awards)
    return paid


def wanted_of(rule: Campaign, events: Sequence[ShopEvent], calendar: Calendar) -> dict[str, int]:
    """What each member would get if the budget had no end: of each day at most its cap, of that in each month, of that for ever."""
    most = {
        period: min((cap.limit for cap in rule.caps if cap.period == period), default=10**18)
        for period in (None, "day", "month", "ever")
    }
    alone = Shop([campaign(0, award=rule.award)])
    days: Counter[tuple[str, str]] = Counter()
    for event in events:
        [recorded] = alone.record([event])
        days[recorded.owner, calendar.names(event.occurred_at)[0]] += min(most[None], sum(each.amount for each in recorded.awards))
    months: Counter[tuple[str, str]] = Counter()
    for (owner, day), amount in days.items():
        months[owner, day[:7]] += min(most["day"], amount)
    ever = dict.fromkeys(MEMBERS, 0)
    for (owner, _), amount in months.items():
        ever[owner] += min(most["month"], amount)
    return {owner: min(most["ever"], amount) for owner, amount in ever.items()}


PROPERTIES: dict[Property, dict[str, st.SearchStrategy[Any]]] = {
    laws_hold_whatever_happens: {"campaigns": anything(), "steps": steps_of("purchase", "purchase", "linked", DELIVERED, "refund", "visit")},
    limited_sums_do_not_depend_on_the_order: {
        "award": awards, "caps": caps_of("day", "month", "ever"), "budget": budgets, "steps": steps_of("purchase", "visit"), "order": orders,
    },
    refunds_leave_the_same_in_every_order: {"award": awards, "steps": steps_of("purchase", "linked"), "order": orders},
    **LATE_REFUNDS,
}  # fmt: skip


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_campaign_property_holds_for_any_history(prop: Property) -> None:
    run(prop, 40)
