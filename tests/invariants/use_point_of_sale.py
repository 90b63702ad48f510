"""Every route and every query of vouchers at the till, once."""

from typing import Any

from tests.clients import Caller
from tests.factories import Factory

BASKET = {"amount": 300, "currency": "GBP"}
CARD = {"name": "a card", "kind": "gift_card", "value": {"type": "fixed", "amount": 1000, "currency": "GBP"}}


async def use_till(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    offer = await factory.offer()
    code = str((await factory.voucher(offer, member))["code"])
    await _do(service, code, "validate", BASKET)
    await _do(service, code, "reserve", BASKET)
    await _do(service, code, "release")
    used = await _do(service, code, "use", BASKET)
    await _do(service, code, "unuse", {"use": used["transaction_id"]})
    await _do(service, code, "cancel")
    card = str((await factory.voucher(await factory.offer(**CARD), member))["code"])
    await _do(service, card, "load", {"member_id": member, "amount": 400})
    page = (await service.get(f"/v1/vouchers/{code}/history", limit=1)).json()
    answer = await service.get(f"/v1/vouchers/{code}/history", limit=1, cursor=page["next_cursor"])
    assert answer.status_code == 200, answer.text


async def _do(service: Caller, code: str, step: str, body: Any = None) -> dict[str, Any]:
    answer = await service.post(f"/v1/vouchers/{code}/{step}", body or {})
    assert answer.status_code == 200, (step, answer.text)
    return dict(answer.json())
