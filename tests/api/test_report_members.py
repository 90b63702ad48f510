"""The report on members: by hand, and its cohorts against a plain recount of the purchases."""

import csv
import io
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guerdon.calendar import Calendar
from guerdon.projections.models import Target
from guerdon.reports.members.service import cohort_rows, month_rows
from guerdon.reports.periods import DayRange
from guerdon.views.events import FoldedEvent, FoldedVoid
from guerdon.views.fold_events import fold_event
from guerdon.views.models import MEMBER_MONTHS, MemberReadModel
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.tier_fixtures import earning, set_tiers, show
from tests.views.build import build_views


@pytest.fixture(autouse=True)
def november(clock: ManualClock) -> None:
    show(clock, "2026-11-22T10:00:00Z")


async def report(service: Caller, services: Services, **params: Any) -> dict[str, Any]:
    await build_views(services)
    answer = await service.get("/v1/reports/members", **params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def buy(service: Caller, factory: Factory, name: str, day: str, **changes: Any) -> dict[str, Any]:
    event = factory.event(member={"external_id": name}, occurred_at=f"{day}T12:00:00Z", **changes)
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_new_and_returning_members_and_cohorts(service: Caller, services: Services, factory: Factory) -> None:
    """Ada buys in September and November, Bob in September and October, Cleo first in November; the purchases arrive in any order."""
    await buy(service, factory, "ada", "2026-11-03")
    await buy(service, factory, "cleo", "2026-11-20")
    await buy(service, factory, "bob", "2026-10-05")
    await buy(service, factory, "ada", "2026-09-01")
    await buy(service, factory, "bob", "2026-09-30")
    wrong = await buy(service, factory, "dora", "2026-09-15")
    assert (await service.post(f"/v1/events/{wrong['id']}/void", {"reason": "test"}, key=None)).status_code == 200
    await buy(service, factory, "emil", "2026-11-20", type="visit", amount=0)  # No purchase.
    assert (await service.post("/v1/events/preview", factory.event(member={"external_id": "fay"}), key=None)).status_code == 200
    read = await report(service, services, **{"from": "2026-09-10", "to": "2026-12-01"})
    assert read["rows"] == [
        {"period": "2026-09", "buyers": 2, "new": 2, "returning": 0},
        {"period": "2026-10", "buyers": 1, "new": 0, "returning": 1},
        {"period": "2026-11", "buyers": 2, "new": 1, "returning": 1},
    ]
    assert read["cohorts"] == [
        {"first_month": "2026-09", "members": 2, "counts": [2, 1, 1], "shares": [1.0, 0.5, 0.5]},
        {"first_month": "2026-11", "members": 1, "counts": [1], "shares": [1.0]},
    ]
    # Dora's voided purchase is an event all the same.
    assert read["active"] == {"days_30": 3, "days_90": 5, "days_365": 5}
    assert (read["tiers"], read["tier_changes"]) == ([], [])
    present = await report(service, services)
    assert [row["period"] for row in present["rows"]] == ["2026-11"]
    await factory.assert_books_balance()


async def test_tiers_and_their_matrix(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    await set_tiers(service)
    await earning(factory)
    await buy(service, factory, "ada", "2026-11-22", amount=600)
    await buy(service, factory, "bob", "2026-11-22", amount=150)
    cleo = await buy(service, factory, "cleo", "2026-11-22", amount=150)
    clock.advance(days=10)
    await buy(service, factory, "bob", "2026-12-02", amount=400)
    refund = {"type": "refund", "refund_of": cleo["id"], "amount": 150}
    await buy(service, factory, "cleo", "2026-12-02", **refund)
    november = await report(service, services, **{"from": "2026-11-01", "to": "2026-12-01"})
    assert november["tiers"] == [{"tier": "silver", "members": 2}, {"tier": "gold", "members": 1}]
    assert november["tier_changes"] == [{"from": None, "to": "gold", "members": 1}, {"from": None, "to": "silver", "members": 2}]
    december = await report(service, services, **{"from": "2026-12-01", "to": "2027-01-01"})
    assert december["tiers"] == [{"tier": "silver", "members": 0}, {"tier": "gold", "members": 2}]
    assert december["tier_changes"] == [
        {"from": "silver", "to": None, "members": 1},
        {"from": "silver", "to": "gold", "members": 1},
    ]
    await factory.assert_books_balance()


async def test_empty_database_and_ranges(service: Caller, anonymous: Caller, services: Services, factory: Factory) -> None:
    problem(await service.get("/v1/reports/members"), 503, "views-not-built")
    zero = {"buyers": 0, "new": 0, "returning": 0}
    empty = await report(service, services)
    assert empty["rows"] == [{"period": "2026-11", **zero}]
    assert (empty["cohorts"], empty["active"]) == ([], {"days_30": 0, "days_90": 0, "days_365": 0})
    assert empty["definition"] == "/docs/reports#members"
    await buy(service, factory, "ada", "2026-11-20")
    nothing = await report(service, services, **{"from": "2026-11-20", "to": "2026-11-20"})
    assert (nothing["rows"], nothing["cohorts"]) == ([{"period": "2026-11", **zero}], [])
    future = await report(service, services, **{"from": "2030-01-01", "to": "2030-02-01"})
    assert (future["rows"], future["cohorts"]) == ([{"period": "2030-01", **zero}], [])
    ten_years = await report(service, services, **{"from": "2017-01-01", "to": "2027-01-01"})
    assert len(ten_years["rows"]) == 120
    refused = problem(await service.get("/v1/reports/members", **{"from": "2016-01-01", "to": "2027-01-01"}), 422, "validation")
    assert refused["errors"][0]["pointer"] == "from"
    other = anonymous.with_token(await services.access.create_key("other", ["members:read"]))
    problem(await other.get("/v1/reports/members"), 403, "forbidden")
    answer = await service.client.get(
        "/v1/reports/members", headers={"authorization": f"Bearer {service.token}", "accept": "text/csv"}
    )
    [row] = csv.DictReader(io.StringIO(answer.text, newline=""))
    assert row == {"period": "2026-11", "buyers": "1", "new": "1", "returning": "0", "asset": "", "scale": ""}


# --- against a recount ------------------------------------------------------------------------------------------------

UTC_CALENDAR = Calendar()
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
Purchases = dict[str, list[tuple[int, bool]]]
"""By member: (day of 2026, True if it was voided) in the order of recording; a void follows all purchases."""
purchases = st.dictionaries(
    st.sampled_from("abcdefg"), st.lists(st.tuples(st.integers(0, 364), st.booleans()), min_size=1, max_size=12), max_size=7
)


def at_of(day: int) -> int:
    return int((FIRST + timedelta(days=day)).timestamp() * 1000)


def folded_months(found: Purchases) -> list[dict[str, Any]]:
    """The rows of the views after all purchases and voids."""
    rows: defaultdict[tuple[Any, ...], int] = defaultdict(int)
    for member, bought in found.items():
        state: MemberReadModel | None = None
        documents: list[FoldedEvent | FoldedVoid] = [
            FoldedEvent(id=f"{member}{number}", owner=member, type="purchase", occurred_at=at_of(day), amount=1, currency="GBP")
            for number, (day, _) in enumerate(bought)
        ]
        documents += [void_of(member, number, day) for number, (day, voided) in enumerate(bought) if voided]
        for document in documents:
            folded = fold_event(state, document, Target(1, 0), calendar=UTC_CALENDAR)
            state = folded.state
            for aggregate, key, sums in folded.increments:
                if aggregate is MEMBER_MONTHS:
                    rows[key] += sums["members"]
    return [{"first_month": first, "month": month, "members": members} for (first, month), members in rows.items()]


def void_of(member: str, number: int, day: int) -> FoldedVoid:
    facts = {"type": "purchase", "occurred_at": at_of(day), "amount": 1, "currency": "GBP"}
    return msgspec.convert({"_id": f"{member}/{number}", "owner": member, "recorded_at": at_of(364), "voided": facts}, FoldedVoid)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(found=purchases)
def test_cohorts_are_those_of_a_plain_recount(found: Purchases) -> None:
    rows = folded_months(found)
    months = [f"2026-{number:02}" for number in range(1, 13)]
    bought = {
        member: sorted({UTC_CALENDAR.names(at_of(day))[1] for day, voided in each if not voided}) for member, each in found.items()
    }
    buyers = {member: each for member, each in bought.items() if each}
    expected: dict[str, list[int]] = {}
    for first in sorted({each[0] for each in buyers.values()}):
        cohort = [each for each in buyers.values() if each[0] == first]
        expected[first] = [sum(month in each for each in cohort) for month in months[months.index(first) :]]
    assert {each.first_month: each.counts for each in cohort_rows(rows, "2026-12")} == expected
    year = DayRange(FIRST.date(), FIRST.replace(year=2027).date(), "month")
    assert [(each.period, each.new, each.returning) for each in month_rows(rows, year)] == [
        (month, sum(each[0] == month for each in buyers.values()), sum(month in each[1:] for each in buyers.values()))
        for month in months
    ]
