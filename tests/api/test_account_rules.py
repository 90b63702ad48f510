"""What an operator may do to a wallet: freeze, close, credit limit, ceiling, spending limits; each decided in the commit that spends."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from guerdon.calendar import Calendar
from guerdon.clock import to_ms
from guerdon.config import Settings
from guerdon.wiring.services import Services, open_services
from tests.api.test_holds import make_hold
from tests.api.test_reversals import debit, reverse
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve


async def set_terms(service: Caller, wallet: str, **terms: Any) -> dict[str, Any]:
    answer = await service.put(f"/v1/wallets/{wallet}/terms", terms)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_frozen_wallet_moves_nothing_in_or_out(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(100), await factory.wallet(100)
    hold = (await make_hold(service, wallet, 10))["id"]
    spent = await debit(service, wallet, 5)
    frozen = await service.post(f"/v1/wallets/{wallet}/freeze", {"reason": "stolen"})
    assert (frozen.status_code, frozen.json()["status"]) == (200, "frozen")
    again = await service.post(f"/v1/wallets/{wallet}/freeze")
    assert again.json()["seq"] == frozen.json()["seq"], "what is so already makes no entry"
    for path, body in [
        (f"/v1/wallets/{wallet}/credit", {"amount": 1}),
        (f"/v1/wallets/{wallet}/debit", {"amount": 1}),
        ("/v1/transfers", {"from": wallet, "to": other, "amount": 1}),
        ("/v1/transfers", {"from": other, "to": wallet, "amount": 1}),
        ("/v1/holds", {"wallet": wallet, "amount": 1}),
        (f"/v1/holds/{hold}/capture", {"amount": 1}),
        (f"/v1/transactions/{spent}/reverse", None),
    ]:
        problem(await service.post(path, body), 409, "wallet-frozen")
    assert (await service.post(f"/v1/holds/{hold}/void")).status_code == 201, "value that stays inside may be released"
    assert (await service.post(f"/v1/wallets/{wallet}/unfreeze")).json()["status"] == "open"
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 95})).status_code == 201
    kinds = [entry["kind"] for entry in (await service.get(f"/v1/wallets/{wallet}/entries")).json()["items"]]
    assert kinds == ["debit", "unfreeze", "void", "freeze", "debit", "hold", "credit"]
    await factory.assert_books_balance()


async def test_only_an_empty_wallet_closes_and_it_stays_closed(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    left = problem(await service.post(f"/v1/wallets/{wallet}/close"), 409, "wallet-not-empty")
    assert (left["balance"], left["held"]) == (10, 0)
    await debit(service, wallet, 10)
    assert (await service.post(f"/v1/wallets/{wallet}/close")).json()["status"] == "closed"
    for path, body in [
        (f"/v1/wallets/{wallet}/credit", {"amount": 1}),
        (f"/v1/wallets/{wallet}/unfreeze", None),
        (f"/v1/wallets/{wallet}/freeze", None),
    ]:
        problem(await service.post(path, body), 409, "wallet-closed")
    problem(await service.put(f"/v1/wallets/{wallet}/terms", {}), 409, "wallet-closed")
    assert (await service.post(f"/v1/wallets/{wallet}/close")).status_code == 200
    assert (await service.get(f"/v1/wallets/{wallet}")).json()["status"] == "closed"
    await factory.assert_books_balance()


async def test_close_that_races_with_a_credit_is_consistent(service: Caller, factory: Factory) -> None:
    """Either the wallet is closed and empty, or it is open and has the credit."""
    for _ in range(10):
        wallet = await factory.wallet(0)
        closed, paid = await asyncio.gather(
            service.post(f"/v1/wallets/{wallet}/close"), service.post(f"/v1/wallets/{wallet}/credit", {"amount": 5})
        )
        read = (await service.get(f"/v1/wallets/{wallet}")).json()
        assert (closed.status_code, paid.status_code, read["status"], read["balance"]) in {
            (200, 409, "closed", 0),
            (409, 201, "open", 5),
        }
    await factory.assert_books_balance()


async def test_a_credit_limit_lets_a_balance_fall_to_it_and_no_further(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    read = await set_terms(service, wallet, credit_limit=50)
    assert (read["available"], read["terms"]["credit_limit"]) == (60, 50)
    spent = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 40})
    assert (spent.json()["balance"], spent.json()["available"]) == (-30, 20)
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 21}), 409, "insufficient-funds")
    problem(await service.post("/v1/holds", {"wallet": wallet, "amount": 21}), 409, "insufficient-funds")
    await make_hold(service, wallet, 20)
    lowered = await set_terms(service, wallet, credit_limit=0)
    assert lowered["available"] == 0
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "insufficient-funds")
    await factory.assert_books_balance()


async def test_a_ceiling_is_never_passed(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    await set_terms(service, wallet, ceiling=100)
    answers = await asyncio.gather(*(service.post(f"/v1/wallets/{wallet}/credit", {"amount": 20}) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [409] * 16
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"balance-limit"}
    assert await factory.balance(wallet) == 90
    await factory.assert_books_balance()


async def test_spending_limits_hold_for_a_hundred_concurrent_requests(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(10_000), await factory.wallet(1)
    await set_terms(service, wallet, day_limit=100)
    asked = [service.post(f"/v1/wallets/{wallet}/debit", {"amount": 3}) for _ in range(50)]
    asked += [service.post("/v1/transfers", {"from": wallet, "to": other, "amount": 3}) for _ in range(25)]
    asked += [service.post("/v1/holds", {"wallet": wallet, "amount": 3}) for _ in range(25)]
    answers = await asyncio.gather(*asked)
    assert sum(answer.status_code == 201 for answer in answers) == 33
    refused = next(answer for answer in answers if answer.status_code == 409)
    body = problem(refused, 409, "limit-reached")
    assert (body["period"], body["limit"], body["spent"], body["needed"]) == ("day", 100, 99, 3)
    assert body["resets_at"].endswith("T00:00:00.000Z")
    await factory.assert_books_balance()


async def test_released_and_reversed_value_may_be_spent_again(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1000)
    await set_terms(service, wallet, month_limit=100)
    hold = (await make_hold(service, wallet, 60))["id"]
    spent = await debit(service, wallet, 40)
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "limit-reached")
    assert (await service.post(f"/v1/holds/{hold}/capture", {"amount": 25, "final": True})).status_code == 201
    await debit(service, wallet, 35)
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "limit-reached")
    await reverse(service, spent, 10)
    await debit(service, wallet, 10)
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "limit-reached")
    await factory.assert_books_balance()


@pytest.mark.parametrize("zone", ["UTC", "Europe/London", "Asia/Kathmandu", "America/St_Johns"])
async def test_spending_limits_follow_the_programme_calendar(
    settings: Settings, services: Services, clock: ManualClock, zone: str
) -> None:
    clock.stop()
    there = settings.model_copy(update={"time_zone": zone})
    async with open_services(there, clock) as own, serve(own, there, clock) as anonymous:
        service = anonymous.with_token(await own.access.create_key("tests", ["*"]))
        await spend_around_midnight(service, Factory(service, own), clock, zone)


async def spend_around_midnight(service: Caller, factory: Factory, clock: ManualClock, zone: str) -> None:
    wallet = await factory.wallet(1000)
    await set_terms(service, wallet, day_limit=10, month_limit=15)
    calendar = Calendar(zone)
    midnight = calendar.month_bounds(2027, 4)[0]
    clock.advance(seconds=(midnight - 1 - clock.now_ms()) / 1000)
    assert clock.now_ms() == midnight - 1
    await debit(service, wallet, 10)
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "limit-reached")
    clock.advance(seconds=0.001)
    await debit(service, wallet, 10)
    refused = problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "limit-reached")
    assert refused["period"] == "day"
    clock.advance(days=1)
    refused = problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 6}), 409, "limit-reached")
    assert (refused["period"], refused["spent"]) == ("month", 10)
    await factory.assert_books_balance()


def test_month_bounds_follow_daylight_saving_time() -> None:
    london = Calendar("Europe/London")
    march = london.month_bounds(2027, 3)
    assert (march[1] - march[0]) / 3_600_000 == 31 * 24 - 1
    october = london.month_bounds(2027, 10)
    assert (october[1] - october[0]) / 3_600_000 == 31 * 24 + 1
    assert london.names(to_ms(datetime(2027, 6, 30, 23, 30, tzinfo=UTC))) == ("2027-07-01", "2027-07")
    assert london.names(to_ms(datetime(2027, 12, 31, 23, 59, tzinfo=UTC))) == ("2027-12-31", "2027-12")


@pytest.mark.parametrize(
    "terms",
    [{"credit_limit": -1}, {"credit_limit": 1.5}, {"credit_limit": None}, {"day_limit": -1}, {"day_limit": 10**15 + 1},
     {"ceiling": 10**18 + 1}, {"floor": 0}, {"status": "open"}, {"balance": 5}],
)  # fmt: skip
async def test_invalid_account_rules_are_refused(service: Caller, factory: Factory, terms: dict[str, Any]) -> None:
    wallet = await factory.wallet(10)
    problem(await service.put(f"/v1/wallets/{wallet}/terms", terms), 422, "validation")
    missing = "mem_" + "0" * 32 + ":PTS"
    problem(await service.put(f"/v1/wallets/{missing}/terms", {}), 404, "not-found")
    problem(await service.post(f"/v1/wallets/{missing}/freeze"), 404, "not-found")


async def test_freezing_and_account_rules_require_their_scopes(services: Services, service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    freezer = service.with_token(await services.access.create_key("support", ["wallets:read", "wallets:freeze"]))
    teller = service.with_token(await services.access.create_key("till", ["wallets:write"]))
    problem(await teller.post(f"/v1/wallets/{wallet}/freeze"), 403, "forbidden")
    problem(await teller.put(f"/v1/wallets/{wallet}/terms", {}), 403, "forbidden")
    problem(await freezer.put(f"/v1/wallets/{wallet}/terms", {}), 403, "forbidden")
    problem(await freezer.post(f"/v1/wallets/{wallet}/close"), 403, "forbidden")
    assert (await freezer.post(f"/v1/wallets/{wallet}/freeze")).status_code == 200
