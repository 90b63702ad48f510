"""Vouchers at the till: tried, reserved, used, released, taken back, cancelled; and gift cards, used in parts or loaded into wallets."""

from typing import Any

import pytest

from guerdon.ledger.jobs import sweep
from guerdon.vouchers.pos.rules import IN_PARTS, ONE_USE
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

GBP = {"currency": "GBP"}
CARD = {"name": "a card", "kind": "gift_card", "value": {"type": "fixed", "amount": 1000, **GBP}}
STEPS = ("reserve", "use", "release", "unuse", "cancel", "load")


class Till:
    """A till and whoever stands behind it."""

    def __init__(self, service: Caller, factory: Factory) -> None:
        self.service = service
        self.factory = factory

    async def voucher(self, member: str | None = None, **offer: Any) -> str:
        """The code of a voucher, redeemed by somebody of a new offer."""
        return str((await self.redeem(await self.factory.offer(**offer), member or await self.factory.member()))["code"])

    async def redeem(self, offer: str, member: str) -> dict[str, Any]:
        answer = await self.service.post(f"/v1/offers/{offer}/redeem", {"member_id": member})
        assert answer.status_code == 201, answer.text
        return dict(answer.json()["voucher"])

    async def do(self, code: str, step: str, body: Any = None, *, key: str | None = "", **more: Any) -> dict[str, Any]:
        answer = await self.service.post(f"/v1/vouchers/{code}/{step}", {**(body or {}), **more}, key=key)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refuse(self, code: str, step: str, status: int, why: str, **body: Any) -> dict[str, Any]:
        return problem(await self.service.post(f"/v1/vouchers/{code}/{step}", body), status, why)

    async def status(self, code: str) -> str:
        answer = await self.service.get(f"/v1/vouchers/{code}")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["status"])


@pytest.fixture
def till(service: Caller, factory: Factory) -> Till:
    return Till(service, factory)


async def test_voucher_is_validated_reserved_and_used(till: Till, factory: Factory) -> None:
    code = await till.voucher()
    basket = {"amount": 2000, **GBP}
    tried = await till.do(code, "validate", basket)
    assert (tried["valid"], tried["discount"], tried["currency"], tried["problem"]) == (True, 500, "GBP", None)
    assert (await till.do(code, "validate", basket))["voucher"]["status"] == "issued", "trying it changes nothing"
    reserved = await till.do(code, "reserve", basket, reference="order-7", key="r-1")
    assert (reserved["voucher"]["status"], reserved["discount"], reserved["reserved"]) == ("reserved", 500, 1)
    assert reserved["voucher"]["reserved_until"] is not None
    assert await till.do(code, "reserve", basket, reference="order-7", key="r-1") == reserved
    assert (await till.refuse(code, "use", 409, "invalid-state", **basket))["status_now"] == "reserved"
    tried = await till.do(code, "validate", basket)
    assert (tried["valid"], tried["problem"]["status_now"], tried["voucher"]["status"]) == (False, "reserved", "reserved")
    assert (await till.do(code, "validate", basket, reservation=reserved["reservation"]))["valid"]
    used = await till.do(code, "use", basket, reservation=reserved["reservation"], reference="order-7", key="u-1")
    assert (used["voucher"]["status"], used["discount"], used["voucher"]["uses_left"]) == ("used", 500, 0)
    assert await till.do(code, "use", basket, reservation=reserved["reservation"], reference="order-7", key="u-1") == used
    assert (await till.refuse(code, "use", 409, "invalid-state", **basket))["status_now"] == "used"
    assert await till.status(code) == "used"
    history = (await till.service.get(f"/v1/vouchers/{code}/history")).json()["items"]
    assert [(step["step"], step["reference"]) for step in history] == [("use", "order-7"), ("reserve", "order-7"), ("issue", None)]
    await factory.assert_books_balance()


