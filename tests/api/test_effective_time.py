"""The time at which a fact happened, beside the time at which it was recorded: bounds, expiry, history, statements and replays."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest

from guerdon.clock import rfc3339, to_ms
from tests.api.test_bulk import command, run
from tests.api.test_lots import later, lots
from tests.api.test_wallets import entries_of
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

YEAR = 365


async def move(service: Caller, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post(f"/v1/{path}", body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def test_every_movement_shows_its_effective_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    wallet, other = await factory.wallet(100), await factory.wallet(1)
    then = later(clock, days=-40)
    credited = await move(service, f"wallets/{wallet}/credit", {"amount": 7, "effective_at": then})
    debited = await move(service, f"wallets/{wallet}/debit", {"amount": 2, "effective_at": then})
    sent = await move(service, "transfers", {"from": wallet, "to": other, "amount": 3, "effective_at": then})
    plain = await move(service, f"wallets/{wallet}/debit", {"amount": 1})
    for answer in (credited, debited, sent):
        assert answer["effective_at"] == then
        assert answer["created_at"] == rfc3339(clock.now_ms()), "the time of the record is not changed"
        read = (await service.get(f"/v1/transactions/{answer['id']}")).json()["transaction"]
        assert read == answer
    assert "effective_at" not in plain
    results = await run(
        service,
        [
            command("credit", wallet, 1, "a", effective_at=then),
            command("debit", wallet, 1, "b", effective_at=then),
            command("transfer", wallet, 1, "c", to=other, effective_at=then),
            command("debit", wallet, 1, "d", effective_at=later(clock, seconds=1)),
        ],
    )
    assert [result.get("transaction", {}).get("effective_at") for result in results] == [then, then, then, None]
    assert results[3]["problem"]["errors"][0]["pointer"] == "/effective_at"
    assert [entry.get("effective_at") for entry in await entries_of(service, other)] == [then, then, None]
    await factory.assert_books_balance()


@pytest.mark.parametrize("atomic", [False, True])
async def test_bulk_request_refuses_a_future_time(service: Caller, factory: Factory, clock: ManualClock, atomic: bool) -> None:
    wallet = await factory.wallet(5)
    results = await run(service, [command("debit", wallet, 1, "k", effective_at=later(clock, days=1))], atomic=atomic)
    assert (results[0]["status"], results[0]["problem"]["code"]) == (422, "validation")
    assert await factory.balance(wallet) == 5


async def test_effective_time_is_at_most_ten_years_ago_and_not_in_the_future(
    service: Caller, factory: Factory, clock: ManualClock
) -> None:
    clock.stop()
    wallet, other = await factory.wallet(100), await factory.wallet(1)
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).replace(microsecond=clock.now_ms() % 1000 * 1000)
    oldest = now.replace(year=now.year - 10) if (now.month, now.day) != (2, 29) else now.replace(year=now.year - 10, day=28)
    for moment in (later(clock), rfc3339(to_ms(oldest))):
        await move(service, f"wallets/{wallet}/debit", {"amount": 1, "effective_at": moment})
    too_old = rfc3339(to_ms(oldest) - 1)
    for refused in (later(clock, milliseconds=1), too_old, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-31T12:00:00"):
        for path, body in (
            (f"wallets/{wallet}/credit", {}),
            (f"wallets/{wallet}/credit", {"expires_in_days": 30}),
            (f"wallets/{wallet}/debit", {}),
            ("transfers", {"from": wallet, "to": other}),
        ):
            answer = await service.post(f"/v1/{path}", {"amount": 1, "effective_at": refused, **body})
            errors = problem(answer, 422, "validation")["errors"]
            assert [error["pointer"] for error in errors] == ["/effective_at"], (refused, path, errors)
    assert await factory.balance(wallet) == 98
    await factory.assert_books_balance()


async def test_credit_takes_its_expiry_from_the_effective_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """The value is as old as the fact. What would have expired by now is refused, in words that say so."""
    clock.stop()
    wallet = f"{await factory.member()}:PTS"
    today = datetime.fromtimestamp(clock.now_ms() / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    day = 86_400_000
    await move(service, f"wallets/{wallet}/credit", {"amount": 7, "expires_in_days": 100, "effective_at": later(clock, days=-40)})
    await move(service, f"wallets/{wallet}/credit", {"amount": 9, "expires_in_days": 100})
    ends = [rfc3339(to_ms(today) + (days + 1) * day) for days in (60, 100)]
    assert await lots(service, wallet) == [(7, "paid", None, ends[0]), (9, "paid", None, ends[1])]
    body = {"amount": 1, "expires_in_days": 30, "effective_at": later(clock, days=-40)}
    refused = problem(await service.post(f"/v1/wallets/{wallet}/credit", body), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/expires_in_days"]
    both = {"amount": 1, "expires_in_days": 30, "expires_at": later(clock, days=3)}
    refused = problem(await service.post(f"/v1/wallets/{wallet}/credit", both), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/expires_in_days"]
    assert await factory.balance(wallet) == 16
    clock.advance(days=61)
    answer = (await service.get(f"/v1/wallets/{wallet}")).json()
    assert (answer["available"], answer["expired"]) == (9, 7)
    await factory.assert_books_balance()


async def test_history_is_filtered_by_effective_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """Against a plain scan: an entry without an effective time counts with its own. Recorded order stays."""
    clock.stop()
    wallet = await factory.wallet(1000)
    ages = [3, 700, None, 30, 3000, None, 3, 90, 1, 700]
    for number, age in enumerate(ages):
        clock.advance(days=number % 3)
        body: dict[str, Any] = {"amount": 1 + number, "reference": f"r{number}"}
        if age is not None:
            body["effective_at"] = later(clock, days=-age)
        await move(service, f"wallets/{wallet}/{'credit' if number % 2 else 'debit'}", body)
    everything = await entries_of(service, wallet)
    assert [entry["seq"] for entry in everything] == list(range(len(ages) + 1, 0, -1)), "the order is that of the records"

    def effective(entry: dict[str, Any]) -> str:
        return str(entry.get("effective_at", entry["created_at"]))

    moments = sorted({effective(entry) for entry in everything})
    for since in (None, moments[0], moments[3], moments[-1], later(clock, days=1)):
        for until in (None, moments[1], moments[4], later(clock, days=1)):
            for kind in (None, "debit"):
                query = {"effective_from": since, "effective_to": until, "kind": kind}
                query = {name: value for name, value in query.items() if value is not None}
                expected = [
                    entry["seq"]
                    for entry in everything
                    if (since is None or effective(entry) >= since)
                    and (until is None or effective(entry) < until)
                    and kind in (None, entry["kind"])
                ]
                assert [entry["seq"] for entry in await entries_of(service, wallet, **query, limit=2)] == expected, query
    [found] = await entries_of(service, wallet, reference="r4", effective_to=later(clock, days=-2000))
    assert found["amount"] == -5
    assert await entries_of(service, wallet, reference="r4", effective_from=later(clock, days=-2000)) == []
    answer = await service.get(f"/v1/wallets/{wallet}/entries", effective_from="yesterday")
    problem(answer, 422, "validation")
    await factory.assert_books_balance()


async def test_statement_shows_the_effective_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet = await factory.wallet(10)
    then = later(clock, days=-40)
    await move(service, f"wallets/{wallet}/debit", {"amount": 2, "effective_at": then})
    month = later(clock)[:7]
    entries = (await service.get(f"/v1/wallets/{wallet}/statements/{month}")).json()["entries"]
    assert [entry.get("effective_at") for entry in entries] == [None, then]
    answer = await service.get(f"/v1/wallets/{wallet}/statements/{month}", format="csv")
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["effective_at"] for row in rows if row["row"] == "entry"] == ["", then]


async def test_replay_returns_the_first_effective_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet = await factory.wallet(10)
    body = {"amount": 2, "effective_at": later(clock, days=-1)}
    first = await service.post(f"/v1/wallets/{wallet}/debit", body, key="k")
    clock.advance(days=400)
    again = await service.post(f"/v1/wallets/{wallet}/debit", body, key="k")
    assert (again.status_code, again.content, again.headers["idempotency-replayed"]) == (201, first.content, "true")
    other = await service.post(f"/v1/wallets/{wallet}/debit", {**body, "effective_at": later(clock, days=-2)}, key="k")
    problem(other, 422, "idempotency-key-reused")
