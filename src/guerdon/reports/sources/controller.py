"""Route of the sources of a spend."""

from typing import Any

from guerdon.errors import HistoryTooLong, NotFound
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.permissions import scope
from guerdon.reports.sources.models import SpendSources
from guerdon.reports.sources.service import Sources


class SourcesResource:
    """`/v1/transactions/{transaction_id}/sources`"""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    @operation(
        "getTransactionSources",
        scope("wallets:read", own=True),
        tag="transactions",
        answers={200: SpendSources},
        errors=(NotFound, HistoryTooLong),
    )
    async def on_get(self, req: Request, resp: Response, transaction_id: str) -> None:
        """Return the transactions that brought the value which a transaction took: first in, first out within a lot."""
        send(resp, await self._sources.of_transaction(actor_of(req), transaction_id))


def routes(sources: Sources) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    return [("/v1/transactions/{transaction_id}/sources", SourcesResource(sources), None)]
