"""Reports on campaigns, with figures worked out by hand."""

import csv
import io
from typing import Any

import pytest

from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.tier_fixtures import show
from tests.views.build import build_views

NOTHING = {
    "evaluated": 0, "matched": 0, "awarded": 0, "capped": 0, "refused": 0, "not_matched": 0, "points_awarded": 0, "points_clawed_back": 0,
    "points": 0, "redeemed": 0, "expired": 0, "revenue": {}, "cost_currency": None, "cost_at_issue": None, "cost_used": None, "cost_share": None,
}  # fmt: skip
RANGE = {"from": "2026-11-01", "to": "2026-12-01"}


@pytest.fixture(autouse=True)
def november(clock: ManualClock) -> None:
    show(clock, "2026-11-22T10:00:00Z")


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def report(service: Caller, services: Services, path: str = "", **params: Any) -> dict[str, Any]:
    await build_views(services)
    answer = await service.get(f"/v1/reports/campaigns{path}", **params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def row_of(service: Caller, services: Services, campaign: str, **params: Any) -> dict[str, Any]:
    rows = (await report(service, services, **{**RANGE, **params}))["rows"]
    [row] = [row for row in rows if row["campaign"] == campaign]
    return dict(row)


def figures(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in NOTHING}


async def test_decisions_points_and_revenue(service: Caller, services: Services, factory: Factory) -> None:
    campaign = await factory.campaign(
        name="1 for 1", award={"type": "per_amount", "points": 1, "per": 1}, budget=1000, condition="event.amount > 50"
    )
    ada = await factory.member()
    day = {"member": {"id": ada}, "occurred_at": "2026-11-20T12:00:00Z"}
    await record(service, factory.event(id="a", amount=600, **day))
    await record(service, factory.event(id="b", amount=50, **day))  # It does not match.
    await record(service, factory.event(id="c", amount=500, currency="EUR", occurred_at="2026-11-21T12:00:00Z"))  # 400 are left.
    await record(service, factory.event(id="d", amount=70, **day))  # Nothing is left.
    await record(service, factory.event(id="e", type="refund", refund_of="a", amount=200, **day))
    assert (await service.post("/v1/events/preview", factory.event(), key=None)).status_code == 200
    assert (await service.post(f"/v1/wallets/{ada}:PTS/debit", {"amount": 150})).status_code == 201
    row = await row_of(service, services, campaign)
    assert figures(row) == {
        **NOTHING, "evaluated": 4, "matched": 3, "awarded": 2, "capped": 1, "not_matched": 1, "points_awarded": 1000, "points_clawed_back": 200,
        "points": 800, "redeemed": 150, "revenue": {"EUR": 500, "GBP": 400},
    }  # fmt: skip
    state = {name: row[name] for name in row if name not in NOTHING}
    assert state == {
        "campaign": campaign, "name": "1 for 1", "status": "active", "version": 1, "asset": "PTS", "scale": 0, "members": 2,
        "budget": 1000, "budget_used": 800, "budget_left": 200, "time_share": None, "runs_out_on": "2026-11-24",
    }  # fmt: skip
    await factory.assert_books_balance()


async def test_empty_database_and_empty_range(service: Caller, services: Services, factory: Factory) -> None:
    empty = await report(service, services)
    assert (empty["report"], empty["rows"], empty["complete"], empty["from"], empty["to"]) == (
        "campaigns",
        [],
        True,
        "2026-11-01",
        "2026-11-23",
    )
    assert empty["definition"] == "/docs/reports#campaigns"
    campaign = await factory.campaign()
    draft = await factory.campaign(active=False)
    await record(service, factory.event(occurred_at="2026-11-20T12:00:00Z"))
    for between in ({"from": "2026-11-05", "to": "2026-11-05"}, {"from": "2030-01-01", "to": "2031-01-01"}):
        read = await report(service, services, **between)
        assert [figures(row) for row in read["rows"]] == [NOTHING]
        one = await report(service, services, f"/{campaign}", **between)
        assert figures(one["total"]) == NOTHING
        assert all(figures(row) == NOTHING for row in one["rows"])
        assert one["versions"] == []
    ten_years = await report(service, services, f"/{campaign}", **{"from": "2017-01-01", "to": "2027-01-01"})
    assert len(ten_years["rows"]) == 120
    assert [row["period"] for row in ten_years["rows"] if row["awarded"]] == ["2026-11"]
    assert [row["campaign"] for row in (await report(service, services, status="draft"))["rows"]] == [draft]


async def test_periods_and_versions(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    """Each decision counts on the day of its event and for its version, in whatever order they arrive."""
    campaign = await factory.campaign(award={"type": "fixed", "amount": 10}, event_types=["purchase"])
    member = {"member": {"external_id": "ada"}}
    await record(service, factory.event(id="late", occurred_at="2026-11-22T09:00:00Z", amount=1000, **member))
    body = {"name": "twenty", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 20}}
    assert (await service.put(f"/v1/campaigns/{campaign}", body)).status_code == 200
    await record(service, factory.event(id="early", occurred_at="2026-10-31T23:00:00Z", amount=500, **member))
    wallet = (await record(service, factory.event(id="mid", occurred_at="2026-11-22T08:00:00Z", amount=100, **member)))["member_id"]
    assert (await service.post(f"/v1/wallets/{wallet}:PTS/debit", {"amount": 25})).status_code == 201
    one = await report(service, services, f"/{campaign}", **{"from": "2026-10-01", "to": "2026-12-01"})
    assert (one["name"], one["version"], one["members"], one["budget"], one["asset"], one["scale"]) == (
        "twenty",
        2,
        1,
        None,
        "PTS",
        0,
    )
    october = {**NOTHING, "evaluated": 1, "matched": 1, "awarded": 1, "points_awarded": 20, "points": 20, "revenue": {"GBP": 500}}
    november = {
        **NOTHING,
        "evaluated": 2,
        "matched": 2,
        "awarded": 2,
        "points_awarded": 30,
        "points": 30,
        "redeemed": 25,
        "revenue": {"GBP": 1100},
    }
    assert one["rows"] == [{**october, "period": "2026-10"}, {**november, "period": "2026-11"}]
    assert one["total"] == {
        **NOTHING,
        "evaluated": 3,
        "matched": 3,
        "awarded": 3,
        "points_awarded": 50,
        "points": 50,
        "redeemed": 25,
        "revenue": {"GBP": 1600},
    }
    first, second = one["versions"]
    # First in, first out: all 10 points of the first version were spent, and 15 of the second.
    assert (first["version"], first["points"], first["redeemed"], first["revenue"]) == (1, 10, 10, {"GBP": 1000})
    assert (second["version"], second["points"], second["redeemed"], second["revenue"]) == (2, 40, 15, {"GBP": 600})
    by_day = await report(service, services, f"/{campaign}", **{"from": "2026-11-21", "to": "2026-11-24", "group": "day"})
    assert [(row["period"], row["points"], row["redeemed"], row["expired"]) for row in by_day["rows"]] == [
        ("2026-11-21", 0, None, None), ("2026-11-22", 30, None, None), ("2026-11-23", 0, None, None),
    ]  # fmt: skip
    await factory.assert_books_balance()


async def test_void_and_late_refund_take_back_on_their_own_day(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    campaign = await factory.campaign(award={"type": "per_amount", "points": 1, "per": 1})
    member = {"member": {"external_id": "ada"}}
    await record(service, factory.event(id="a", occurred_at="2026-11-02T10:00:00Z", amount=300, **member))
    await record(service, factory.event(id="b", occurred_at="2026-11-02T10:00:00Z", amount=100, **member))
    await record(
        service, factory.event(id="back", type="refund", refund_of="a", occurred_at="2026-11-05T10:00:00Z", amount=120, **member)
    )
    assert (await service.post("/v1/events/b/void", {"reason": "test"}, key=None)).status_code == 200
    one = await report(service, services, f"/{campaign}", **{"from": "2026-11-01", "to": "2026-11-23", "group": "day"})
    changed = {
        row["period"]: (row["awarded"], row["points_awarded"], row["points_clawed_back"], row["revenue"])
        for row in one["rows"]
        if row["points"]
    }
    assert changed == {
        "2026-11-02": (2, 400, 0, {"GBP": 400}), "2026-11-05": (0, 0, 120, {"GBP": -120}), "2026-11-22": (0, 0, 100, {"GBP": -100}),
    }  # fmt: skip
    assert (one["total"]["points"], one["total"]["revenue"]) == (180, {"GBP": 180})
    assert await factory.balance(f"{(await service.get('/v1/members', external_id='ada')).json()['items'][0]['id']}:PTS") == 180
    await factory.assert_books_balance()


async def test_money_costs_itself(service: Caller, services: Services, factory: Factory) -> None:
    campaign = await factory.campaign(asset="GBP", award={"type": "percent", "percent": "5"})
    event = await record(service, factory.event(amount=20000, occurred_at="2026-11-20T12:00:00Z"))
    assert (await service.post(f"/v1/wallets/{event['member_id']}:GBP/debit", {"amount": 400})).status_code == 201
    row = await row_of(service, services, campaign)
    assert {name: row[name] for name in ("points", "cost_currency", "cost_at_issue", "cost_used", "cost_share", "scale")} == {
        "points": 1000, "cost_currency": "GBP", "cost_at_issue": 1000, "cost_used": 400, "cost_share": 0.05, "scale": 2,
    }  # fmt: skip
    await factory.assert_books_balance()


async def test_points_cost_what_the_settings_say(service: Caller, services: Services, factory: Factory) -> None:
    settings = {"currency": "GBP", "value_per_point": "1", "cost_per_point": "0.65"}
    campaign = await factory.campaign(award={"type": "fixed", "amount": 333})
    event = await record(service, factory.event(amount=20000, occurred_at="2026-11-20T12:00:00Z"))
    assert (await service.post(f"/v1/wallets/{event['member_id']}:PTS/debit", {"amount": 10})).status_code == 201
    assert (await row_of(service, services, campaign))["cost_at_issue"] is None
    assert (await service.put("/v1/report-settings/PTS", settings)).status_code == 200
    row = await row_of(service, services, campaign)
    # 333 x 0.65 = 216.45, and 10 x 0.65 = 6.5, rounded half up.
    assert {name: row[name] for name in ("cost_currency", "cost_at_issue", "cost_used", "cost_share")} == {
        "cost_currency": "GBP", "cost_at_issue": 216, "cost_used": 7, "cost_share": 0.0108,
    }  # fmt: skip
    one = await report(service, services, f"/{campaign}")
    assert (one["total"]["cost_at_issue"], one["versions"][0]["cost_used"]) == (216, 7)
    await factory.assert_books_balance()


async def test_budget_burns_down(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    """The pace is that of the last seven days, today included."""
    span = {"starts_at": "2026-11-12T10:00:00Z", "ends_at": "2026-12-02T10:00:00Z"}
    campaign = await factory.campaign(award={"type": "fixed", "amount": 70}, budget=700, **span)
    now = ("2026-11-15T10:00:00Z", "2026-11-16T10:00:00Z", "2026-11-22T10:00:00Z")
    for moment in now:
        show(clock, moment)
        await record(service, factory.event(occurred_at=moment))
    one = await report(service, services, f"/{campaign}")
    # 140 in seven days are 20 a day; 490 are left for 24.5 days, so they end on the 25th day after today.
    assert one["budget"] == {
        "limit": 700, "used": 210, "left": 490, "used_share": 0.3, "time_share": 0.5, "pace_per_day": 20.0, "runs_out_on": "2026-12-17",
    }  # fmt: skip
    for _ in range(7):
        await record(service, factory.event(occurred_at=now[-1]))
    spent = (await report(service, services, f"/{campaign}"))["budget"]
    assert (spent["left"], spent["runs_out_on"]) == (0, "2026-11-22")
    show(clock, "2026-12-24T10:00:00Z")
    rested = (await report(service, services, f"/{campaign}"))["budget"]
    assert (rested["pace_per_day"], rested["time_share"], rested["runs_out_on"]) == (0.0, 1.0, "2026-12-24")
    await factory.assert_books_balance()


async def test_expired_points_are_no_cost(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    campaign = await factory.campaign(award={"type": "fixed", "amount": 10}, expiry={"type": "after_days", "days": 1})
    event = await record(service, factory.event(occurred_at="2026-11-22T10:00:00Z"))
    clock.advance(days=10)
    assert (await service.post(f"/v1/wallets/{event['member_id']}:PTS/credit", {"amount": 1})).status_code == 201
    row = await row_of(service, services, campaign, to="2027-01-01")
    assert (row["points"], row["redeemed"], row["expired"]) == (10, 0, 10)
    assert (await row_of(service, services, campaign))["expired"] == 0, "they expired in December"
    await factory.assert_books_balance()


async def test_rows_as_csv(service: Caller, services: Services, factory: Factory) -> None:
    campaign = await factory.campaign(name="=1+1")
    await record(service, factory.event(occurred_at="2026-11-20T12:00:00Z"))
    await build_views(services)
    for path in ("/v1/reports/campaigns", f"/v1/reports/campaigns/{campaign}"):
        answer = await service.client.get(path, headers={"authorization": f"Bearer {service.token}", "accept": "text/csv"})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        [row] = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert (row["awarded"], row["points"], row["revenue"], row["scale"], row["asset"]) == (
            "1",
            "139",
            '{"GBP":13912}',
            "0",
            "PTS",
        )
        assert row.get("name", "'=1+1") == "'=1+1"


@pytest.mark.parametrize(
    ("path", "params", "pointer"),
    [
        ("", {"from": "2026-02-30"}, "from"),
        ("", {"status": "running"}, "status"),
        ("", {"group": "day"}, "group"),
        ("", {"wait_for": "x"}, "wait_for"),
        ("/cmp_x", {"group": "week"}, "group"),
        ("/cmp_x", {"from": "2026-11-02", "to": "2026-11-01"}, "to"),
    ],
)
async def test_invalid_parameters_are_named(
    service: Caller, services: Services, path: str, params: dict[str, Any], pointer: str
) -> None:
    await build_views(services)
    refused = problem(await service.get(f"/v1/reports/campaigns{path}", **params), 422, "validation")
    assert refused["errors"][0]["pointer"] == pointer


async def test_missing_campaign_views_and_scope(service: Caller, anonymous: Caller, services: Services, factory: Factory) -> None:
    campaign = await factory.campaign()
    for path in ("", f"/{campaign}"):
        problem(await service.get(f"/v1/reports/campaigns{path}"), 503, "views-not-built")
    await build_views(services)
    problem(await service.get("/v1/reports/campaigns/cmp_none"), 404, "not-found")
    other = anonymous.with_token(await services.access.create_key("other", ["campaigns:read"]))
    problem(await other.get("/v1/reports/campaigns"), 403, "forbidden")
    reader = anonymous.with_token(await services.access.create_key("reader", ["reports:read"]))
    assert (await reader.get(f"/v1/reports/campaigns/{campaign}")).status_code == 200
