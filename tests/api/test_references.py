"""A reference names one transaction that stands. After that was undone whole, a new request may have the reference again.

The fault was found on a voucher's use after `unuse`. Holds, redemptions and reversed transactions had it too. Reservations did not: their
reference is a note and is not unique.
"""

from typing import Any

import pytest

from guerdon.ledger.references import ATTEMPTS_MAX
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

GBP = {"currency": "GBP"}
ORDER = "order-100042"
CARD = {"name": "a card", "kind": "gift_card", "value": {"type": "fixed", "amount": 1000, **GBP}}


async def done(service: Caller, path: str, body: dict[str, Any] | None = None, *, key: str | None = "") -> dict[str, Any]:
    answer = await service.post(path, body or {}, key=key)
    assert answer.status_code in {200, 201}, answer.text
    return dict(answer.json())


async def reused(service: Caller, path: str, body: dict[str, Any], *, key: str | None = "") -> dict[str, Any]:
    return problem(await service.post(path, body, key=key), 409, "reference-reused")


@pytest.mark.parametrize(("changes", "left"), [({}, 1), (CARD, 500)])
async def test_voucher_is_used_for_the_same_order_after_the_use_was_undone(
    service: Caller, factory: Factory, changes: dict[str, Any], left: int
) -> None:
    code = (await factory.voucher(await factory.offer(**changes), await factory.member()))["code"]
    path, use = f"/v1/vouchers/{code}", {"amount": 500, **GBP, "reference": ORDER}
    first = await done(service, f"{path}/use", use, key="first")
    await reused(service, f"{path}/use", use, key="refused")
    await done(service, f"{path}/unuse", {"reason": "payment failed"})
    assert await done(service, f"{path}/use", use, key="first") == first, "a late retry gets its first answer"
    assert (await service.get(path)).json()["status"] == "issued", "and uses nothing"
    refused = await service.post(f"{path}/use", use, key="refused")
    assert refused.headers["idempotency-replayed"] == "true", "a late retry of a refused request does not succeed by surprise"
    second = await done(service, f"{path}/use", use, key="second")
    assert (second["discount"], second["reference"]) == (500, ORDER)
    assert second["transaction_id"] != first["transaction_id"]
    assert await done(service, f"{path}/use", use, key="second") == second
    assert await done(service, f"{path}/use", use, key="first") == first
    standing = await reused(service, f"{path}/use", use)
    assert standing["transaction_id"] == second["transaction_id"], "the problem names the transaction that stands"
    history = (await service.get(f"{path}/history")).json()["items"]
    assert [(step["step"], step["reference"]) for step in history] == [
        ("use", ORDER), ("unuse", None), ("use", ORDER), ("issue", None),
    ]  # fmt: skip
    undone = await done(service, f"{path}/unuse", {"use": second["transaction_id"]})
    assert undone["voucher"]["uses_left" if left == 1 else "balance"] == (1 if left == 1 else 1000)
    await done(service, f"{path}/use", use)
    await factory.assert_books_balance()


async def test_parts_of_a_gift_card_have_references_of_their_own(service: Caller, factory: Factory) -> None:
    code = (await factory.voucher(await factory.offer(**CARD), await factory.member()))["code"]
    path = f"/v1/vouchers/{code}"
    uses = [await done(service, f"{path}/use", {"amount": 300, **GBP, "reference": f"order-{n}"}) for n in (1, 2)]
    await done(service, f"{path}/unuse", {"use": uses[0]["transaction_id"]})
    await reused(service, f"{path}/use", {"amount": 300, **GBP, "reference": "order-2"})
    again = await done(service, f"{path}/use", {"amount": 400, **GBP, "reference": "order-1"})
    assert (again["discount"], again["voucher"]["balance"]) == (400, 300), "the order may have changed meanwhile"
    await factory.assert_books_balance()


async def test_reservation_is_made_again_for_the_same_order(service: Caller, factory: Factory) -> None:
    code = (await factory.voucher(await factory.offer(), await factory.member()))["code"]
    path, basket = f"/v1/vouchers/{code}", {"amount": 2000, **GBP, "reference": ORDER}
    for _ in range(2):
        reserved = await done(service, f"{path}/reserve", basket)
        await done(service, f"{path}/release")
    reserved = await done(service, f"{path}/reserve", basket)
    await done(service, f"{path}/use", {**basket, "reservation": reserved["reservation"]})
    await done(service, f"{path}/unuse")
    reserved = await done(service, f"{path}/reserve", basket)
    used = await done(service, f"{path}/use", {**basket, "reservation": reserved["reservation"]})
    assert used["reference"] == ORDER
    await factory.assert_books_balance()


