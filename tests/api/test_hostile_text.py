"""Hostile text in every field, path and parameter: refused, or kept as text and nothing else."""

from typing import Any
from urllib.parse import quote

import pytest

from guerdon.database import Database
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.serving import NOBODY, count_rows

OPERATORS: list[Any] = [{"$gt": ""}, {"$ne": None}, {"$regex": ".*"}, {"$where": "sleep(5000)"}, ["a"], 5, True]
CONTROL = ["a\x00b", "a\nb", "a\r\nb", "a\x1b[31mb", "\x7f", "a\u202eb", "a\u2066b", "line\n"]
FIELDS = {
    "credit reason": ("/v1/wallets/{wallet}/credit", "/reason"),
    "credit reference": ("/v1/wallets/{wallet}/credit", "/reference"),
    "debit reason": ("/v1/wallets/{wallet}/debit", "/reason"),
    "debit reference": ("/v1/wallets/{wallet}/debit", "/reference"),
    "transfer reason": ("/v1/transfers", "/reason"),
    "transfer reference": ("/v1/transfers", "/reference"),
    "external id": ("/v1/members", "/external_id"),
    "event id": ("/v1/events", "/id"),
    "event type": ("/v1/events", "/type"),
    "event currency": ("/v1/events", "/currency"),
    "event time": ("/v1/events", "/occurred_at"),
    "event member": ("/v1/events", "/member/external_id"),
    "event sku": ("/v1/events", "/items/0/sku"),
    "event category": ("/v1/events", "/items/0/category"),
    "campaign name": ("/v1/campaigns", "/name"),
    "campaign asset": ("/v1/campaigns", "/asset"),
    "campaign event type": ("/v1/campaigns", "/event_types/0"),
    "campaign start": ("/v1/campaigns", "/starts_at"),
    "campaign clawback": ("/v1/campaigns", "/clawback"),
    "asset code": ("/v1/assets", "/code"),
}
"""Every field that holds text of a caller, except expressions, addresses and passwords, which have tests of their own."""


def body_for(path: str, wallet: str, other: str) -> dict[str, Any]:
    if path == "/v1/transfers":
        return {"from": wallet, "to": other, "amount": 1}
    if path == "/v1/members":
        return {"external_id": "m"}
    if path == "/v1/assets":
        return {"code": "NEW", "scale": 0}
    if path == "/v1/campaigns":
        return {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 1}}
    if path == "/v1/events":
        item = {"sku": "a", "quantity": 1}
        base = {"id": "e", "type": "purchase", "member": {"external_id": "x"}, "occurred_at": "2026-01-31T12:00:00Z"}
        return {**base, "amount": 1, "currency": "GBP", "items": [item]}
    return {"amount": 1}


def set_at(body: Any, pointer: str, value: Any) -> None:
    *parents, last = pointer.removeprefix("/").split("/")
    for name in parents:
        body = body[int(name)] if isinstance(body, list) else body[name]
    if isinstance(body, list):
        body[int(last)] = value
    else:
        body[last] = value


@pytest.mark.parametrize("field", FIELDS)
async def test_operators_and_control_characters_are_refused_in_every_text(
    service: Caller, factory: Factory, database: Database, field: str
) -> None:
    path, pointer = FIELDS[field]
    wallet, other = await factory.wallet(10), await factory.wallet(10)
    before = await count_rows(database)
    for value in [*OPERATORS, *CONTROL, "", "x" * 2001]:
        body = body_for(path, wallet, other)
        set_at(body, pointer, value)
        refused = problem(await service.post(path.replace("{wallet}", wallet), body), 422, "validation")
        assert refused["errors"][0]["pointer"].startswith(pointer), value
    assert await count_rows(database) == before
    await factory.assert_books_balance()


@pytest.mark.parametrize("path", ["/v1/wallets/{wallet}/credit", "/v1/wallets/{wallet}/debit", "/v1/transfers"])
async def test_hostile_metadata_keys_are_refused(service: Caller, factory: Factory, database: Database, path: str) -> None:
    wallet, other = await factory.wallet(10), await factory.wallet(10)
    before = await count_rows(database)
    for name in ("$gt", "a.b", "", "a b", "a\x00", "x" * 41, "é", "__proto__\n"):
        body = {**body_for(path, wallet, other), "metadata": {name: "x"}}
        problem(await service.post(path.replace("{wallet}", wallet), body), 422, "validation")
    assert await count_rows(database) == before
    await factory.assert_books_balance()


