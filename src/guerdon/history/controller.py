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
from guerdon.http.operation import JSON_TYPE, Request, Response, actor_of, operation, send
from guerdon.http.query import read_query
from guerdon.ledger.models import SEQ_DIGITS
from guerdon.permissions import scope

CSV_TYPE = "text/csv; charset=utf-8"
CSV_EXAMPLE = (
    "row,seq,created_at,kind,amount,balance,held,count,in,out,counter,reference,reason,transaction_id,hold,reverses,effective_at,rate\r\n"
    "opening,0,2026-01-01T00:00:00.000Z,,,0,0,,,,,,,,,,,\r\n"
)
STREAM_EXAMPLE = {"event": "balance", "id": "3", "data": '{"balance":189,"held":0,"available":189,"seq":3}'}
_READS = (NotFound,)


class HistoryResource:
    """`/v1/wallets/{wallet_id}/entries | balance | statements | stream`"""

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
        """List the entries of a wallet, newest first, filtered by kind, time, effective time and reference.

        A page filtered by `kind` or effective time examines at most 1,000 entries: it may be shorter than `limit` and still have a `next_cursor`.
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
        """Return the balance of a wallet as it was booked at a time, including entries at that time."""
        query = read_query(req, BalanceQuery)
        send(resp, await self._history.balance_at(actor_of(req), wallet_id, query.at))

    @operation(
        "getStatement",
        scope("wallets:read", own=True),
        tag="wallets",
        query=StatementQuery,
        answers={200: StatementView},
        media={"text/csv": CSV_EXAMPLE},
        errors=_READS,
    )
    async def on_get_statement(self, req: Request, resp: Response, wallet_id: str, month: str) -> None:
        """Return the statement of a month such as `2026-11`, in the programme's time zone: balances, totals by kind, and entries.

        With `format=csv` the answer is `text/csv; charset=utf-8`, one table with the columns `row` (`opening`, `entry`, `total`,
        and `closing`, or `interim` while the month is not complete), `seq`, `created_at`, `kind`, `amount`, `balance`, `held`, `count`,
        `in`, `out`, `counter`, `reference`, `reason`, `transaction_id`, `hold`, `reverses`,
        `effective_at` and `rate`.
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
        media={"text/event-stream": STREAM_EXAMPLE},
        errors=_READS,
    )
    async def on_get_stream(self, req: Request, resp: Response, wallet_id: str) -> None:
        """Stream the changes of a wallet as server-sent events (`text/event-stream`), one for each new entry.

        The first event is `balance`, the wallet at the present time. Each event `entry` has the entry's `seq` as its `id`; its data are
        `balance`, `held`, `available` and `seq` after the entry, and the `entry`. To resume, send the last id as `Last-Event-ID`. A
        stream lasts at most 15 minutes.
        """
        resp.sse = await self._streams.open(actor_of(req), wallet_id, _last_seq(req))
        resp.set_header("X-Accel-Buffering", "no")


def _last_seq(req: Request) -> int | None:
    """Return the value of `Last-Event-ID`, or None without it.

    Raises:
        BadRequest: The header is not the id of an event.
    """
    value = req.get_header("Last-Event-ID")
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and len(value) <= SEQ_DIGITS):
        raise BadRequest("Last-Event-ID must be the id of an event of this stream")
    return int(value)


def routes(history: History, streams: Streams) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = HistoryResource(history, streams)
    return [
        ("/v1/wallets/{wallet_id}/entries", resource, "entries"),
        ("/v1/wallets/{wallet_id}/balance", resource, "balance"),
        ("/v1/wallets/{wallet_id}/statements/{month}", resource, "statement"),
        ("/v1/wallets/{wallet_id}/stream", resource, "stream"),
    ]
