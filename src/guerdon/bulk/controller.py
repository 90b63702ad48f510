"""The route of bulk requests."""

from typing import Any

from guerdon.bulk.models import BulkAnswer, BulkCreate
from guerdon.bulk.service import Bulk
from guerdon.errors import Overloaded
from guerdon.http.body import BULK_BODY_BYTES_MAX, read
from guerdon.http.operation import Request, Response, actor_of, is_dry_run, note, operation, send
from guerdon.permissions import scope


class BulkResource:
    """`/v1/bulk`"""

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk

    @operation(
        "runBulk",
        scope("wallets:write"),
        tag="wallets",
        body=BulkCreate,
        answers={200: BulkAnswer},
        errors=(Overloaded,),
        dry_run=("results.transaction.id", "results.transaction.seq", "results.transaction.hold.id"),
        example={
            "commands": [
                {"type": "debit", "wallet": "mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS", "amount": 1, "key": "till-4-000017"},
                {"type": "capture", "hold": "hld_mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS:4", "amount": 1, "key": "till-4-000018"},
            ],
            "atomic": False,
        },
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Run up to 1,000 commands (credits, debits, transfers, holds, captures, voids, reversals), each with its own key and result, or all of
        them atomically.
        """
        body, _ = await read(req, BulkCreate, bytes_max=BULK_BODY_BYTES_MAX)
        note(req, commands=str(len(body.commands)))
        send(resp, BulkAnswer(await self._bulk.run(actor_of(req), body, dry_run=is_dry_run(req))))


def routes(bulk: Bulk) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    return [("/v1/bulk", BulkResource(bulk), None)]
