"""Dated value over HTTP: spent in the published order, not spendable one millisecond too early or too late, written off in the books."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from guerdon.ledger.jobs import sweep
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

DAY_SECONDS = 86_400


def later(clock: ManualClock, **delta: float) -> str:
    moment = datetime.fromtimestamp(clock.now_ms() / 1000, UTC) + timedelta(**delta)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def credit(service: Caller, wallet: str, amount: int, **dates: Any) -> dict[str, Any]:
    answer = await service.post(f"/v1/wallets/{wallet}/credit", {"amount": amount, **dates})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def lots(service: Caller, wallet: str) -> list[tuple[Any, ...]]:
    items = (await service.get(f"/v1/wallets/{wallet}/lots")).json()["items"]
    return [(lot["amount"], lot["source"], lot["available_at"], lot["expires_at"]) for lot in items]


async def state(service: Caller, wallet: str) -> dict[str, int]:
    read = (await service.get(f"/v1/wallets/{wallet}")).json()
    return {name: read[name] for name in ("balance", "available", "pending", "expired")}


async def test_value_is_spent_in_the_documented_order(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """Earliest expiry, promotional before paid, oldest; undated paid value last."""
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    soon, late = later(clock, days=1), later(clock, days=9)
    for amount, dates in [
        (10, {}),
        (20, {"source": "promotional"}),
        (30, {"expires_at": late}),
        (40, {"expires_at": soon}),
        (50, {"expires_at": soon, "source": "promotional"}),
        (60, {"expires_at": soon}),
    ]:
        await credit(service, wallet, amount, **dates)
    order = [(50, "promotional", None, soon), (100, "paid", None, soon), (30, "paid", None, late), (20, "promotional", None, None)]
    assert await lots(service, wallet) == [*order, (10, "paid", None, None)]
    debit = (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 175})).json()
    assert [(lot["amount"], lot["source"], lot["expires_at"]) for lot in debit["lots"]] == [
        (50, "promotional", soon), (100, "paid", soon), (25, "paid", late),
    ]  # fmt: skip
    assert await lots(service, wallet) == [(5, "paid", None, late), (20, "promotional", None, None), (10, "paid", None, None)]
    await factory.assert_books_balance()


@pytest.mark.parametrize("swept", [False, True])
async def test_value_expires_at_its_exact_millisecond(
    service: Caller, factory: Factory, services: Services, clock: ManualClock, swept: bool
) -> None:
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    await credit(service, wallet, 100, expires_at=later(clock, seconds=10))
    await credit(service, wallet, 5)
    clock.advance(seconds=9.999)
    assert await state(service, wallet) == {"balance": 105, "available": 105, "pending": 0, "expired": 0}
    clock.advance(seconds=0.001)
    assert await state(service, wallet) == {"balance": 105, "available": 5, "pending": 0, "expired": 100}
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 6}), 409, "insufficient-funds")
    if swept:
        assert await sweep(services.ledger, services.database, clock) == 1
        assert await state(service, wallet) == {"balance": 5, "available": 5, "pending": 0, "expired": 0}
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 5})).status_code == 201
    entries = (await service.get(f"/v1/wallets/{wallet}/entries")).json()["items"]
    assert [(entry["kind"], entry["amount"], entry["counter"]) for entry in entries[:2]] == [
        ("debit", -5, "system:merchant"),
        ("expiry", -100, "system:breakage"),
    ]
    await factory.assert_books_balance()


async def test_pending_value_is_in_the_balance_and_not_spendable(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    answer = await credit(service, wallet, 100, available_at=later(clock, seconds=10), expires_at=later(clock, days=1))
    assert (answer["balance"], answer["available"]) == (100, 0)
    clock.advance(seconds=9.999)
    assert await state(service, wallet) == {"balance": 100, "available": 0, "pending": 100, "expired": 0}
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 409, "insufficient-funds")
    problem(await service.post("/v1/holds", {"wallet": wallet, "amount": 1}), 409, "insufficient-funds")
    clock.advance(seconds=0.001)
    assert await state(service, wallet) == {"balance": 100, "available": 100, "pending": 0, "expired": 0}
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 100})).status_code == 201
    await factory.assert_books_balance()


async def test_wallet_shows_what_expires_next(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """All value with the earliest expiry: of both sources, and also value that is not available yet. Held value does not expire."""
    clock.stop()
    member = await factory.member()
    wallet = f"{member}:PTS"

    async def next_expiry() -> Any:
        read = (await service.get(f"/v1/wallets/{wallet}")).json()
        [listed] = (await service.get(f"/v1/members/{member}/wallets")).json()["items"]
        assert listed == read
        return read["expires_next"]

    soon, later_on, last = later(clock, days=1), later(clock, days=2), later(clock, days=3)
    await credit(service, wallet, 5)
    assert await next_expiry() is None
    await credit(service, wallet, 10, expires_at=soon)
    await credit(service, wallet, 20, expires_at=soon, source="promotional")
    await credit(service, wallet, 40, expires_at=later_on, available_at=later(clock, days=1.5))
    await credit(service, wallet, 80, expires_at=last)
    assert await next_expiry() == {"at": soon, "amount": 30}
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 12})).status_code == 201
    assert await next_expiry() == {"at": soon, "amount": 18}
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 8, "expires_in_seconds": 5 * DAY_SECONDS})).json()["id"]
    assert await next_expiry() == {"at": soon, "amount": 10}
    clock.advance(seconds=DAY_SECONDS - 0.001)
    assert await next_expiry() == {"at": soon, "amount": 10}
    clock.advance(seconds=0.001)
    assert await next_expiry() == {"at": later_on, "amount": 40}, "as soon as it has expired, although no entry says so"
    assert (await service.post(f"/v1/holds/{hold}/void")).status_code == 201
    back = later(clock, days=7)
    assert await next_expiry() == {"at": later_on, "amount": 40}
    clock.advance(days=3)
    assert await next_expiry() == {"at": back, "amount": 8}
    await factory.assert_books_balance()


async def test_transfer_keeps_the_expiry_of_value(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    source, target = f"{await factory.member()}:PTS", f"{await factory.member()}:PTS"
    soon = later(clock, days=1)
    await credit(service, source, 100, expires_at=soon, source="promotional")
    await credit(service, source, 10)
    answer = await service.post("/v1/transfers", {"from": source, "to": target, "amount": 105})
    assert answer.status_code == 201, answer.text
    assert await lots(service, target) == [(100, "promotional", None, soon), (5, "paid", None, None)]
    await factory.assert_books_balance()


async def test_held_value_does_not_expire_and_returns_to_its_lot(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    soon = later(clock, days=1)
    await credit(service, wallet, 100, expires_at=soon)
    first = (await service.post("/v1/holds", {"wallet": wallet, "amount": 60, "expires_in_seconds": 5 * DAY_SECONDS})).json()["id"]
    second = (await service.post("/v1/holds", {"wallet": wallet, "amount": 10, "expires_in_seconds": 60})).json()["id"]
    assert await lots(service, wallet) == [(30, "paid", None, soon)]
    assert (await service.post(f"/v1/holds/{second}/void")).status_code == 201
    assert await lots(service, wallet) == [(40, "paid", None, soon)]
    clock.advance(days=2)
    assert await state(service, wallet) == {"balance": 100, "available": 0, "pending": 0, "expired": 40}
    assert (await service.post(f"/v1/holds/{first}/capture", {"amount": 50})).status_code == 201
    back = later(clock, days=7)
    assert (await service.post(f"/v1/holds/{first}/void")).status_code == 201
    assert await lots(service, wallet) == [(10, "paid", None, back)], "a lapsed lot that comes back lives seven days more"
    await factory.assert_books_balance()


@pytest.mark.parametrize("swept", [False, True])
async def test_expired_hold_returns_its_value_as_of_its_expiry(
    service: Caller, factory: Factory, services: Services, clock: ManualClock, swept: bool
) -> None:
    """No days of grace because nobody has booked it: the hold ended before the lot lapsed."""
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    await credit(service, wallet, 100, expires_at=later(clock, days=1))
    assert (await service.post("/v1/holds", {"wallet": wallet, "amount": 60, "expires_in_seconds": 60})).status_code == 201
    clock.advance(seconds=61)
    if swept:
        assert await sweep(services.ledger, services.database, clock) == 1
    clock.advance(days=2)
    assert await state(service, wallet) == {"balance": 100, "available": 0, "pending": 0, "expired": 100}
    assert await sweep(services.ledger, services.database, clock) == 1
    assert await state(service, wallet) == {"balance": 0, "available": 0, "pending": 0, "expired": 0}
    await factory.assert_books_balance()


async def test_equal_dates_share_one_lot_and_lots_are_bounded(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    soon = later(clock, days=200)
    for number in range(1, 51):
        await credit(service, wallet, 1, available_at=later(clock, days=number), expires_at=soon)
    assert len(await lots(service, wallet)) == 50
    clock.advance(days=60)
    assert await lots(service, wallet) == [(50, "paid", None, soon)], "a date that has passed is forgotten"
    for number in range(99):
        await credit(service, wallet, 1, expires_at=later(clock, days=30 + number))
    refused = problem(
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1, "expires_at": later(clock, days=300)}),
        409,
        "limit-reached",
    )
    assert refused["limit"] == 100
    await credit(service, wallet, 1, expires_at=later(clock, days=30))
    await credit(service, wallet, 1)
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("dates", "pointer"),
    [
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"available_at": "tomorrow"}, "/available_at"),
        ({"available_at": "2099-01-02T00:00:00Z", "expires_at": "2099-01-01T00:00:00Z"}, "/expires_at"),
        ({"available_at": "9999-12-31T23:59:59.999Z", "expires_at": "2099-01-01T00:00:00Z"}, "/available_at"),
        ({"expires_at": 5}, "/expires_at"),
        ({"source": "stolen"}, "/source"),
    ],
)
async def test_impossible_dates_are_refused(service: Caller, factory: Factory, dates: dict[str, Any], pointer: str) -> None:
    wallet = f"{await factory.member()}:PTS"
    body = problem(await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1, **dates}), 422, "validation")
    assert body["errors"][0]["pointer"] == pointer
    command = {"type": "credit", "wallet": wallet, "amount": 1, "key": "k", **dates}
    bulk = await service.post("/v1/bulk", {"commands": [command]})
    if bulk.status_code == 200:
        assert bulk.json()["results"][0]["problem"]["code"] == "validation"
    problem(await service.get(f"/v1/wallets/{wallet}"), 404, "not-found")


async def test_bulk_credits_carry_dates_too(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    soon = later(clock, days=1)
    command = {"type": "credit", "wallet": wallet, "amount": 7, "key": "k", "expires_at": soon, "source": "promotional"}
    answer = (await service.post("/v1/bulk", {"commands": [command]})).json()
    assert answer["results"][0]["status"] == 201
    assert await lots(service, wallet) == [(7, "promotional", None, soon)]
    await factory.assert_books_balance()


async def test_a_debt_is_paid_by_the_first_value_that_becomes_available(
    service: Caller, factory: Factory, services: Services, clock: ManualClock
) -> None:
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    await credit(service, wallet, 1)
    assert (await service.put(f"/v1/wallets/{wallet}/terms", {"credit_limit": 100})).status_code == 200
    await credit(service, wallet, 30, available_at=later(clock, days=1), expires_at=later(clock, days=2))
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 51})).status_code == 201
    assert await state(service, wallet) == {"balance": -20, "available": 50, "pending": 30, "expired": 0}
    clock.advance(days=3)
    assert await state(service, wallet) == {"balance": -20, "available": 80, "pending": 0, "expired": 0}
    assert await sweep(services.ledger, services.database, clock) == 1
    assert await lots(service, wallet) == [], "it paid the debt on the day it became available, so nothing of it has lapsed"
    await credit(service, wallet, 25, expires_at=later(clock, days=1))
    assert [lot[0] for lot in await lots(service, wallet)] == [5], "20 of the 25 paid what was owed"
    assert await state(service, wallet) == {"balance": 5, "available": 105, "pending": 0, "expired": 0}
    await factory.assert_books_balance()
