"""Codes of a batch at the till: opened by their first step; shared ones with so many uses, of which each member has so many."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from guerdon.wiring.services import Services
from tests.api.test_point_of_sale import CARD, GBP, Till
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

BASKET = {"amount": 2000, **GBP}


@pytest.fixture
def till(service: Caller, factory: Factory) -> Till:
    return Till(service, factory)


async def codes_of(service: Caller, services: Services, offer: str, count: int) -> list[str]:
    """New codes of an offer, made by a worker."""
    begun = await service.post(f"/v1/offers/{offer}/codes", {"count": count})
    assert begun.status_code == 202, begun.text
    await services.code_generation.generate_open()
    export = await service.get(f"/v1/batches/{begun.json()['id']}/codes.csv")
    assert export.status_code == 200, export.text
    return [line.split(",")[0] for line in export.text.splitlines()[1:]]


async def shared(service: Caller, offer: str, uses: int, code: str = "WELCOME-10") -> str:
    answer = await service.post(f"/v1/offers/{offer}/codes/shared", {"code": code, "uses": uses})
    assert answer.status_code == 201, answer.text
    return code


async def test_first_step_turns_a_code_into_one_voucher(
    till: Till, service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    """Many at once, and there is one voucher; what is only tried leaves nothing behind."""
    offer = await factory.offer(stock=10, voucher_valid_days=30)
    one, other, late = await codes_of(service, services, offer, 3)
    assert (await till.do(one, "validate", BASKET))["discount"] == 500
    assert await services.database.raw["vouchers"].count_documents({}) == 0
    assert await till.status(one) == "issued"
    answers = await asyncio.gather(*(service.post(f"/v1/vouchers/{one}/use", BASKET) for _ in range(8)))
    assert Counter(answer.json().get("status_now") for answer in answers) == {None: 1, "used": 7}
    assert [step["step"] for step in (await service.get(f"/v1/vouchers/{one}/history")).json()["items"]] == ["use", "issue"]
    reserved = await till.do(other, "reserve", key="r")
    assert await till.do(other, "reserve", key="r") == reserved
    await till.do(other, "release")
    assert (await till.do(other, "cancel"))["voucher"]["status"] == "cancelled"
    assert (await service.get(f"/v1/offers/{offer}")).json()["issued"] == 3, "what was printed stays counted"
    clock.advance(days=31)
    assert (await till.refuse(late, "use", 409, "invalid-state", **BASKET))["status_now"] == "expired"
    assert await till.status(late) == "expired"
    await factory.assert_books_balance()


async def test_codes_of_a_priced_offer_are_issued_without_a_price(
    till: Till, service: Caller, services: Services, factory: Factory
) -> None:
    """`verify` held the missing price of generated and shared codes for a change of the voucher."""
    offer = await factory.offer(price={"asset": "PTS", "amount": 10}, cancellation={"allowed": True, "days": 14})
    used, cancelled = await codes_of(service, services, offer, 2)
    await till.do(used, "use", **BASKET)
    await till.do(cancelled, "reserve", **BASKET)
    await till.do(cancelled, "release")
    assert (await till.do(cancelled, "cancel"))["voucher"]["status"] == "cancelled"
    await till.do(await shared(service, offer, 5), "use", **BASKET)
    await factory.assert_books_balance()


async def test_gift_card_without_an_owner_can_be_used_and_loaded(
    till: Till, service: Caller, services: Services, factory: Factory, anonymous: Caller
) -> None:
    """Whoever has the code may use it, or load it into a wallet."""
    [code] = await codes_of(service, services, await factory.offer(**CARD), 1)
    assert (await till.do(code, "use", amount=300, **GBP))["voucher"]["balance"] == 700
    ada = await anonymous.post("/v1/auth/register", {"email": "ada@example.com", "password": "correct horse battery"})
    member = anonymous.with_token(
        (await anonymous.post("/v1/auth/login", {"email": "ada@example.com", "password": "correct horse battery"})).json()[
            "access_token"
        ]
    )
    loaded = await member.post(f"/v1/vouchers/{code}/load", {})
    assert (loaded.status_code, loaded.json()["loaded"]) == (200, 700), loaded.text
    assert await factory.balance(f"{ada.json()['id']}:GBP") == 700
    for answer in (await member.post(f"/v1/vouchers/{code}/load", {}), await member.post("/v1/vouchers/NOTHING/load", {})):
        problem(answer, 404, "not-found")
    await factory.assert_books_balance()


async def test_shared_code_has_a_limited_number_of_uses(till: Till, service: Caller, factory: Factory) -> None:
    code = await shared(service, await factory.offer(stock=7), 5)
    answers = await asyncio.gather(
        *(service.post(f"/v1/vouchers/{code}/use", {**BASKET, "reference": f"order-{n}"}) for n in range(20))
    )
    assert Counter(answer.json().get("code", "done") for answer in answers) == {"done": 5, "invalid-state": 15}
    done = [answer.json() for answer in answers if answer.status_code == 200]
    assert sorted(answer["voucher"]["uses_left"] for answer in done) == [0, 1, 2, 3, 4]
    await till.do(code, "unuse", use=done[0]["transaction_id"])
    assert (await till.refuse(code, "unuse", 409, "invalid-state", use=done[0]["transaction_id"]))["status_now"] == "partly_used"
    standing = {**BASKET, "reference": done[1]["reference"]}
    problem(await service.post(f"/v1/vouchers/{code}/use", standing), 409, "reference-reused")
    again = await till.do(code, "use", BASKET, reference=done[0]["reference"])
    await till.do(code, "unuse", use=again["transaction_id"])
    assert (await till.do(code, "cancel"))["voucher"]["uses_left"] == 0
    await factory.assert_books_balance()


async def test_shared_code_has_a_limit_per_member(till: Till, service: Caller, factory: Factory, clock: ManualClock) -> None:
    """A reservation counts while it is active, and its use once; what is released or has ended counts no more."""
    code = await shared(service, await factory.offer(per_member_limit=2), 50)
    ada, bob = [await factory.member() for _ in range(2)]
    assert (await till.refuse(code, "use", 422, "validation", **BASKET))["errors"][0]["pointer"] == "/member_id"
    problem(await service.post(f"/v1/vouchers/{code}/use", {**BASKET, "member_id": "mem_" + "0" * 32}), 404, "not-found")
    held = [await till.do(code, "reserve", BASKET, member_id=ada, expires_in_seconds=60) for _ in range(2)]
    for step in ("reserve", "use"):
        refused = await till.refuse(code, step, 409, "limit-reached", **BASKET, member_id=ada)
        assert (refused["limit"], refused["redeemed"]) == (2, 2)
    tried = await till.do(code, "validate", BASKET, member_id=ada)
    assert (tried["valid"], tried["problem"]["code"]) == (False, "limit-reached")
    used = await till.do(code, "use", BASKET, member_id=ada, reservation=held[0]["reservation"])
    await till.refuse(code, "use", 409, "limit-reached", **BASKET, member_id=ada)
    await till.do(code, "use", BASKET, member_id=bob)
    await till.do(code, "release", reservation=held[1]["reservation"])
    last = await till.do(code, "reserve", BASKET, member_id=ada, expires_in_seconds=60)
    clock.advance(seconds=60)
    assert (await till.refuse(code, "use", 409, "invalid-state", **BASKET, member_id=ada, reservation=last["reservation"]))[
        "status_now"
    ] == "partly_used"
    answers = await asyncio.gather(*(service.post(f"/v1/vouchers/{code}/use", {**BASKET, "member_id": ada}) for _ in range(6)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 409: 5}
    await till.do(code, "unuse", use=used["transaction_id"])
    await till.do(code, "use", BASKET, member_id=ada)
    await till.refuse(code, "use", 409, "limit-reached", **BASKET, member_id=ada)
    await factory.assert_books_balance()


async def test_external_code_is_used_once(till: Till, service: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer(kind="external_code", value=None)
    sent: Any = await service.send("POST", f"/v1/offers/{offer}/codes/import", b"AAA-111\r\nBBB-222\r\n", content_type="text/csv")
    assert sent.status_code == 202, sent.text
    await services.code_generation.generate_open()
    code = (await till.redeem(offer, await factory.member()))["code"]
    assert code == "AAA-111"
    used = await till.do(code, "use", reference="order-1")
    assert (used["discount"], used["voucher"]["status"], used["voucher"]["code"]) == (None, "used", code)
    gone = (await till.redeem(offer, await factory.member()))["code"]
    await till.do(gone, "cancel")
    assert (await service.get(f"/v1/offers/{offer}")).json()["issued"] == 2, "it is never dealt again"
    await factory.assert_books_balance()
