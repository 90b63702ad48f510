"""Ids, SKUs, categories and codes in the form that shops write them: one definition of each in every request, stored and found as they are.

Each kind had several: SKUs were free text in events and ASCII in offers and at the point of sale, event ids and codes were ASCII without a
slash, and an accent that was written as two characters made a second id.
"""

from typing import Any, get_type_hints
from urllib.parse import quote

import pytest

from guerdon.campaigns.models import ItemsOf
from guerdon.events.models import EventCreate, ItemCreate, MemberRef
from guerdon.offers.models import ItemValue
from guerdon.types import Category, EventId, ExternalId, Sku
from guerdon.vouchers.pos.models import BasketItem
from tests.clients import Caller, problem
from tests.factories import Factory

GBP = {"currency": "GBP"}
IDS = [
    "INV/2026/00017", "Order 00012-003-0004", "#1001", "注文-1001", "Nº 1001", "SO0042 (2)", "a%2Fb", "a+b=c&d?e", "50%", "//", "/replay",
    "preview/1", "Zoë", "👩‍👩‍👧 1", "a;b", "\\", '"', "...",
]  # fmt: skip
REFUSED = [
    "a\u0000b", "a\u007f", "a\u0085b", "\u0080", "a\u009fb", "a\u202eb", "a\u2066b", "a\u2028b", "a\u2029b", "\u200babc", "abc\ufeff", "a\u200eb",
    "a\u00adb", "a\nb",
]  # fmt: skip
CODES = [
    "DANKEFÜR100",
    "10%OFF",
    "BLACK_FRIDAY",
    "VIP.2026",
    "SAVE+20",
    "ΚΑΛΗΜΕΡΑ20",
    "ÉTÉ-2026",
    "50/50",
    "WHO?",
    "#SALE",
    "割引-2026",
]


def path_of(text: str) -> str:
    return quote(text, safe="")


def test_every_kind_of_name_is_declared_once() -> None:
    hints = {
        kind: get_type_hints(kind, include_extras=True)
        for kind in (EventCreate, ItemCreate, MemberRef, ItemsOf, ItemValue, BasketItem)
    }
    assert hints[ItemCreate]["sku"] is hints[BasketItem]["sku"] is hints[ItemValue]["sku"] is Sku
    assert hints[ItemsOf]["skus"].__origin__ == list[Sku]
    assert hints[ItemsOf]["categories"].__origin__ == list[Category]
    assert hints[ItemCreate]["category"] == Category | None
    assert hints[EventCreate]["id"] is EventId
    assert hints[EventCreate]["refund_of"] == hints[EventCreate]["confirms"] == EventId | None
    assert ExternalId in hints[MemberRef]["external_id"].__args__


@pytest.mark.parametrize("text", IDS)
async def test_event_id_is_found_by_its_encoded_path(service: Caller, factory: Factory, text: str) -> None:
    await factory.campaign()
    event = factory.event(id=text, member={"external_id": text}, amount=1000)
    made = await service.post("/v1/events", event)
    assert (made.status_code, made.json()["id"]) == (201, text), made.text
    assert (await service.post("/v1/events", event)).status_code == 200
    assert (await service.get(f"/v1/events/{path_of(text)}")).json()["id"] == text
    assert (await service.post(f"/v1/events/{path_of(text)}/replay")).status_code == 200
    [member] = (await service.get("/v1/members", external_id=text)).json()["items"]
    assert member["external_id"] == text
    refund = factory.event(id=f"{text} back", type="refund", refund_of=text, member={"external_id": text}, amount=400)
    assert sum(award["amount"] for award in (await service.post("/v1/events", refund)).json()["awards"]) < 0
    debit = {"amount": 1, "reference": text}
    assert (await service.post(f"/v1/wallets/{member['id']}:PTS/debit", debit)).status_code == 201
    [entry] = (await service.get(f"/v1/wallets/{member['id']}:PTS/entries", reference=text)).json()["items"]
    assert entry["reference"] == text
    await factory.assert_books_balance()