async def test_reservation_is_released_and_use_is_undone(till: Till, factory: Factory) -> None:
    code = await till.voucher()
    basket = {"amount": 300, **GBP}
    reserved = await till.do(code, "reserve")
    assert (await till.refuse(code, "release", 409, "invalid-state", reservation="hld_nothing:1"))["status_now"] == "reserved"
    assert (await till.do(code, "release", key="out"))["voucher"]["status"] == "issued"
    assert (await till.do(code, "release", key="out"))["reservation"] == reserved["reservation"]
    used = await till.do(code, "use", basket)
    assert used["discount"] == 300, "never more than the basket"
    back = await till.do(code, "unuse", use=used["transaction_id"], reason="order cancelled", key="back")
    assert (back["voucher"]["status"], back["voucher"]["uses_left"], back["reason"]) == ("issued", 1, "order cancelled")
    assert await till.do(code, "unuse", use=used["transaction_id"], reason="order cancelled", key="back") == back
    await till.do(code, "use", basket)
    assert (await till.refuse(code, "unuse", 409, "invalid-state", use=used["transaction_id"]))["status_now"] == "used"
    assert (await till.do(code, "unuse"))["voucher"]["status"] == "issued", "the newest use, when none is named"
    await factory.assert_books_balance()


async def test_a_gift_card_is_used_in_parts(till: Till, factory: Factory) -> None:
    code = await till.voucher(**CARD)
    first = await till.do(code, "use", amount=300, **GBP)
    assert (first["discount"], first["voucher"]["balance"], first["voucher"]["status"]) == (300, 700, "partly_used")
    held = await till.do(code, "reserve", amount=500, **GBP)
    assert (held["reserved"], held["voucher"]["balance"]) == (500, 200)
    rest = await till.do(code, "use", amount=900, **GBP)
    assert (rest["discount"], rest["voucher"]["status"]) == (200, "reserved"), "what is reserved stays so"
    assert (await till.refuse(code, "use", 409, "invalid-state", amount=1, **GBP))["status_now"] == "reserved"
    last = await till.do(code, "use", amount=450, reservation=held["reservation"], **GBP)
    assert (last["discount"], last["voucher"]["balance"], last["voucher"]["status"]) == (450, 50, "partly_used")
    back = await till.do(code, "unuse", use=first["transaction_id"])
    assert back["voucher"]["balance"] == 350
    assert (await till.refuse(code, "use", 409, "not-applicable", amount=1, currency="EUR"))["reason"] == "currency"
    await factory.assert_books_balance()


async def test_a_gift_card_is_loaded_into_a_wallet(till: Till, factory: Factory, service: Caller) -> None:
    member = await factory.member()
    code = await till.voucher(**CARD, voucher_valid_days=30)
    part = await till.do(code, "load", member_id=member, amount=400, key="l")
    assert (part["loaded"], part["wallet"], part["voucher"]["balance"]) == (400, f"{member}:GBP", 600)
    assert await till.do(code, "load", member_id=member, amount=400, key="l") == part
    too_much = await till.refuse(code, "load", 409, "insufficient-funds", member_id=member, amount=601)
    assert too_much["available"] == 600
    rest = await till.do(code, "load", member_id=member)
    assert (rest["loaded"], rest["voucher"]["status"]) == (600, "used")
    assert await factory.balance(f"{member}:GBP") == 1000
    [lot] = (await service.get(f"/v1/wallets/{member}:GBP/lots")).json()["items"]
    assert (lot["amount"], lot["expires_at"]) == (1000, rest["voucher"]["expires_at"]), "the money keeps its date"
    problem(await service.post(f"/v1/transactions/{rest['transaction_id']}/reverse"), 404, "not-found")
    assert (await till.refuse(await till.voucher(), "load", 409, "invalid-state", member_id=member))["status_now"] == "issued"
    await factory.assert_books_balance()


# --- given back -----------------------------------------------------------------------------------------------------


async def test_cancellation_returns_the_price_to_its_original_lots(till: Till, factory: Factory, service: Caller) -> None:
    """And stock and limits count the voucher no more."""
    member = await factory.member()
    wallet = f"{member}:PTS"
    for amount, date in ((300, "2030-01-01T00:00:00Z"), (200, "2031-01-01T00:00:00Z"), (500, None)):
        credit = {"amount": amount, "expires_at": date}
        assert (await service.post(f"/v1/wallets/{wallet}/credit", credit)).status_code == 201
    before = (await service.get(f"/v1/wallets/{wallet}/lots")).json()["items"]
    offer = await factory.offer(price={"asset": "PTS", "amount": 600}, stock=1, per_member_limit=1, per_member_day_limit=1)
    code = (await till.redeem(offer, member))["code"]
    assert await factory.balance(wallet) == 400
    problem(await service.post(f"/v1/offers/{offer}/redeem", {"member_id": member}), 409, "limit-reached")
    reserved = await till.do(code, "reserve")
    assert (await till.refuse(code, "cancel", 409, "invalid-state"))["status_now"] == "reserved"
    await till.do(code, "release", reservation=reserved["reservation"])
    gone = await till.do(code, "cancel", reason="changed their mind", key="c")
    assert (gone["voucher"]["status"], gone["refunded"], gone["voucher"]["uses_left"]) == ("cancelled", 600, 0)
    assert await till.do(code, "cancel", reason="changed their mind", key="c") == gone
    assert (await till.refuse(code, "cancel", 409, "invalid-state"))["status_now"] == "cancelled"
    assert (await service.get(f"/v1/wallets/{wallet}/lots")).json()["items"] == before
    assert (await service.get(f"/v1/offers/{offer}")).json()["issued"] == 0
    paid = gone["voucher"]["transaction_id"]
    problem(await service.post(f"/v1/transactions/{paid}/reverse"), 409, "not-reversible")
    assert (await till.redeem(offer, member))["status"] == "issued", "there is one again"
    await factory.assert_books_balance()


