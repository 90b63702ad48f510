"""Expired value that refunds have counted: `verify` compares it with the expiry entries, whether or not an expiry is booked."""

from datetime import datetime
from typing import Any

import pytest

from guerdon.campaigns.domain import EXPIRED_LOTS
from guerdon.clock import to_ms
from guerdon.ledger.jobs import sweep
from guerdon.verification.service import verify
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory


async def expired_and_refunded(service: Caller, factory: Factory, clock: ManualClock) -> tuple[str, str]:
    """A member's wallet, and its expired lot of 100, of which a refund has counted 60 before the expiry was booked."""
    await factory.campaign(expiry={"type": "after_days", "days": 5}, event_types=["purchase"])
    member = await factory.member()
    purchase = factory.event(member={"id": member}, amount=10_000)
    answer = await service.post("/v1/events", purchase)
    assert answer.status_code == 201, answer.text
    [award] = answer.json()["awards"]
    clock.advance(days=10)
    back = factory.event(member={"id": member}, type="refund", refund_of=purchase["id"], amount=6_000)
    assert (await service.post("/v1/events", back)).status_code == 201
    expires_at = to_ms(datetime.fromisoformat(award["expires_at"]))
    return f"{member}:PTS", f"{member}:PTS/{expires_at}"


async def test_refunds_count_no_more_as_expired_than_has_expired(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    wallet, lot = await expired_and_refunded(service, factory, clock)
    lots = services.database.raw[EXPIRED_LOTS]
    stored = await lots.find_one({"_id": lot})
    assert stored == {"_id": lot, "owner": wallet.partition(":")[0], "count": 1, "counted": 60}
    for booked in (False, True):
        if booked:
            assert await sweep(services.ledger, services.database, services.clock) == 1
        await factory.assert_books_balance()
        await lots.update_one({"_id": lot}, {"$set": {"counted": 100}})
        assert (await verify(services.database)).violations == 0, "all of it has expired"
        await lots.update_one({"_id": lot}, {"$set": {"counted": 101}})
        report = await verify(services.database)
        assert (report.violations, set(report.first)) == (1, {"L5"}), report.first
        assert "counted 101 as expired, and no more than 100 can have expired" in str(report.first)
        await lots.replace_one({"_id": lot}, stored)


@pytest.mark.parametrize(
    "change",
    [{"owner": "mem_" + "0" * 32}, {"counted": 0}, {"counted": -5}, {"count": 0}, {"counted": "60"}, {"counted": None},
     {"_id": "elsewhere"}, {"_id": "mem_{}:GBP/{}"}, {"_id": "mem_{}:PTS/1"}],
)  # fmt: skip
async def test_damaged_expired_lot_is_reported(
    service: Caller, services: Services, factory: Factory, clock: ManualClock, change: dict[str, Any]
) -> None:
    wallet, lot = await expired_and_refunded(service, factory, clock)
    lots = services.database.raw[EXPIRED_LOTS]
    stored = await lots.find_one_and_delete({"_id": lot})
    assert stored is not None
    parts = (wallet.partition(":")[0].removeprefix("mem_"), lot.partition("/")[2])
    moved = {name: value.format(*parts) if name == "_id" else value for name, value in change.items()}
    await lots.insert_one({**stored, **moved})
    report = await verify(services.database)
    assert (report.violations, set(report.first)) == (1, {"L5"}), report.first
    await lots.delete_many({})
    await lots.insert_one(stored)
    await factory.assert_books_balance()


async def test_returned_value_and_value_in_holds_count_as_granted(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    """A hold outlives the expiry of its value, which returns with a grace and expires again: its lot is that of its first expiry."""
    await factory.campaign(expiry={"type": "after_days", "days": 5}, event_types=["purchase"])
    member = await factory.member()
    purchase = factory.event(member={"id": member}, amount=10_000)
    assert (await service.post("/v1/events", purchase)).status_code == 201
    body = {"wallet": f"{member}:PTS", "amount": 30, "expires_in_seconds": 8 * 86_400}
    assert (await service.post("/v1/holds", body)).status_code == 201
    for days, amount in ((6, 5_000), (3, 2_000), (20, 3_000)):
        clock.advance(days=days)
        back = factory.event(member={"id": member}, type="refund", refund_of=purchase["id"], amount=amount)
        assert (await service.post("/v1/events", back)).status_code == 201
        await factory.assert_books_balance()
        await sweep(services.ledger, services.database, services.clock)
        await factory.assert_books_balance()
