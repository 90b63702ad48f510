"""Codes over HTTP: made, named, imported, exported, printed and shown as pictures."""

import asyncio
import csv
import io
import re
from typing import Any

import pytest

from guerdon.database import Database
from guerdon.offers.code_patterns import normalise, parse_pattern
from guerdon.vouchers.codes.generation import EXHAUSTED, CodeGeneration
from guerdon.vouchers.codes.models import CODE_BATCHES, STAGED_CODES, CodeBatch
from guerdon.vouchers.models import POOL_CODES, VOUCHER_CODES
from guerdon.wiring.services import Services
from tests.clients import Caller, problem
from tests.factories import Factory

PATTERN = "SUMMER-#####-#####-#####"


@pytest.fixture
def codes(service: Caller, services: Services) -> "Codes":
    return Codes(service, services)


class Codes:
    """Asks for codes, and does a worker's work."""

    def __init__(self, service: Caller, services: Services) -> None:
        self.service = service
        self.work = services.code_generation.generate_open

    async def generate(self, offer: str, count: int, **more: Any) -> dict[str, Any]:
        answer = await self.service.post(f"/v1/offers/{offer}/codes", {"count": count, **more})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def import_(self, offer: str, text: str | bytes, **more: Any) -> Any:
        raw = text.encode() if isinstance(text, str) else text
        return await self.service.send("POST", f"/v1/offers/{offer}/codes/import", raw, content_type="text/csv", **more)

    async def batch(self, batch_id: str) -> dict[str, Any]:
        answer = await self.service.get(f"/v1/batches/{batch_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def export(self, batch_id: str) -> list[list[str]]:
        answer = await self.service.get(f"/v1/batches/{batch_id}/codes.csv")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"] == f'attachment; filename="{batch_id}.csv"'
        return list(csv.reader(io.StringIO(answer.text)))

    async def issued(self, offer: str) -> tuple[int, int | None]:
        body = (await self.service.get(f"/v1/offers/{offer}")).json()
        return body["issued"], body["stock"]


def slow(services: Services, slice_max: int = 7) -> CodeGeneration:
    """A worker that takes small steps."""
    return CodeGeneration(
        services.ledger, services.offers, database=services.database, clock=services.clock, slice_max=slice_max, cards_max=4
    )


# --- made ----------------------------------------------------------------------------------------------------------------


async def test_codes_are_counted_immediately_generated_later_and_exported(codes: Codes, factory: Factory) -> None:
    offer = await factory.offer(stock=1000, voucher_valid_days=10)
    batch = await codes.generate(offer, 600, pattern=PATTERN.lower())
    assert (batch["status"], batch["wanted"], batch["made"], batch["pattern"]) == ("running", 600, 0, PATTERN)
    assert batch["expires_at"] is not None
    assert await codes.issued(offer) == (600, 1000)
    problem(await codes.service.get(f"/v1/batches/{batch['id']}/codes.csv"), 409, "invalid-state")
    problem(await codes.service.get(f"/v1/batches/{batch['id']}/sheet"), 409, "invalid-state")

    assert await codes.work() == 600
    assert await codes.work() == 0
    done = await codes.batch(batch["id"])
    assert (done["status"], done["made"]) == ("done", 600)
    header, *rows = await codes.export(batch["id"])
    assert header == ["code", "voucher"]
    known = [normalise(code) for code, _ in rows]
    assert len(set(known)) == 600
    assert all(map(parse_pattern(PATTERN).accepts, known))
    assert rows[0][0].startswith("SUMMER-")
    assert len(rows[0][0]) == len(PATTERN)
    await factory.assert_books_balance()


async def test_code_batch_larger_than_the_stock_is_refused(codes: Codes, factory: Factory) -> None:
    offer = await factory.offer(stock=10)
    refused = problem(await codes.service.post(f"/v1/offers/{offer}/codes", {"count": 11}), 409, "sold-out")
    assert (refused["stock"], refused["left"], refused["wanted"]) == (10, 10, 11)
    await codes.generate(offer, 10)
    problem(await codes.service.post(f"/v1/offers/{offer}/codes/shared", {"code": "MANY", "uses": 1}), 409, "sold-out")
    assert await codes.issued(offer) == (10, 10)
    await factory.assert_books_balance()


async def test_guessable_code_pattern_is_refused_with_the_required_length(codes: Codes, factory: Factory) -> None:
    offer = await factory.offer()
    path = f"/v1/offers/{offer}/codes"
    refused = problem(await codes.service.post(path, {"count": 1, "pattern": "SUMMER-####-####"}), 422, "validation")
    assert "15 #" in refused["errors"][0]["detail"]
    assert "34 bits" in refused["errors"][0]["detail"]
    problem(await codes.service.post(path, {"count": 1, "pattern": "SUMMER"}), 422, "validation")
    problem(await codes.service.post(path, {"count": 1_000_001}), 422, "validation")
    value = {"type": "fixed", "amount": 500, "currency": "GBP"}
    short = {"name": "x", "kind": "discount", "value": value, "code_pattern": "A-####"}
    problem(await codes.service.post("/v1/offers", short), 422, "validation")
    problem(await codes.service.post("/v1/offers/off_" + "0" * 32 + "/codes", {"count": 1}), 404, "not-found")
    assert (await codes.service.get(f"/v1/offers/{offer}/batches")).json() == {"items": [], "next_cursor": None}


async def test_repeated_request_creates_one_code_batch(codes: Codes, factory: Factory) -> None:
    offer = await factory.offer()
    path = f"/v1/offers/{offer}/codes"
    first, second = await asyncio.gather(*(codes.service.post(path, {"count": 5}, key="once") for _ in range(2)))
    assert first.json() == second.json()
    await codes.work()
    third = await codes.service.post(path, {"count": 5}, key="once")
    assert third.json() == first.json(), "the first answer again, whatever became of it"
    assert third.headers["idempotency-replayed"] == "true"
    problem(await codes.service.post(path, {"count": 6}, key="once"), 422, "idempotency-key-reused")
    assert await codes.issued(offer) == (5, None)
    await factory.assert_books_balance()


async def test_existing_codes_are_drawn_again_until_the_pattern_is_exhausted(
    codes: Codes, factory: Factory, services: Services, database: Database
) -> None:
    """A pattern with 29 codes, which nobody could have asked for."""
    offer = await factory.offer(stock=100)
    for count, made in ((10, 10), (10, 10), (10, 0)):
        batch = await codes.generate(offer, count)
        await database.raw[CODE_BATCHES].update_one({"_id": batch["id"]}, {"$set": {"pattern": "A##"}})
        for _ in range(5):
            await codes.work()
        after = await codes.batch(batch["id"])
        assert after["made"] == made
        assert after["status"] == ("done" if made else "failed")
    assert after["detail"] == EXHAUSTED
    assert await database.raw[VOUCHER_CODES].count_documents({"offer": offer}) == 20
    assert await codes.issued(offer) == (20, 100), "what was never made is given back"
    await factory.assert_books_balance()


async def test_cancelled_code_batch_leaves_no_codes(codes: Codes, factory: Factory, services: Services, database: Database) -> None:
    offer = await factory.offer(stock=1000)
    batch = await codes.generate(offer, 1000)
    stored = await services.database.collection(CODE_BATCHES, CodeBatch).get(batch["id"])
    assert stored is not None
    assert await slow(services, 100)._generate(stored) == 100
    answers = await asyncio.gather(*(codes.service.post(f"/v1/batches/{batch['id']}/cancel") for _ in range(3)))
    assert [answer.json()["status"] for answer in answers] == ["cancelled"] * 3
    assert await services.code_generation._generate(stored) == 0, "who still believes that it runs"
    await codes.work()
    assert await database.raw[VOUCHER_CODES].count_documents({}) == 0
    assert await codes.issued(offer) == (0, 1000)
    assert await codes.work() == 0

    other = await codes.generate(offer, 1)
    await codes.work()
    refused = problem(await codes.service.post(f"/v1/batches/{other['id']}/cancel"), 409, "invalid-state")
    assert refused["status_now"] == "done"
    assert await codes.issued(offer) == (1, 1000)
    await factory.assert_books_balance()


async def test_two_workers_at_once_make_each_code_once(
    codes: Codes, factory: Factory, services: Services, other_services: Services, database: Database
) -> None:
    offer = await factory.offer()
    batch = await codes.generate(offer, 100)
    made = await asyncio.gather(slow(services).generate_open(), slow(other_services).generate_open())
    await codes.work()
    assert sum(made) == 100
    assert await database.raw[VOUCHER_CODES].count_documents({"batch": batch["id"]}) == 100
    assert (await codes.batch(batch["id"]))["made"] == 100
    await factory.assert_books_balance()


async def test_generated_gift_cards_have_their_balance_immediately(
    codes: Codes, factory: Factory, services: Services, database: Database
) -> None:
    await codes.service.post("/v1/assets", {"code": "GBP", "kind": "currency", "scale": 2})
    offer = await factory.offer(kind="gift_card", value={"type": "fixed", "amount": 2500, "currency": "GBP"}, stock=50)
    problem(await codes.service.post(f"/v1/offers/{offer}/codes", {"count": 10_001}), 422, "validation")
    batch = await codes.generate(offer, 10)
    stored = await services.database.collection(CODE_BATCHES, CodeBatch).get(batch["id"])
    assert stored is not None
    # A worker that died before it wrote down how far it was: the next one makes the same cards again, and they are the same.
    assert [await slow(services)._issue_cards(stored) for _ in range(2)] == [4, 4]
    refused = problem(await codes.service.post(f"/v1/batches/{batch['id']}/cancel"), 409, "invalid-state")
    assert refused["status_now"] == "running"
    await codes.work()
    rows = (await codes.export(batch["id"]))[1:]
    assert len({code for code, _ in rows}) == len({voucher for _, voucher in rows}) == 10
    card = (await codes.service.get(f"/v1/vouchers/{rows[0][0]}")).json()
    assert (card["id"], card["balance"], card["kind"], card["status"]) == (rows[0][1], 2500, "gift_card", "issued")
    balances = [account["balance"] async for account in database.raw["accounts"].find({"kind": "gift_card"})]
    assert balances == [2500] * 10
    assert await codes.issued(offer) == (10, 50)
    await factory.assert_books_balance()


# --- shared --------------------------------------------------------------------------------------------------------------


async def test_shared_code_is_unique_and_counts_all_its_uses(codes: Codes, factory: Factory) -> None:
    offer = await factory.offer(stock=500)
    path = f"/v1/offers/{offer}/codes/shared"
    answer = await codes.service.post(path, {"code": "welcome-10", "uses": 400}, key="shared")
    assert answer.status_code == 201, answer.text
    batch = answer.json()
    assert (batch["kind"], batch["status"], batch["code"]) == ("shared", "done", "WELCOME-10")
    again = await codes.service.post(path, {"code": "welcome-10", "uses": 400}, key="shared")
    assert again.json() == batch
    taken = problem(await codes.service.post(path, {"code": "WELCOME10", "uses": 1}), 422, "validation")
    assert taken["errors"] == [{"pointer": "/code", "detail": "the code exists already"}]
    voucher = (await codes.service.get("/v1/vouchers/Welcome10")).json()
    assert (voucher["id"], voucher["uses_left"], voucher["member_id"]) == (batch["voucher"], 400, None)
    assert await codes.export(batch["id"]) == [["code", "voucher"], ["WELCOME-10", batch["voucher"]]]
    assert await codes.issued(offer) == (400, 500)
    problem(await codes.service.post(f"/v1/batches/{batch['id']}/cancel"), 409, "invalid-state")
    await factory.assert_books_balance()


async def test_concurrent_requests_for_one_shared_code_have_one_winner(codes: Codes, factory: Factory) -> None:
    offers = [await factory.offer() for _ in range(2)]
    paths = [f"/v1/offers/{offers[number % 2]}/codes/shared" for number in range(10)]
    answers = await asyncio.gather(*(codes.service.post(path, {"code": "RACE", "uses": 3}) for path in paths))
    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 9
    assert sum([(await codes.issued(offer))[0] for offer in offers]) == 3
    await factory.assert_books_balance()


# --- imported ------------------------------------------------------------------------------------------------------------


async def test_imported_codes_become_available_together_and_in_order(codes: Codes, factory: Factory, database: Database) -> None:
    offer = await factory.offer(kind="external_code", value=None)
    member = await factory.member()
    answer = await codes.import_(offer, "code\nAbc-1\n=2+2\nXyz 3\n", key="file")
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert (batch["kind"], batch["status"], batch["wanted"]) == ("import", "running", 3)
    redeem = f"/v1/offers/{offer}/redeem"
    problem(await codes.service.post(redeem, {"member_id": member}), 409, "sold-out")
    assert await codes.issued(offer) == (0, 0)
    again = await codes.import_(offer, "code\nAbc-1\n=2+2\nXyz 3\n", key="file")
    assert again.json() == batch

    await codes.work()
    assert (await codes.batch(batch["id"]))["status"] == "done"
    assert await codes.issued(offer) == (0, 3)
    assert await database.raw[STAGED_CODES].count_documents({}) == 0
    again = await codes.import_(offer, "code\nAbc-1\n=2+2\nXyz 3\n", key="file")
    assert again.json() == batch, "its codes exist by now, and that is no reason"
    dealt = [(await codes.service.post(redeem, {"member_id": member})).json()["voucher"]["code"] for _ in range(3)]
    assert dealt == ["Abc-1", "=2+2", "Xyz 3"]
    problem(await codes.service.post(redeem, {"member_id": member}), 409, "sold-out")
    assert await codes.export(batch["id"]) == [["code", "voucher"], ["Abc-1", ""], ["'=2+2", ""], ["Xyz 3", ""]]
    assert (await codes.service.get("/v1/vouchers/abc1")).json()["code"] == "Abc-1"
    await factory.assert_books_balance()


async def test_invalid_import_lines_are_reported_and_nothing_is_imported(
    codes: Codes, factory: Factory, database: Database
) -> None:
    offer, other = [await factory.offer(kind="external_code", value=None) for _ in range(2)]
    assert (await codes.import_(other, "TAKEN-1\nTAKEN-2")).status_code == 202
    await codes.work()
    refused = problem(await codes.import_(offer, "GOOD\ngood\nA,B\nTAKEN1\n\x01\n"), 422, "lines-refused")
    assert refused["count"] == 4
    assert [line["line"] for line in refused["lines"]] == [2, 3, 4, 5]
    assert refused["lines"][2]["detail"] == "the code exists already"
    many = problem(await codes.import_(offer, "A\u0085\n" * 150), 422, "lines-refused")
    assert (many["count"], len(many["lines"])) == (150, 100)
    problem(await codes.import_(offer, "code\n\n"), 422, "validation")
    assert await database.raw[POOL_CODES].count_documents({"owner": offer}) == 0
    assert (await codes.service.get(f"/v1/offers/{offer}/batches")).json()["items"] == []
    assert await codes.issued(offer) == (0, 0)
    await factory.assert_books_balance()


async def test_invalid_code_import_is_refused(codes: Codes, factory: Factory) -> None:
    external, made = await factory.offer(kind="external_code", value=None), await factory.offer()
    path = f"/v1/offers/{external}/codes/import"
    problem(await codes.service.post(path, {"count": 1}), 415, "unsupported-media-type")
    problem(await codes.import_(external, b"x" * (4 * 1024 * 1024 + 1)), 413, "body-too-large")
    problem(await codes.import_(external, "A", key=None), 400, "idempotency-key-missing")
    problem(await codes.import_(made, "A"), 422, "validation")
    problem(await codes.service.post(f"/v1/offers/{external}/codes", {"count": 1}), 422, "validation")
    problem(await codes.service.post(f"/v1/offers/{external}/codes/shared", {"code": "MANY", "uses": 1}), 422, "validation")
    await codes.service.post(f"/v1/offers/{external}/end")
    assert problem(await codes.import_(external, "A"), 409, "invalid-state")["status_now"] == "ended"


async def test_imports_of_one_offer_run_in_order_without_gaps(codes: Codes, factory: Factory, services: Services) -> None:
    """The second has a code of the first by the time it is its turn; the third was stopped; the fourth follows the first."""
    offer = await factory.offer(kind="external_code", value=None)
    texts = ["A1\nA2\nA3", "B1\nB2\nB3\nA2", "C1", "D1\nD2"]
    batches = [(await codes.import_(offer, text)).json()["id"] for text in texts]
    assert (await codes.service.post(f"/v1/batches/{batches[2]}/cancel")).status_code == 200
    await slow(services, 2).generate_open()
    states = [await codes.batch(batch) for batch in batches]
    assert [state["status"] for state in states] == ["done", "failed", "cancelled", "done"]
    assert states[1]["detail"] == "1 of its codes were created by others during the import"
    assert await codes.issued(offer) == (0, 5)
    member = await factory.member()
    dealt = [
        (await codes.service.post(f"/v1/offers/{offer}/redeem", {"member_id": member})).json()["voucher"]["code"] for _ in range(5)
    ]
    assert dealt == ["A1", "A2", "A3", "D1", "D2"]
    assert (await codes.import_(offer, "B1\nC1")).status_code == 202, "what came to nothing has left nothing"
    await codes.work()
    assert await codes.issued(offer) == (5, 7)
    page = (await codes.service.get(f"/v1/offers/{offer}/batches", limit=3)).json()
    rest = (await codes.service.get(f"/v1/offers/{offer}/batches", limit=3, cursor=page["next_cursor"])).json()
    assert [batch["id"] for batch in [*page["items"], *rest["items"]]][1:] == batches[::-1]
    await factory.assert_books_balance()


# --- pictures ------------------------------------------------------------------------------------------------------------


async def test_qr_code_is_served_to_authorized_callers_only(
    codes: Codes, factory: Factory, anonymous: Caller, services: Services
) -> None:
    offer = await factory.offer()
    member, token = await _member_with_token(services, anonymous)
    _, foreign = await _member_with_token(services, anonymous)
    answer = await codes.service.post(f"/v1/offers/{offer}/redeem", {"member_id": member})
    code = answer.json()["voucher"]["code"]
    for caller in (codes.service, anonymous.with_token(token)):
        svg = await caller.get(f"/v1/vouchers/{code}/qr.svg")
        png = await caller.get(f"/v1/vouchers/{code}/qr.png", scale=2, border=0)
        assert (svg.status_code, svg.headers["content-type"], svg.headers["cache-control"]) == (200, "image/svg+xml", "no-store")
        assert (png.status_code, png.headers["content-type"], png.headers["cache-control"]) == (200, "image/png", "no-store")
        assert svg.content.startswith(b"<?xml")
        assert png.content.startswith(b"\x89PNG")
    unknown = await anonymous.with_token(foreign).get("/v1/vouchers/ABCDE/qr.svg")
    strange = await anonymous.with_token(foreign).get(f"/v1/vouchers/{code}/qr.svg")
    assert {**problem(unknown, 404, "not-found"), "request_id": ""} == {**problem(strange, 404, "not-found"), "request_id": ""}
    problem(await codes.service.get(f"/v1/vouchers/{code}/qr.png", scale=21), 422, "validation")
    problem(await codes.service.get(f"/v1/vouchers/{code}/qr.png", border=-1), 422, "validation")


async def test_qr_code_has_a_size_in_print_and_scales(codes: Codes, factory: Factory) -> None:
    """Without a view box an image that a style sheet enlarges shows its modules at one pixel each: 6 mm.

    The other places: the sheet, and the image of a second factor (test_second_factor.py).
    """
    offer = await factory.offer()
    voucher = await factory.voucher(offer, await factory.member())
    answer = await codes.service.get(f"/v1/vouchers/{voucher['code']}/qr.svg", scale=8, border=4)
    tag = re.search(r'<svg [^>]*width="([\d.]+)mm" height="([\d.]+)mm" viewBox="0 0 ([\d.]+) ([\d.]+)"', answer.text)
    assert tag is not None, answer.text[:300]
    [size] = {float(number) for number in tag.groups()}
    modules = round(size / (8 * 25.4 / 96))
    assert modules in range(29, 60, 4), "21 modules or 4 more for each version, and the border"
    png = await codes.service.get(f"/v1/vouchers/{voucher['code']}/qr.png", scale=8, border=4)
    per_metre = int.from_bytes(png.content[png.content.index(b"pHYs") + 4 :][:4])
    assert int.from_bytes(png.content[16:20]) == modules * 8
    assert abs(modules * 8 / per_metre * 1000 - size) < 0.2, "both are printed in one size"
    batch = await codes.generate(offer, 2)
    await codes.work()
    sheet = (await codes.service.get(f"/v1/batches/{batch['id']}/sheet")).text
    for part in sheet.split("<svg")[1:]:
        tag = part.partition(">")[0]
        assert "viewBox=" in tag
        assert "width" not in tag, "the style of the sheet sets it"
    assert "svg{width:32mm;height:32mm}" in sheet


async def test_codes_of_an_unfinished_code_batch_are_not_found(
    codes: Codes, factory: Factory, services: Services, database: Database
) -> None:
    offer = await factory.offer()
    batch = await codes.generate(offer, 1)
    stored = await services.database.collection(CODE_BATCHES, CodeBatch).get(batch["id"])
    assert stored is not None
    await services.code_generation._generate(stored)
    row = await database.raw[VOUCHER_CODES].find_one({"batch": batch["id"]})
    assert row is not None
    problem(await codes.service.get(f"/v1/vouchers/{row['_id']}/qr.svg"), 404, "not-found")
    await codes.work()
    assert (await codes.service.get(f"/v1/vouchers/{row['_id']}/qr.svg")).status_code == 200


async def test_print_sheet_has_every_code_once_and_loads_nothing(codes: Codes, factory: Factory) -> None:
    offer = await factory.offer(name="<script>alert(1)</script>", voucher_valid_days=1)
    batch = await codes.generate(offer, 7, pattern=PATTERN)
    await codes.work()
    shown = {code for code, _ in (await codes.export(batch["id"]))[1:]}
    path, found, pages = f"/v1/batches/{batch['id']}/sheet?codes=3", [], 0
    while path:
        answer = await codes.service.client.get(path, headers={"authorization": f"Bearer {codes.service.token}"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        assert "<script" not in answer.text
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        found += [part.partition("</code>")[0] for part in answer.text.split("<code>")[1:]]
        pages += 1
        assert f"{3 * pages - 2} to {min(3 * pages, 7)} of 7" in answer.text
        path = answer.links.get("next", {}).get("url", "")
    assert pages == 3
    assert len(found) == 7
    assert set(found) == shown
    problem(await codes.service.get(f"/v1/batches/{batch['id']}/sheet", place="QQ"), 422, "validation")
    problem(await codes.service.get(f"/v1/batches/{batch['id']}/sheet", codes=61), 422, "validation")


async def _member_with_token(services: Services, anonymous: Caller) -> tuple[str, str]:
    number = len(_MADE)
    _MADE.append(number)
    body = {"email": f"codes-{number}@example.com", "password": "correct horse battery staple"}
    answer = await anonymous.post("/v1/auth/register", body)
    assert answer.status_code == 201, answer.text
    login = await anonymous.post("/v1/auth/login", body)
    return answer.json()["id"], login.json()["access_token"]


_MADE: list[int] = []
