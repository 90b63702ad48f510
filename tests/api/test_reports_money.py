"""Roll-forward, liability, expiring value, leaderboard and books: figures worked by hand."""

from typing import Any

from guerdon.clock import rfc3339
from guerdon.wiring.services import Services
from tests.api.report_fixtures import read_csv, read_report, set_clock, sweep_all, ties, without_zeros
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.views.build import build_views

ROLL, LIABILITY, EXPIRING = "/v1/reports/roll-forward", "/v1/reports/liability", "/v1/reports/expiring"
LEADERBOARD, BOOKS = "/v1/reports/leaderboard", "/v1/books/trial-balance"
PATHS = (ROLL, LIABILITY, EXPIRING, LEADERBOARD, BOOKS)


async def post(service: Caller, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post(path, body)
    assert answer.status_code == 201, answer.text
    done: dict[str, Any] = answer.json()
    return done


async def test_reports_of_an_empty_database_are_zeros(service: Caller, services: Services) -> None:
    problem(await service.get(ROLL, asset="PTS"), 503, "views-not-built")
    roll = await read_report(service, services, ROLL, start="2026-01-01", end="2026-02-01")
    [row] = roll["rows"]
    assert without_zeros(row) == {"period": "2026-01"}
    assert without_zeros(roll["total"]) == {"period": "total"}
    assert roll["check"] == {"closing": 0, "system_accounts": 0, "wallets": None, "debt": None, "difference": 0}
    head = {"report": "roll-forward", "asset": "PTS", "scale": 0, "from": "2026-01-01", "to": "2026-02-01", "time_zone": "UTC"}
    assert {name: roll[name] for name in head} == head
    assert (roll["view_version"], roll["stale"], roll["definition"]) == (1, False, "/docs/reports#roll-forward")
    assert roll["behind_seconds"] >= 0
    liability = await read_report(service, services, LIABILITY)
    assert (liability["rows"], liability["total"]["outstanding"], liability["total"]["balance"]) == ([], 0, 0)
    expiring = await read_report(service, services, EXPIRING)
    assert (expiring["rows"], expiring["members"], expiring["next_cursor"], expiring["total"]["amount"]) == ([], [], None, 0)
    assert (await read_report(service, services, LEADERBOARD))["rows"] == []
    books = await read_report(service, services, BOOKS)
    assert (books["accounts"], books["sum"]) == ([{"account": "wallets", "balance": 0}], 0)
    assert (await read_report(service, services, "/v1/books/accounts/system:issuer"))["balance"] == 0


async def test_reports_name_what_is_wrong(service: Caller, services: Services) -> None:
    await build_views(services)
    for path in (*PATHS, "/v1/books/accounts/system:issuer"):
        problem(await service.get(path, asset="NONE"), 404, "not-found")
        assert problem(await service.get(path), 422, "validation")["errors"] == [{"pointer": "asset", "detail": "is required"}]
        refused = problem(await service.get(path, asset="PTS", wait_for="txn_"), 422, "validation")
        assert refused["errors"][0]["pointer"] == "wait_for"
    problem(await service.get("/v1/books/accounts/system:nothing", asset="PTS"), 404, "not-found")
    for path, name in ((ROLL, "from"), (ROLL, "to"), (LIABILITY, "at"), (BOOKS, "at"), (LEADERBOARD, "at")):
        for value in ("yesterday", "2026-02-30", "2026-01-01T12:00:00Z", "1900-01-01"):
            refused = problem(await service.get(path, asset="PTS", **{name: value}), 422, "validation")
            assert refused["errors"][0]["pointer"] == name, (path, value)
    problem(await service.get(LIABILITY, asset="PTS", at="2026-01-15"), 422, "validation")
    problem(await service.get(EXPIRING, asset="PTS", cursor="nothing"), 422, "validation")
    problem(await service.get(EXPIRING, asset="PTS", days=367), 422, "validation")


async def test_limits_and_cursors_of_reports(service: Caller, services: Services, factory: Factory) -> None:
    for _ in range(3):
        wallet = await factory.wallet(1)
        body = {"amount": 5, "source": "promotional", "expires_in_days": 3}
        await post(service, f"/v1/wallets/{wallet}/credit", body)
    await build_views(services)
    for path in (EXPIRING, LEADERBOARD):
        for limit in ("0", "101", "-1", "1.5", "x", "", "null"):
            refused = problem(await service.get(path, asset="PTS", limit=limit), 422, "validation")
            assert refused["errors"][0]["pointer"] == "limit"
    for cursor in ("", "!!", "YWJj", "é", "null", "A" * 201, "MQ", "MTox"):
        answer = await service.get(EXPIRING, asset="PTS", cursor=cursor)
        if cursor == "MTox":
            assert answer.status_code == 200, "the place 1:1 is one of this list"
        else:
            assert problem(answer, 422, "validation")["errors"][0]["pointer"] == "cursor"
    seen: list[str] = []
    page = await read_report(service, services, EXPIRING, limit=2)
    while page["members"]:
        assert len(page["members"]) <= 2
        seen += [each["wallet"] for each in page["members"]]
        if page["next_cursor"] is None:
            break
        page = await read_report(service, services, EXPIRING, limit=2, cursor=page["next_cursor"])
    assert (len(seen), len(set(seen))) == (3, 3)


async def test_reports_are_for_staff_and_services(service: Caller, anonymous: Caller, services: Services) -> None:
    reader = anonymous.with_token(await services.access.create_key("reader", ["reports:read"]))
    other = anonymous.with_token(await services.access.create_key("other", ["wallets:read"]))
    await build_views(services)
    for path in PATHS:
        assert (await reader.get(path, asset="PTS")).status_code == 200
        problem(await other.get(path, asset="PTS"), 403, "forbidden")
        problem(await anonymous.get(path, asset="PTS"), 401, "unauthenticated")


async def test_one_entry(service: Caller, services: Services, factory: Factory) -> None:
    await factory.wallet(500)
    roll = await read_report(service, services, ROLL)
    [row] = roll["rows"]
    assert without_zeros(row) == {"period": row["period"], "loaded": 500, "closing": 500, "closing_paid": 500}
    assert roll["check"] == {"closing": 500, "system_accounts": -500, "wallets": 500, "debt": 0, "difference": 0}
    books = await read_report(service, services, BOOKS)
    assert books["accounts"] == [{"account": "system:issuer", "balance": -500}, {"account": "wallets", "balance": 500}]
    assert books["sum"] == 0


async def move_value_of_every_kind(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> tuple[str, str]:
    """On 10 March 2031 everything that moves value happens once; on 2 April what has expired is written off. Return two wallets."""
    set_clock(clock, "2031-03-10T12:00:00+00:00")
    ada, bob = await factory.member("ada"), await factory.member("bob")
    wallet, other = f"{ada}:PTS", f"{bob}:PTS"
    await post(service, f"/v1/wallets/{wallet}/credit", {"amount": 1000})
    # 300 points that expire at the midnight that ends 20 March.
    await post(service, f"/v1/wallets/{wallet}/credit", {"amount": 300, "source": "promotional", "expires_in_days": 10})
    await factory.campaign()
    bought = factory.event(member={"id": ada}, amount=25_000, occurred_at=rfc3339(clock.now_ms()))
    await post(service, "/v1/events", bought)  # 250 points that do not expire
    # Expiring points are spent first: 300 - 100 + 40 = 240 are left of them.
    spent = await post(service, f"/v1/wallets/{wallet}/debit", {"amount": 100})
    await post(service, f"/v1/transactions/{spent['id']}/reverse", {"amount": 40})
    # 50 are set aside, 30 of them taken: 210 are left.
    held = await post(service, "/v1/holds", {"wallet": wallet, "amount": 50})
    await post(service, f"/v1/holds/{held['id']}/capture", {"amount": 30, "final": True})
    # 200 go to the other member with their date: 10 are left.
    await post(service, "/v1/transfers", {"from": wallet, "to": other, "amount": 200})
    # 100 points are exchanged for 1 penny: the last 10 that expire, and 90 of the award.
    assert (await service.put("/v1/rates/PTS-GBP", {"from_amount": 100, "to_amount": 1})).status_code == 200
    await post(service, "/v1/exchanges", {"member_id": ada, "from": "PTS", "to": "GBP", "from_amount": 100})
    # Two fifths of the purchase come back: 100 of the 250 points are taken back.
    back = factory.event(
        type="refund", refund_of=bought["id"], member={"id": ada}, amount=10_000, occurred_at=rfc3339(clock.now_ms())
    )
    await post(service, "/v1/events", back)
    # A credit is a mistake and is taken back; a correction takes 5.
    wrong = await post(service, f"/v1/wallets/{wallet}/credit", {"amount": 70})
    await post(service, f"/v1/transactions/{wrong['id']}/reverse", {})
    correction = [{"wallet": wallet, "amount": -5}, {"account": "system:issuer", "asset": "PTS", "amount": 5}]
    await post(service, "/v1/transactions", {"kind": "adjustment", "postings": correction})
    set_clock(clock, "2031-04-02T12:00:00+00:00")
    assert await sweep_all(services) == 1
    return wallet, other


async def test_roll_forward_over_every_kind(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    await move_value_of_every_kind(service, services, factory, clock)
    roll = await read_report(service, services, ROLL, start="2031-02-01", end="2031-05-01")
    february, march, april = roll["rows"]
    assert without_zeros(february) == {"period": "2031-02"}
    assert without_zeros(march) == {
        "period": "2031-03",
        "earned": 300 + 250,
        "loaded": 1000 + 70,
        "restored": 40,
        "redeemed": 100 + 30,
        "clawed_back": 100,
        "adjusted": -70 - 5,
        "transferred": -100,
        # 550 + 1070 + 40 - 130 - 100 - 75 - 100
        "closing": 1255,
        "closing_paid": 1000,
        # 200 of the other member, and 250 - 90 - 100 - 5 = 55 of the award
        "closing_promotional": 255,
    }
    assert without_zeros(april) == {
        "period": "2031-04", "opening": 1255, "expired": 200, "closing": 1055, "closing_paid": 1000, "closing_promotional": 55,
    }  # fmt: skip
    assert (roll["total"]["opening"], roll["total"]["earned"], roll["total"]["expired"], roll["total"]["closing"]) == (
        0,
        550,
        200,
        1055,
    )
    assert roll["check"] == {"closing": 1055, "system_accounts": -1055, "wallets": 1055, "debt": 0, "difference": 0}
    assert ties(roll)
    past = await read_report(service, services, ROLL, start="2031-03-01", end="2031-04-01")
    assert past["rows"] == [march]
    assert past["check"] == {"closing": 1255, "system_accounts": -1255, "wallets": None, "debt": None, "difference": 0}
    paid = await read_report(service, services, ROLL, start="2031-03-01", end="2031-04-01", source="paid")
    assert without_zeros(paid["total"]) == {
        "period": "total", "loaded": 1070, "adjusted": -70, "closing": 1000, "closing_paid": 1000,
    }  # fmt: skip
    await factory.assert_books_balance()


async def test_roll_forward_by_day_and_of_parts_of_months(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    await move_value_of_every_kind(service, services, factory, clock)
    by_day = await read_report(service, services, ROLL, start="2031-03-09", end="2031-04-04", group="day")
    moved = [row for row in by_day["rows"] if row["opening"] != row["closing"]]
    assert [row["period"] for row in moved] == ["2031-03-10", "2031-04-02"]
    assert len(by_day["rows"]) == 23 + 3
    by_month = await read_report(service, services, ROLL, start="2031-03-09", end="2031-04-04")
    assert [row["period"] for row in by_month["rows"]] == ["2031-03", "2031-04"]
    assert by_day["total"] == by_month["total"]
    assert ties(by_day)
    assert ties(by_month)
    # The range begins after all that happened in March, and ends before what happened in April.
    quiet = await read_report(service, services, ROLL, start="2031-03-11", end="2031-04-02")
    assert [(row["opening"], row["closing"]) for row in quiet["rows"]] == [(1255, 1255), (1255, 1255)]
    assert ties(quiet)


async def test_ranges_that_are_empty_long_or_in_the_future(service: Caller, services: Services, factory: Factory) -> None:
    await factory.wallet(500)
    empty = await read_report(service, services, ROLL, start="2026-01-01", end="2026-01-01")
    assert [without_zeros(row) for row in empty["rows"]] == [{"period": "2026-01"}]
    future = await read_report(service, services, ROLL, start="2990-01-01", end="2990-03-01")
    assert [(row["period"], row["opening"], row["closing"]) for row in future["rows"]] == [
        ("2990-01", 500, 500),
        ("2990-02", 500, 500),
    ]
    assert future["check"]["wallets"] == 500
    assert ties(future)
    years = await read_report(service, services, ROLL, start="2020-01-01", end="2030-01-01")
    assert len(years["rows"]) == 120
    assert ties(years)
    refused = problem(
        await service.get(ROLL, asset="PTS", **{"from": "2020-01-01", "to": "2030-01-01"}, group="day"), 422, "validation"
    )
    assert refused["errors"] == [
        {"pointer": "group", "detail": "by day a report has at most 366 days; use group=month or a shorter range"}
    ]
    swapped = problem(await service.get(ROLL, asset="PTS", **{"from": "2030-01-01", "to": "2020-01-01"}), 422, "validation")
    assert swapped["errors"] == [{"pointer": "to", "detail": "must not be before `from`, which is 2030-01-01"}]


async def test_rows_are_read_back_from_csv(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    await move_value_of_every_kind(service, services, factory, clock)
    for path in PATHS:
        found = await read_report(service, services, path)
        rows = found.get("rows", found.get("accounts"))
        table = await read_csv(service, path, asset="PTS")
        expected = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
        assert table == [{**row, "asset": "PTS", "scale": "0"} for row in expected], path
    assert await read_csv(service, EXPIRING, asset="GBP") == []


async def test_trial_balance_at_any_day(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    await move_value_of_every_kind(service, services, factory, clock)
    books = await read_report(service, services, BOOKS)
    expected = {
        "system:breakage": 200,
        "system:exchange": 100,
        # - (300 + 1000 + 70) credits - 250 award + 100 taken back + 70 reversed + 5 corrected
        "system:issuer": -1370 - 250 + 100 + 70 + 5,
        "system:merchant": 100 + 30 - 40,
        "wallets": 1055,
    }
    assert {each["account"]: each["balance"] for each in books["accounts"]} == expected
    assert books["sum"] == sum(expected.values()) == 0
    before = await read_report(service, services, BOOKS, at="2031-04-01")
    assert {each["account"]: each["balance"] for each in before["accounts"]} == {
        "system:exchange": 100, "system:issuer": -1445, "system:merchant": 90, "wallets": 1255,
    }  # fmt: skip
    assert (before["at"], before["sum"]) == ("2031-04-01T00:00:00.000Z", 0)
    assert (await read_report(service, services, BOOKS, at="2031-03-10"))["accounts"] == [{"account": "wallets", "balance": 0}]
    for name, balance in expected.items():
        account = await read_report(service, services, f"/v1/books/accounts/{name}")
        assert account["balance"] == sum(row["amount"] for row in account["rows"]) == balance, name
    issuer = await read_report(service, services, "/v1/books/accounts/system:issuer", at="2031-04-01T00:00:00Z")
    assert {row["flow"]: row["amount"] for row in issuer["rows"]} == {
        "earned": -550, "loaded": -1070, "clawed_back": 100, "adjusted": 75,
    }  # fmt: skip
    pennies = await read_report(service, services, BOOKS, asset="GBP")
    assert pennies["accounts"] == [{"account": "system:exchange", "balance": -1}, {"account": "wallets", "balance": 1}]


async def test_leaderboard(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    wallet, _ = await move_value_of_every_kind(service, services, factory, clock)
    carol = await factory.member()
    await post(service, f"/v1/wallets/{carol}:PTS/credit", {"amount": 450, "source": "promotional"})
    await post(service, f"/v1/wallets/{carol}:PTS/debit", {"amount": 20})
    ada = wallet.partition(":")[0]
    year = await read_report(service, services, LEADERBOARD, period="year")
    # Ada earned 550 and lost 100 of it: both are first. Transfers and loads are not earned.
    assert (year["period"], year["by"]) == ("2031", "earned")
    assert sorted((row["member_id"], row["rank"], row["earned"], row["spent"]) for row in year["rows"]) == sorted(
        [(ada, 1, 450, 90), (carol, 1, 450, 20)]
    )
    spent = await read_report(service, services, LEADERBOARD, period="all", by="spent")
    assert [(row["rank"], row["member_id"]) for row in spent["rows"]] == [(1, ada), (2, carol)]
    assert len((await read_report(service, services, LEADERBOARD, period="all", limit=1))["rows"]) == 1
    april = await read_report(service, services, LEADERBOARD)
    assert [(row["member_id"], row["earned"]) for row in april["rows"]] == [(carol, 450)]
    march = await read_report(service, services, LEADERBOARD, at="2031-03-31")
    assert [(row["member_id"], row["earned"]) for row in march["rows"]] == [(ada, 450)]
    assert (await read_report(service, services, LEADERBOARD, at="2030-03-31"))["rows"] == []
