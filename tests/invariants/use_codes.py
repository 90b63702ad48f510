"""Every route and every query of codes, once."""

from typing import Any

from guerdon.database import Document
from guerdon.vouchers.models import VOUCHER_CODES
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.factories import Factory


async def use_codes(service: Caller, services: Services, factory: Factory) -> None:
    offer, pool = await factory.offer(), await factory.offer(kind="external_code", value=None)
    work = services.code_generation.generate_open
    made = await _asked(service, f"/v1/offers/{offer}/codes", {"count": 2})
    stopped = await _asked(service, f"/v1/offers/{offer}/codes", {"count": 2})
    await _post(service, f"/v1/batches/{stopped}/cancel", 200)
    # A part of the batch that was stopped had been made.
    left: Document = {"_id": "LEFT", "owner": offer, "offer": offer, "batch": stopped}
    await services.database.raw[VOUCHER_CODES].insert_one(left)
    await _post(service, f"/v1/offers/{offer}/codes/shared", 201, {"code": "EVERYBODY", "uses": 2})
    imported = [await _imported(service, pool, text) for text in ("A-1\nA-2", "A-1\nB-1")]
    await work()
    failed = (await service.get(f"/v1/batches/{imported[1]}")).json()
    assert failed["status"] == "failed", "the first import has one of its codes by now"
    page = (await service.get(f"/v1/offers/{offer}/batches", limit=1)).json()
    assert (await service.get(f"/v1/offers/{offer}/batches", limit=1, cursor=page["next_cursor"])).status_code == 200
    code = ""
    for batch in (imported[0], made):
        lines = (await service.get(f"/v1/batches/{batch}/codes.csv")).text.split()
        assert len(lines) == 3
        code = lines[1].rstrip(",")
        assert (await service.get(f"/v1/batches/{batch}/sheet", codes=1)).status_code == 200
    for path in (f"/v1/vouchers/{code}", f"/v1/vouchers/{code}/qr.svg", f"/v1/vouchers/{code}/qr.png"):
        assert (await service.get(path)).status_code == 200, path


async def _post(service: Caller, path: str, status: int, body: Any = None) -> dict[str, Any]:
    answer = await service.post(path, body)
    assert answer.status_code == status, answer.text
    return dict(answer.json())


async def _asked(service: Caller, path: str, body: Any) -> str:
    return str((await _post(service, path, 202, body))["id"])


async def _imported(service: Caller, offer: str, text: str) -> str:
    path = f"/v1/offers/{offer}/codes/import"
    answer = await service.send("POST", path, text.encode(), content_type="text/csv")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])