async def test_metadata_is_bounded(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    for metadata in ({f"k{n}": "x" for n in range(21)}, {"k": "x" * 201}, {"k": 1}, {"k": {"$gt": ""}}, {"k": None}, ["k"]):
        problem(await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1, "metadata": metadata}), 422, "validation")
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "text", ["$where", "'; drop table", "{{7*7}}", "<script>", "👩‍👩‍👧‍👦", "e\u0301", "ليرة", "\u200b", "__proto__", "𝒳" * 200]
)
async def test_odd_but_harmless_text_is_kept_as_it_is(service: Caller, factory: Factory, text: str) -> None:
    wallet = await factory.wallet(10)
    answer = await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1, "reason": text, "metadata": {"note": text}})
    assert (answer.status_code, answer.json()["reason"], answer.json()["metadata"]) == (201, text, {"note": text})
    newest = (await service.get(f"/v1/wallets/{wallet}/entries", limit=1)).json()["items"][0]
    assert (newest["reason"], newest["metadata"]) == (text, {"note": text})
    await factory.assert_books_balance()


HOSTILE_IDS = [
    '{"$gt":""}',
    '{"$ne":null}',
    "$where",
    "a[$gt]",
    "../../etc/passwd",
    "\x00",
    "a\r\nb",
    "\ufffd",
    "x" * 3000,
    "%2e%2e",
    "*",
    NOBODY + "\n",
]


@pytest.mark.parametrize("hostile", HOSTILE_IDS)
async def test_a_hostile_id_in_a_path_finds_nothing(service: Caller, factory: Factory, hostile: str) -> None:
    await factory.wallet(1)
    await service.post("/v1/events", factory.event())
    await factory.campaign()
    part = quote(hostile, safe="")
    for path in (f"/v1/wallets/{part}", f"/v1/wallets/{part}/entries", f"/v1/members/{part}", f"/v1/members/{part}/wallets"):
        problem(await service.get(path), 404, "not-found")
    for path in (f"/v1/events/{part}", f"/v1/campaigns/{part}", f"/problems/{part}", f"/docs/{part}"):
        problem(await service.get(path), 404, "not-found")
    for action in ("credit", "debit"):
        problem(await service.post(f"/v1/wallets/{part}/{action}", {"amount": 1}), 404, "not-found")
    for action in ("activate", "pause"):
        problem(await service.post(f"/v1/campaigns/{part}/{action}"), 404, "not-found")
    await factory.assert_books_balance()


@pytest.mark.parametrize("value", ['{"$gt":""}', '{"$ne":null}', "$where", ".*", "null", "None", "undefined", "*", "a' || '1'=='1"])
async def test_a_search_for_hostile_text_finds_nobody(service: Caller, factory: Factory, value: str) -> None:
    await factory.member()
    answer = await service.get("/v1/members", external_id=value)
    assert (answer.status_code, answer.json()) == (200, {"items": [], "next_cursor": None})


@pytest.mark.parametrize(
    "name", ["external_id[$gt]", "external_id.$ne", "$where", "filter", "limit[]", "__proto__"],
)  # fmt: skip
async def test_a_parameter_nobody_declared_is_refused(service: Caller, name: str) -> None:
    for path in (
        "/v1/members",
        "/v1/campaigns",
        "/v1/assets",
        f"/v1/wallets/{NOBODY}:PTS/lots",
        f"/v1/wallets/{NOBODY}:PTS/stream",
    ):
        problem(await service.get(path, **{name: "1"}), 422, "validation")


@pytest.mark.parametrize("cursor", ["", "!!", "YWJj", "eyIkZ3QiOiIifQ", "é", "null", "A" * 201, "MQ"])
async def test_a_forged_cursor_is_refused_on_every_list(service: Caller, factory: Factory, cursor: str) -> None:
    await factory.campaign()
    for path in ("/v1/members", "/v1/campaigns"):
        refused = problem(await service.get(path, cursor=cursor), 422, "validation")
        assert refused["errors"][0]["pointer"] == "cursor"


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z"]
)
async def test_a_time_that_cannot_be_placed_is_refused(service: Caller, factory: Factory, database: Database, moment: str) -> None:
    before = await count_rows(database)
    refused = problem(await service.post("/v1/events", factory.event(occurred_at=moment)), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/occurred_at"
    campaign = body_for("/v1/campaigns", "", "")
    for name in ("starts_at", "ends_at"):
        refused = problem(await service.post("/v1/campaigns", {**campaign, name: moment}), 422, "validation")
        assert refused["errors"][0]["pointer"] == f"/{name}"
    assert await count_rows(database) == before


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"])
async def test_a_time_far_away_is_kept_exactly(service: Caller, factory: Factory, moment: str) -> None:
    await factory.campaign()
    event = factory.event(occurred_at=moment)
    assert (await service.post("/v1/events", event)).status_code == 201
    read = (await service.get(f"/v1/events/{event['id']}")).json()
    assert read["occurred_at"].removesuffix("Z").removesuffix(".000") == moment.removesuffix("Z")
    await factory.assert_books_balance()