async def test_purchased_gift_card_can_be_cancelled_only_while_unused(till: Till, factory: Factory) -> None:
    """A gift card that was bought and used in part cannot be given back; one that was given away can."""
    wallet = await factory.wallet(1000)
    member = wallet.partition(":")[0]
    bought = await till.voucher(member, **CARD, price={"asset": "PTS", "amount": 1000})
    given = await till.voucher(member, **CARD)
    for code in (bought, given):
        await till.do(code, "use", amount=300, **GBP)
    assert (await till.refuse(bought, "cancel", 409, "invalid-state"))["status_now"] == "partly_used"
    gone = await till.do(given, "cancel")
    assert (gone["refunded"], gone["voucher"]["balance"]) == (None, 0)
    await till.do(bought, "unuse")
    assert (await till.do(bought, "cancel"))["refunded"] == 1000
    assert await factory.balance(wallet) == 1000
    await factory.assert_books_balance()


async def test_offer_policies_limit_cancellation_and_unuse(till: Till, factory: Factory, clock: ManualClock) -> None:
    """Whether, and for how long."""
    basket = {"amount": 2000, **GBP}
    never = await till.voucher(cancellation={"allowed": False}, unuse={"allowed": False})
    assert (await till.refuse(never, "cancel", 409, "against-policy"))["until"] is None
    await till.do(never, "use", basket)
    assert (await till.refuse(never, "unuse", 409, "against-policy"))["until"] is None
    awhile = {"cancellation": {"days": 2}, "unuse": {"minutes": 10}}
    used, kept, late = [await till.voucher(**awhile) for _ in range(3)]
    await till.do(used, "use", basket)
    clock.advance(seconds=9 * 60)
    await till.do(used, "unuse")
    await till.do(used, "use", basket)
    clock.advance(seconds=10 * 60)
    assert (await till.refuse(used, "unuse", 409, "against-policy"))["until"] is not None
    clock.advance(days=1)
    await till.do(kept, "cancel")
    clock.advance(days=1)
    await till.refuse(late, "cancel", 409, "against-policy")
    await factory.assert_books_balance()


# --- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swept", [False, True])
async def test_voucher_expires_at_its_exact_millisecond(
    till: Till, factory: Factory, services: Services, clock: ManualClock, service: Caller, *, swept: bool
) -> None:
    """At the till and in lists, whether or not a worker has booked it."""
    clock.stop()
    member = await factory.member()
    one = await till.voucher(member, voucher_valid_days=1)
    card = await till.voucher(member, **CARD, voucher_valid_days=1)
    [ends_at] = list({(await till.do(code, "validate", amount=1, **GBP))["voucher"]["expires_at"] for code in (one, card)})
    await till.do(card, "use", amount=300, **GBP)
    issued = await services.vouchers.find(one)
    assert issued is not None
    assert issued.expires_at is not None
    ends_ms = issued.expires_at
    clock.offset_ms += ends_ms - clock.now_ms() - 2
    held = await till.do(one, "reserve", expires_in_seconds=900)
    clock.offset_ms += 1
    if swept:
        await sweep(services.ledger, services.database, clock)
    assert await till.status(one) == "issued", "a reservation ends right before the voucher"
    assert (await till.refuse(one, "use", 409, "invalid-state", amount=1, reservation=held["reservation"], **GBP))[
        "status_now"
    ] == "issued"
    assert (await till.do(card, "validate", amount=9, **GBP))["valid"], "the last millisecond"
    clock.offset_ms += 1
    if swept:
        assert await sweep(services.ledger, services.database, clock) == 2
    listed = (await service.get(f"/v1/members/{member}/vouchers")).json()["items"]
    assert {(each["status"], each["expires_at"], each["uses_left"]) for each in listed} == {("expired", ends_at, 0)}
    for code in (one, card):
        tried = await till.do(code, "validate", amount=1, **GBP)
        assert (tried["valid"], tried["problem"]["status_now"]) == (False, "expired")
        for step in ("reserve", "use", "cancel"):
            assert (await till.refuse(code, step, 409, "invalid-state", **({} if step == "cancel" else {"amount": 1, **GBP})))[
                "status_now"
            ] == "expired"
    assert (await till.refuse(one, "unuse", 409, "invalid-state"))["status_now"] == "expired"
    back = await till.do(card, "unuse")
    assert (back["voucher"]["balance"], back["voucher"]["status"]) == (300, "partly_used"), "what comes back lives a week longer"
    assert (await service.get("/v1/vouchers/" + card)).json()["expires_at"] == back["voucher"]["expires_at"] > ends_at
    clock.advance(days=7)
    assert await till.status(card) == "expired"
    await sweep(services.ledger, services.database, clock)
    assert await till.status(card) == "expired"
    await factory.assert_books_balance()