async def test_hold_is_made_again_after_it_was_voided_or_has_expired(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet = await factory.wallet(1000)
    hold = {"wallet": wallet, "amount": 600, "expires_in_seconds": 60, "reference": ORDER}
    first = await done(service, "/v1/holds", hold, key="first")
    await reused(service, "/v1/holds", hold)
    await done(service, f"/v1/holds/{first['id']}/void")
    assert (await done(service, "/v1/holds", hold, key="first"))["id"] == first["id"]
    second = await done(service, "/v1/holds", hold)
    await reused(service, "/v1/holds", hold)
    clock.advance(seconds=61)
    third = await done(service, "/v1/holds", hold)
    assert len({first["id"], second["id"], third["id"]}) == 3
    assert third["reference"] == ORDER
    await done(service, f"/v1/holds/{third['id']}/capture", {"amount": 1})
    clock.advance(seconds=61)
    await reused(service, "/v1/holds", hold)
    entries = (await service.get(f"/v1/wallets/{wallet}/entries", reference=ORDER)).json()["items"]
    assert [entry["kind"] for entry in entries] == ["hold"] * 3
    assert [entry["seq"] for entry in entries] == sorted((entry["seq"] for entry in entries), reverse=True)
    await factory.assert_books_balance()


@pytest.mark.parametrize("price", [None, {"asset": "PTS", "amount": 300}])
async def test_offer_is_redeemed_again_after_the_voucher_was_cancelled(
    service: Caller, factory: Factory, price: dict[str, Any] | None
) -> None:
    wallet = await factory.wallet(1000)
    member = wallet.partition(":")[0]
    path, body = (
        f"/v1/offers/{await factory.offer(price=price, per_member_limit=1)}/redeem",
        {"member_id": member, "reference": ORDER},
    )
    first = await done(service, path, body, key="first")
    await reused(service, path, body)
    await done(service, f"/v1/vouchers/{first['voucher']['code']}/cancel")
    assert (await done(service, path, body, key="first"))["voucher"]["id"] == first["voucher"]["id"]
    second = await done(service, path, body)
    assert second["voucher"]["id"] != first["voucher"]["id"]
    await reused(service, path, body)
    assert await factory.balance(wallet) == (1000 if price is None else 700)
    await factory.assert_books_balance()


async def test_transaction_is_made_again_after_it_was_reversed_in_full(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(1000), await factory.wallet()
    for path, body in (
        (f"/v1/wallets/{wallet}/debit", {"amount": 100, "reference": "debit"}),
        (f"/v1/wallets/{wallet}/credit", {"amount": 100, "reference": "credit"}),
        ("/v1/transfers", {"from": wallet, "to": other, "amount": 100, "reference": "transfer"}),
    ):
        first = await done(service, path, body, key=f"first-{path}")
        await done(service, f"/v1/transactions/{first['id']}/reverse", {"amount": 40})
        await reused(service, path, body)
        await done(service, f"/v1/transactions/{first['id']}/reverse")
        assert (await done(service, path, body, key=f"first-{path}"))["id"] == first["id"]
        second = await done(service, path, body)
        assert second["reference"] == body["reference"]
        assert (await reused(service, path, body))["transaction_id"] == second["id"]
        entries = (await service.get(f"/v1/wallets/{wallet}/entries", reference=body["reference"])).json()["items"]
        assert [entry["transaction_id"] for entry in entries] == [second["id"], first["id"]]
    assert await factory.balance(wallet) == 900
    await factory.assert_books_balance()


async def test_attempts_of_one_reference_are_bounded(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1000)
    body = {"amount": 100, "reference": ORDER}
    for _ in range(ATTEMPTS_MAX):
        made = await done(service, f"/v1/wallets/{wallet}/debit", body)
        await done(service, f"/v1/transactions/{made['id']}/reverse")
    refused = await reused(service, f"/v1/wallets/{wallet}/debit", body)
    assert refused["transaction_id"] == made["id"]
    assert await factory.balance(wallet) == 1000
    await factory.assert_books_balance()


async def test_changed_attempt_is_found(service: Caller, factory: Factory, services: Services) -> None:
    """The number is a part of the unique key, and of the hash."""
    wallet = await factory.wallet(1000)
    for _ in range(2):
        made = await done(service, f"/v1/wallets/{wallet}/debit", {"amount": 100, "reference": ORDER})
        await done(service, f"/v1/transactions/{made['id']}/reverse")
    entries = services.database.raw["entries"]
    assert [row["attempt"] async for row in entries.find({"attempt": {"$exists": True}})] == [2]
    await factory.assert_books_balance()
    await entries.update_one({"attempt": 2}, {"$set": {"attempt": 3}})
    with pytest.raises(AssertionError, match="L4"):
        await factory.assert_books_balance()
    await entries.update_one({"attempt": 3}, {"$set": {"attempt": 2}})
