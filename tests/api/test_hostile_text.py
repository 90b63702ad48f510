"""Hostile text in every field, path and parameter: refused, or kept as text and nothing else."""

import unicodedata
from typing import Any

import pytest

from guerdon.database import Database
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.serving import count_rows


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


async def test_metadata_is_bounded(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    for metadata in ({f"k{n}": "x" for n in range(21)}, {"k": "x" * 201}, {"k": 1}, {"k": {"$gt": ""}}, {"k": None}, ["k"]):
        problem(await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1, "metadata": metadata}), 422, "validation")
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "text", ["$where", "'; drop table", "{{7*7}}", "<script>", "👩‍👩‍👧‍👦", "e\u0301", "ليرة", "\u200b", "__proto__", "𝒳" * 200]
)
async def test_unusual_text_is_stored_as_text(service: Caller, factory: Factory, text: str) -> None:
    """Unchanged, except that accents are composed (the Unicode form NFC)."""
    wallet = await factory.wallet(10)
    answer = await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1, "reason": text, "metadata": {"note": text}})
    text = unicodedata.normalize("NFC", text)
    assert (answer.status_code, answer.json()["reason"], answer.json()["metadata"]) == (201, text, {"note": text})
    newest = (await service.get(f"/v1/wallets/{wallet}/entries", limit=1)).json()["items"][0]
    assert (newest["reason"], newest["metadata"]) == (text, {"note": text})
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z"]
)
async def test_time_outside_the_supported_range_is_refused(
    service: Caller, factory: Factory, database: Database, moment: str
) -> None:
    before = await count_rows(database)
    refused = problem(await service.post("/v1/events", factory.event(occurred_at=moment)), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/occurred_at"
    campaign = body_for("/v1/campaigns", "", "")
    for name in ("starts_at", "ends_at"):
        refused = problem(await service.post("/v1/campaigns", {**campaign, name: moment}), 422, "validation")
        assert refused["errors"][0]["pointer"] == f"/{name}"
    # The refused changes of campaigns are in the audit log, asked and answered.
    assert await count_rows(database) == {**before, "audit": before["audit"] + 4}


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z"])
async def test_extreme_time_is_stored_exactly(service: Caller, factory: Factory, moment: str) -> None:
    await factory.campaign()
    event = factory.event(occurred_at=moment)
    assert (await service.post("/v1/events", event)).status_code == 201
    read = (await service.get(f"/v1/events/{event['id']}")).json()
    assert read["occurred_at"].removesuffix("Z").removesuffix(".000") == moment.removesuffix("Z")
    await factory.assert_books_balance()