async def test_reservation_expires_by_itself(till: Till, factory: Factory, clock: ManualClock, services: Services) -> None:
    code = await till.voucher()
    for swept in (False, True):
        held = await till.do(code, "reserve", expires_in_seconds=60)
        assert await till.status(code) == "reserved"
        clock.advance(seconds=60)
        if swept:
            await sweep(services.ledger, services.database, clock)
        assert await till.status(code) == "issued"
        assert (await till.refuse(code, "release", 409, "invalid-state", reservation=held["reservation"]))["status_now"] == "issued"
    await till.do(code, "use", amount=100, **GBP)
    await factory.assert_books_balance()


# --- the table ------------------------------------------------------------------------------------------------------


async def put_into(till: Till, status: str, *, parts: bool, clock: ManualClock) -> str:
    """A voucher of this status."""
    code = await till.voucher(**(CARD if parts else {}), voucher_valid_days=1 if status == "expired" else None)
    if parts and status in {"partly_used", "reserved", "expired"}:
        await till.do(code, "use", amount=300, **GBP)
    match status:
        case "reserved":
            await till.do(code, "reserve")
        case "used":
            await till.do(code, "use", amount=1000, **GBP)
        case "cancelled":
            await till.do(code, "cancel")
        case "expired":
            clock.advance(days=2)
        case _:
            pass
    assert await till.status(code) == status
    return code


TABLE = [(parts, status) for parts, table in ((False, ONE_USE), (True, IN_PARTS)) for status in table]


@pytest.mark.parametrize(("parts", "status"), TABLE)
async def test_step_outside_the_state_table_is_refused(
    till: Till,
    factory: Factory,
    clock: ManualClock,
    parts: bool,
    status: str,
) -> None:
    """With 409, and the problem names the state; what is in it is done, on a voucher of its own."""
    table: Any = IN_PARTS if parts else ONE_USE
    code = await put_into(till, status, parts=parts, clock=clock)
    member = await factory.member()
    bodies: dict[str, dict[str, Any]] = {
        "reserve": {"amount": 100, **GBP},
        "use": {"amount": 100, **GBP},
        "load": {"member_id": member},
    }
    for step in STEPS:
        if step not in table[status]:
            refused = await till.refuse(code, step, 409, "invalid-state", **bodies.get(step, {}))
            assert refused["status_now"] == status, step
    entries = (await till.service.get(f"/v1/vouchers/{code}/history")).json()["items"]
    for step in sorted(table[status]):
        other = await put_into(till, status, parts=parts, clock=clock)
        body = dict(bodies.get(step, {}))
        if step == "release" and status in {"issued", "partly_used"}:
            await till.do(other, "reserve", amount=100, **GBP)
        if step == "use" and status == "reserved":
            held = (await till.service.get(f"/v1/vouchers/{other}/history")).json()["items"][0]
            body["reservation"] = held["reservation"]
        assert (await till.do(other, step, body))["step"] == step
    assert (await till.service.get(f"/v1/vouchers/{code}/history")).json()["items"] == entries, "nothing has happened"
    await factory.assert_books_balance()
