"""Sources of a spend: the transactions that brought the value which it took."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from guerdon.reports.sources import service as sources
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

LATE, SOON = {"expires_at": "2099-12-31T00:00:00Z"}, {"expires_at": "2099-06-30T00:00:00Z"}


async def post(service: Caller, path: str, **body: Any) -> str:
    answer = await service.post(f"/v1/{path}", body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def sources_of(service: Caller, transaction: str) -> list[dict[str, Any]]:
    answer = await service.get(f"/v1/transactions/{transaction}/sources")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["transaction_id"], told["next_cursor"]) == (transaction, None)
    assert sum(each["amount"] for each in told["items"]) == told["amount"]
    return list(told["items"])


def parts(items: list[dict[str, Any]]) -> list[tuple[str | None, int]]:
    return [(each["transaction_id"], each["amount"]) for each in items]


async def test_spend_takes_what_arrived_first_within_a_lot(service: Caller, factory: Factory, clock: ManualClock) -> None:
    arrived = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    wallet = f"{await factory.member()}:PTS"
    late, soon, again = [
        await post(service, f"wallets/{wallet}/credit", amount=amount, source="promotional", **dates)
        for amount, dates in ((30, LATE), (20, SOON), (10, SOON))
    ]
    undated = await post(service, f"wallets/{wallet}/credit", amount=100)
    clock.advance(days=40)
    first = await post(service, f"wallets/{wallet}/debit", amount=25)
    second = await post(service, f"wallets/{wallet}/debit", amount=50)
    assert parts(await sources_of(service, first)) == [(soon, 20), (again, 5)]
    items = await sources_of(service, second)
    assert parts(items) == [(again, 5), (late, 30), (undated, 15)]
    assert items[0] == {
        "wallet": wallet, "transaction_id": again, "kind": "credit", "amount": 5, "source": "promotional", "campaign": None,
        "version": None, "month": f"{arrived:%Y-%m}", "earned_at": items[0]["earned_at"],
    }  # fmt: skip
    assert datetime.fromisoformat(items[0]["earned_at"]) - arrived < timedelta(minutes=1)
    assert [each["source"] for each in items] == ["promotional", "promotional", "paid"]
    await factory.assert_books_balance()


async def test_sources_name_campaign_and_version(service: Caller, factory: Factory) -> None:
    campaigns = [await factory.campaign(name=name, expiry={"type": "after_days", "days": 90}) for name in ("one", "two")]
    made = [
        (
            await service.post(
                "/v1/events", factory.event(id=f"order-{number}", member={"external_id": "ada"}, amount=1_000), key=None
            )
        ).json()
        for number in range(2)
    ]
    wallet = f"{made[0]['member_id']}:PTS"
    awards = [(award["transaction_id"], award["campaign"]) for event in made for award in event["awards"]]
    assert [campaign for _, campaign in awards] == [*campaigns, *campaigns]
    spent = await post(service, f"wallets/{wallet}/debit", amount=25)
    items = await sources_of(service, spent)
    assert [(each["transaction_id"], each["campaign"]) for each in items] == awards[:3]
    assert [(each["kind"], each["version"], each["amount"]) for each in items] == [
        ("award", 1, 10),
        ("award", 1, 10),
        ("award", 1, 5),
    ]
    await factory.assert_books_balance()


async def test_returned_value_keeps_its_source(service: Caller, factory: Factory) -> None:
    wallet = f"{await factory.member()}:PTS"
    one, two = [await post(service, f"wallets/{wallet}/credit", amount=amount) for amount in (10, 20)]
    spent = await post(service, f"wallets/{wallet}/debit", amount=15)
    back = await post(service, f"transactions/{spent}/reverse", amount=8)
    again = await post(service, f"wallets/{wallet}/debit", amount=12)
    assert parts(await sources_of(service, again)) == [(one, 3), (two, 9)]
    # What returned in part was what had left last: 5 of the second, and 3 of the first.
    assert parts(await sources_of(service, back)) == []
    other = f"{await factory.member()}:PTS"
    sent = await post(service, "transfers", **{"from": wallet, "to": other, "amount": 11})
    assert parts(await sources_of(service, sent)) == [(two, 11)]
    received = await post(service, f"wallets/{other}/debit", amount=11)
    assert parts(await sources_of(service, received)) == [(sent, 11)]
    await factory.assert_books_balance()


async def test_part_that_is_owed_has_no_source(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    assert (await service.put(f"/v1/wallets/{wallet}/terms", {"credit_limit": 50})).status_code == 200
    spent = await post(service, f"wallets/{wallet}/debit", amount=30)
    known, owed = await sources_of(service, spent)
    assert (known["amount"], known["kind"]) == (10, "credit")
    assert (owed["amount"], owed["transaction_id"], owed["kind"], owed["earned_at"]) == (20, None, None, None)
    await factory.assert_books_balance()


async def test_transaction_that_spends_nothing_has_no_sources(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    credit = await post(service, f"wallets/{wallet}/credit", amount=5)
    hold = await service.post("/v1/holds", {"wallet": wallet, "amount": 3, "expires_in_seconds": 60})
    assert await sources_of(service, credit) == []
    held = hold.json()["id"].replace("hld_", "txn_")
    assert await sources_of(service, held) == []
    captured = await service.post(f"/v1/holds/{hold.json()['id']}/capture", {"amount": 3})
    assert captured.status_code == 201
    problem(await service.get(f"/v1/transactions/txn_{wallet}:99/sources"), 404, "not-found")
    problem(await service.get("/v1/transactions/nonsense/sources"), 404, "not-found")
    await factory.assert_books_balance()


async def test_transaction_of_several_wallets_lists_each(service: Caller, factory: Factory) -> None:
    one, two, three = [await factory.wallet(balance) for balance in (30, 20, 5)]
    postings = [{"wallet": one, "amount": -10}, {"wallet": two, "amount": -5}, {"wallet": three, "amount": 15}]
    split = await post(service, "transactions", postings=postings)
    assert [(each["wallet"], each["amount"]) for each in await sources_of(service, split)] == [(one, 10), (two, 5)]
    await factory.assert_books_balance()


async def test_history_that_is_too_long_is_refused(service: Caller, factory: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ENTRIES_MAX", 3)
    wallet = await factory.wallet(10)
    first, second = [await post(service, f"wallets/{wallet}/debit", amount=1) for _ in range(2)]
    monkeypatch.setattr(sources, "ENTRIES_MAX", 2)
    assert len(await sources_of(service, first)) == 1
    told = problem(await service.get(f"/v1/transactions/{second}/sources"), 409, "history-too-long")
    assert (told["entries"], told["limit"]) == (2, 1)
    await factory.assert_books_balance()


async def test_member_sees_the_sources_of_their_own_spends_only(
    service: Caller, factory: Factory, anonymous: Caller, services: Services
) -> None:
    registered = await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": "correct horse battery"})
    member = registered.json()["id"]
    login = await anonymous.post("/v1/auth/login", {"email": "ada@example.com", "password": "correct horse battery"})
    ada = anonymous.with_token(login.json()["access_token"])
    mine, other = await factory.wallet(10, member=member), await factory.wallet(10)
    spent, foreign = [await post(service, f"wallets/{wallet}/debit", amount=1) for wallet in (mine, other)]
    assert len(await sources_of(ada, spent)) == 1
    problem(await ada.get(f"/v1/transactions/{foreign}/sources"), 404, "not-found")
    await factory.assert_books_balance()
