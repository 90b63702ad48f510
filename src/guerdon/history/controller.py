"""Routes of history."""

from typing import Any

from guerdon.errors import BadRequest, NotFound
from guerdon.history.models import (
    BalanceQuery,
    BalanceView,
    EntryPage,
    EntryQuery,
    StatementQuery,
    StatementView,
    view_entry,
)
from guerdon.history.service import History
from guerdon.history.statements import file_name
from guerdon.history.streams import READERS, Streams
from guerdon.http.operation import Request, Response, actor_of, operation
from guerdon.http.query import read_query
from guerdon.http.respond import JSON_TYPE, send
from guerdon.ledger.models import SEQ_DIGITS
from guerdon.permissions import scope

CSV_TYPE = "text/csv; charset=utf-8"
_READS = (NotFound,)


class HistoryResource:
    """`/v1/wallets/{wallet_id}/…`: what has happened in a wallet."""

    def __init__(self, history: History, streams: Streams) -> None:
        self._history = history
        self._streams = streams

    @operation(
        "listEntries",
        scope("wallets:read", own=True),
        tag="wallets",
        query=EntryQuery,
        answers={200: EntryPage},
        errors=_READS,
    )
    async def on_get_entries(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Read a wallet's history, newest first, filtered by kind, time and reference.

        A page filtered by `kind` looks at 1,000 entries at most: it may be shorter than `limit` and still have a `next_cursor`.
        """
        query = read_query(req, EntryQuery)
        entries, cursor = await self._history.list_entries(actor_of(req), wallet_id, query)
        send(resp, EntryPage([view_entry(entry) for entry in entries], cursor))

    @operation(
        "getBalanceAt",
        scope("wallets:read", own=True),
        tag="wallets",
        query=BalanceQuery,
        answers={200: BalanceView},
        errors=_READS,
    )
    async def on_get_balance(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Read a wallet's balance as it was booked at a past moment, that moment included; before the first entry it is 0."""
        query = read_query(req, BalanceQuery)
        send(resp, await self._history.balance_at(actor_of(req), wallet_id, query.at))

    @operation(
        "getStatement",
        scope("wallets:read", own=True),
        tag="wallets",
        query=StatementQuery,
        answers={200: StatementView},
        media=("text/csv",),
        errors=_READS,
    )
    async def on_get_statement(self, req: Request, resp: Response, wallet_id: str, month: str) -> None:
        """Read a month of a wallet, for example `2026-11`, in the programme's time zone: balances, totals by kind, and entries.

        With `format=csv` the answer is `text/csv; charset=utf-8`, one table with the columns `row` (`opening`, `entry`, `total`,
        and `closing`, or `interim` while the month is not complete), `seq`, `created_at`, `kind`, `amount`, `balance`, `held`, `count`,
        `in`, `out`, `counter`, `reference`, `reason`, `transaction_id`, `hold` and `reverses`.
        """
        form = read_query(req, StatementQuery).format
        statement = await self._history.statement(actor_of(req), wallet_id, month)
        resp.stream = self._history.write(statement, form)
        resp.content_type = CSV_TYPE if form == "csv" else JSON_TYPE
        if form == "csv":
            resp.set_header("Content-Disposition", f'attachment; filename="{file_name(statement)}"')

    @operation(
        "streamWallet",
        READERS,
        tag="wallets",
        answers={200: None},
        media=("text/event-stream",),
        errors=_READS,
    )
    async def on_get_stream(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Follow a wallet: server-sent events (`text/event-stream`), one for each new entry.

        The first is `balance`, the wallet as it is now. Each `entry` has the entry's `seq` as its `id`, and as data `balance`, `held`,
        `available` and `seq` right after it, and the `entry`. Send the last id as `Last-Event-ID` to go on after it. A stream lasts 15
        minutes at most.
        """
        resp.sse = await self._streams.open(actor_of(req), wallet_id, _last_seq(req))
        resp.set_header("X-Accel-Buffering", "no")


def _last_seq(req: Request) -> int | None:
    """
    Raises:
        BadRequest: the header is not an id that a stream has given out.
    """
    value = req.get_header("Last-Event-ID")
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= SEQ_DIGITS):
        raise BadRequest("Last-Event-ID must be the id of an event that this stream has sent")
    return int(value)


def routes(history: History, streams: Streams) -> list[tuple[str, Any, str | None]]:
    """(path, resource, suffix) of every route of this room."""
    resource = HistoryResource(history, streams)
    return [
        ("/v1/wallets/{wallet_id}/entries", resource, "entries"),
        ("/v1/wallets/{wallet_id}/balance", resource, "balance"),
        ("/v1/wallets/{wallet_id}/statements/{month}", resource, "statement"),
        ("/v1/wallets/{wallet_id}/stream", resource, "stream"),
    ]