async def test_encoded_slash_is_a_part_of_its_segment(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    await service.post("/v1/events", factory.event(id="a/b"))
    assert (await service.get("/v1/events/a%2fb")).status_code == 200
    for path in (
        "/v1/events/a/b",
        "/v1%2Fevents/a%2Fb",
        "/v1/events%2Fa%2Fb",
        "/v1/events/a%1Fb",
        "/v1/events/a%252Fb",
        "/v1/events/a%2Fb%2Freplay",
    ):
        problem(await service.get(path), 404, "not-found")


@pytest.mark.parametrize("text", [".", "..", "preview", "bulk"])
async def test_reserved_event_id_is_refused(service: Caller, factory: Factory, text: str) -> None:
    refused = problem(await service.post("/v1/events", factory.event(id=text)), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/id"]


@pytest.mark.parametrize("text", REFUSED)
async def test_character_that_nobody_sees_is_refused(service: Caller, factory: Factory, text: str) -> None:
    item = {"sku": text, "quantity": 1, "unit_price": 1, "category": text}
    event = factory.event(id=text, member={"external_id": text}, items=[item])
    refused = problem(await service.post("/v1/events", event), 422, "validation")
    pointers = ["/id", "/items/0/category", "/items/0/sku", "/member/external_id"]
    assert sorted(error["pointer"] for error in refused["errors"]) == pointers
    value = {"type": "item", "sku": text, "quantity": 1}
    refused = problem(await service.post("/v1/offers", {"name": "x", "kind": "item", "value": value}), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/value/sku"]
    offer = await factory.offer(stock=100)
    refused = problem(await service.post(f"/v1/offers/{offer}/codes/shared", {"code": f"CODE{text}", "uses": 1}), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/code"]
    problem(await service.get(f"/v1/vouchers/{path_of(text)}"), 404, "not-found")


@pytest.mark.parametrize("text", ["a\u0080", "a\u0085b", "a\u009fb", "a\u2028b"])
async def test_text_does_not_contain_c1_controls_or_line_separators(service: Caller, factory: Factory, text: str) -> None:
    wallet = await factory.wallet(10)
    body = {"amount": 1, "reason": text, "metadata": {"note": text}}
    refused = problem(await service.post(f"/v1/wallets/{wallet}/credit", body), 422, "validation")
    assert sorted(error["pointer"] for error in refused["errors"]) == ["/metadata/note", "/reason"]
    await factory.assert_books_balance()


async def test_article_is_the_same_in_purchases_and_baskets(service: Caller, factory: Factory) -> None:
    sku = "ØL-33CL 🍺"
    await factory.campaign(items={"skus": [sku]}, award={"type": "fixed", "amount": 7})
    item = {"sku": sku, "quantity": 2, "unit_price": 500}
    made = (await service.post("/v1/events", factory.event(amount=1000, items=[item]))).json()
    assert [award["amount"] for award in made["awards"]] == [7]
    offer = await factory.offer(kind="item", value={"type": "item", "sku": sku, "quantity": 1})
    code = (await factory.voucher(offer, await factory.member()))["code"]
    answer = await service.post(f"/v1/vouchers/{code}/use", {"amount": 1000, **GBP, "items": [item]})
    assert (answer.status_code, answer.json()["discount"]) == (200, 500)
    await factory.assert_books_balance()


@pytest.mark.parametrize("code", CODES)
async def test_shared_code_is_found_however_it_is_typed(service: Caller, factory: Factory, code: str) -> None:
    offer = await factory.offer(stock=100)
    made = await service.post(f"/v1/offers/{offer}/codes/shared", {"code": code.lower(), "uses": 5})
    assert made.status_code in {200, 201, 202}, made.text
    assert made.json()["code"] == code
    typed = [code, code.lower(), code.swapcase(), code.replace("-", ""), code.replace("-", "\u2013"), f" {code}\u00a0"]
    for number, each in enumerate(typed):
        read = await service.get(f"/v1/vouchers/{path_of(each)}")
        assert (read.status_code, read.json()["code"]) == (200, code), each
        if number < 5:
            use = {"amount": 2000, **GBP, "reference": f"order/{number}"}
            assert (await service.post(f"/v1/vouchers/{path_of(each)}/use", use)).status_code == 200
    problem(await service.post(f"/v1/vouchers/{path_of(code)}/use", {"amount": 2000, **GBP}), 409, "invalid-state")
    assert (await service.get(f"/v1/vouchers/{path_of(code)}/qr.svg")).status_code == 200
    for again in typed[:5]:
        refused = await service.post(f"/v1/offers/{offer}/codes/shared", {"code": again, "uses": 5})
        assert [error["pointer"] for error in problem(refused, 422, "validation")["errors"]] == ["/code"]
    await factory.assert_books_balance()


@pytest.mark.parametrize(("code", "typed"), [("STRASSE", "straße"), ("straße", "STRASSE"), ("ΣΟΦΟΣ", "σοφος"), ("ΣΟΦΟΣ", "σοφοσ")])
async def test_codes_are_compared_by_their_folded_letters(service: Caller, factory: Factory, code: str, typed: str) -> None:
    offer = await factory.offer(stock=100)
    assert (await service.post(f"/v1/offers/{offer}/codes/shared", {"code": code, "uses": 5})).status_code < 300
    assert (await service.get(f"/v1/vouchers/{path_of(typed)}")).status_code == 200


@pytest.mark.parametrize("code", ["A B-", "----", "  - "])
async def test_code_has_four_characters_besides_separators(service: Caller, factory: Factory, code: str) -> None:
    offer = await factory.offer(stock=100)
    refused = problem(await service.post(f"/v1/offers/{offer}/codes/shared", {"code": code, "uses": 5}), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/code"]


@pytest.mark.parametrize(("stored", "asked"), [("Zo\u00eb", "Zoe\u0308"), ("Zoe\u0308", "Zo\u00eb")])
async def test_accent_written_as_two_characters_is_the_same(service: Caller, factory: Factory, stored: str, asked: str) -> None:
    await factory.campaign(items={"categories": [stored]}, award={"type": "fixed", "amount": 7})
    item: dict[str, Any] = {"sku": asked, "quantity": 1, "unit_price": 100, "category": asked}
    event = factory.event(id=stored, member={"external_id": stored}, items=[item], amount=100)
    made = (await service.post("/v1/events", event)).json()
    assert ([award["amount"] for award in made["awards"]], made["id"]) == ([7], "Zo\u00eb")
    assert (await service.post("/v1/events", {**event, "id": asked, "member": {"external_id": asked}})).status_code == 200
    assert (await service.get(f"/v1/events/{path_of(asked)}")).json()["id"] == "Zo\u00eb"
    [member] = (await service.get("/v1/members", external_id=asked)).json()["items"]
    assert member["external_id"] == "Zo\u00eb"
    assert (await service.post("/v1/members", {"external_id": asked})).status_code == 409
    offer = await factory.offer(stock=100)
    assert (await service.post(f"/v1/offers/{offer}/codes/shared", {"code": f"{stored}-26", "uses": 5})).status_code < 300
    assert (await service.get(f"/v1/vouchers/{path_of(asked)}26")).status_code == 200
    wallet = f"{member['id']}:PTS"
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1, "reference": stored})).status_code == 201
    problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1, "reference": asked}), 409, "reference-reused")
    await factory.assert_books_balance()
