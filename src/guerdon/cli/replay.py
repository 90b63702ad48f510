"""Online Retail through the events service: real purchases and cancellations, with an answer that is known beforehand.

The mapping: one event for each (InvoiceNo, CustomerID); rows without a customer are skipped and counted; the amount is the sum of
Quantity x UnitPrice in exact decimals, rounded half-even to pence once; an invoice whose number begins with C is a refund of the
negated sum, any other a purchase. The events are judged by one campaign of the replay's own, whatever else is active: 1 point for
each whole pound, taken back on refunds even into debt, so that the order does not matter; or by those of a file (`seasoning.py`).

Event ids are business keys, so a replay that was killed is simply run again: what is recorded already is recalled.
"""

import csv
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from pathlib import Path
from typing import IO

from guerdon.campaigns.domain import Item, ShopEvent
from guerdon.campaigns.evaluation import LiveCampaign
from guerdon.campaigns.models import Campaign, CampaignCreate, PerAmountAward
from guerdon.cli.seasoning import Seasoning, ensure_campaigns, seasoned
from guerdon.clock import to_ms
from guerdon.database import DuplicateKeyError
from guerdon.errors import GuerdonError, OperationsError, StartupRefused
from guerdon.events.service import Result
from guerdon.money import AMOUNT_MAX
from guerdon.permissions import ANY_SCOPE, Actor
from guerdon.wiring.services import Services

CAMPAIGN_ID = "cmp_00000000000000000000000000000001"
CHUNK, CHUNK_MIN, TRIES_MAX = 500, 50, 10
COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
LINE_ERRORS_SHOWN = 100
_INVOICE = re.compile(r"[A-Z]?[0-9]{1,20}\Z")
_CUSTOMER = re.compile(r"[0-9]{1,20}\Z")
_QUANTITY = re.compile(r"-?[0-9]{1,9}\Z")
_PRICE = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,6})?\Z")
ACTOR = Actor("system:replay", "system", frozenset({ANY_SCOPE}))


@dataclass
class Invoice:
    """The lines of one event, in the order of the file."""

    occurred_at: int
    total: Decimal = Decimal(0)
    items: list[Item] = field(default_factory=list[Item])


@dataclass
class Reading:
    """What the file held. `broken` maps line numbers to what is wrong with them."""

    invoices: dict[tuple[str, str], Invoice] = field(default_factory=dict[tuple[str, str], Invoice])
    rows: int = 0
    rows_without_customer: int = 0
    broken: dict[int, str] = field(default_factory=dict[int, str])
    spoiled: set[str] = field(default_factory=set[str])
    """Invoices that a broken line belongs to: they are left out whole, since a part of an invoice is not an invoice."""


@dataclass
class Summary:
    """How a replay ended; printed as JSON."""

    rows: int = 0
    rows_without_customer: int = 0
    broken_lines: int = 0
    events_left_out: int = 0
    purchases: int = 0
    refunds: int = 0
    recorded: int = 0
    recorded_before: int = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list[str])


class _BrokenLine(Exception):
    """The line cannot be read; the message says why."""


def read_file(path: Path) -> Reading:
    """Read a CSV, gzipped or not, into events.

    Raises:
        StartupRefused: there is no such file, or it is not an Online Retail CSV at all.
    """
    reading = Reading()
    try:
        with _open(path) as handle:
            rows = _rows(handle, reading)
            _, header = next(rows, (0, [""]))
            if not set(COLUMNS) <= set(header):
                raise StartupRefused(f"{path} has no header with {', '.join(COLUMNS)}")
            shape = [header.index(column) for column in COLUMNS], len(header)
            for line, row in rows:
                reading.rows += 1
                _add(reading, line, row, shape)
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise StartupRefused(f"{path} cannot be read: {error}") from None
    for name in [name for name in reading.invoices if name[0] in reading.spoiled]:
        del reading.invoices[name]
    return reading


def _open(path: Path) -> IO[str]:
    # Bytes that are not UTF-8 become marks that no column accepts: they break their line, not the file.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="")
    return path.open("rt", encoding="utf-8", errors="replace", newline="")


def _rows(handle: IO[str], reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, columns); what is no CSV at all is noted and passed over."""
    rows = csv.reader(handle)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            reading.rows += 1
            reading.broken[rows.line_num] = f"not CSV: {error}"
            continue
        yield rows.line_num, row


def _add(reading: Reading, line: int, row: list[str], shape: tuple[list[int], int]) -> None:
    """Add one line to its event, or say what is wrong with it and leave its event out."""
    places, width = shape
    invoice_no = row[places[0]] if len(row) > places[0] else ""
    customer = row[places[5]].removesuffix(".0") if len(row) > places[5] else ""
    try:
        if len(row) != width:
            raise _BrokenLine(f"{len(row)} columns instead of {width}")
        if not customer:
            reading.rows_without_customer += 1
            return
        sku, count = _sku(row[places[1]]), _quantity(row[places[2]])
        occurred_at, (price, pence) = _moment(row[places[3]]), _price(row[places[4]])
        invoice = reading.invoices.get((invoice_no, customer))
        if invoice is None:
            _check(_INVOICE, invoice_no, "InvoiceNo")
            _check(_CUSTOMER, customer, "CustomerID")
            invoice = reading.invoices[invoice_no, customer] = Invoice(occurred_at)
    except _BrokenLine as error:
        reading.broken[line] = str(error)
        # Whatever else is unreadable, the first column tells which invoice is incomplete now.
        if _INVOICE.match(invoice_no):
            reading.spoiled.add(invoice_no)
        return
    invoice.total += count * price
    invoice.items.append(Item(sku=sku, quantity=count, unit_price=pence))


def _check(pattern: re.Pattern[str], value: str, column: str) -> None:
    if not pattern.match(value):
        raise _BrokenLine(f"{column} {value[:40]!r} is not acceptable")


# Half a million lines hold a few thousand different values of each column, so each is checked and converted once.


@lru_cache(maxsize=65_536)
def _sku(code: str) -> str:
    if not 0 < len(code) <= 200 or not code.isprintable():
        raise _BrokenLine(f"StockCode {code[:40]!r} is not acceptable")
    return code


@lru_cache(maxsize=65_536)
def _quantity(text: str) -> int:
    _check(_QUANTITY, text, "Quantity")
    return int(text)


@lru_cache(maxsize=65_536)
def _price(text: str) -> tuple[Decimal, int]:
    """(pounds, pence)"""
    _check(_PRICE, text, "UnitPrice")
    return Decimal(text), to_pence(Decimal(text))


@lru_cache(maxsize=65_536)
def _moment(date: str) -> int:
    try:
        return to_ms(datetime.strptime(date, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC))
    except ValueError:
        raise _BrokenLine(f"InvoiceDate {date[:40]!r} is not YYYY-MM-DD HH:MM:SS") from None


def to_pence(amount: Decimal) -> int:
    """Round pounds to pence, half to even. The columns' patterns bound the digits, so it always fits."""
    return int((amount * 100).quantize(Decimal(1), ROUND_HALF_EVEN))


def events_of(reading: Reading, limit: int | None) -> list[ShopEvent]:
    """Return the first `limit` events of the file, in its order."""
    names = list(reading.invoices)[:limit]
    return [_event(invoice_no, customer, reading.invoices[invoice_no, customer]) for invoice_no, customer in names]


def _event(invoice_no: str, customer: str, invoice: Invoice) -> ShopEvent:
    pence = to_pence(invoice.total)
    refund = invoice_no.startswith("C")
    return ShopEvent(
        id=f"{invoice_no}-{customer}",
        type="refund" if refund else "purchase",
        occurred_at=invoice.occurred_at,
        amount=max(-AMOUNT_MAX, min(AMOUNT_MAX, -pence if refund else pence)),
        currency="GBP",
        external_id=customer,
        items=tuple(invoice.items),
    )


async def replay(
    services: Services,
    reading: Reading,
    *,
    limit: int | None,
    progress: Callable[[int, int], None],
    seasoning: Seasoning | None = None,
) -> Summary:
    """Record every event of the reading; `progress` is told (done, total)."""
    seasoning = seasoning or Seasoning()
    events = seasoned(events_of(reading, limit), seasoning)
    campaigns = (
        await ensure_campaigns(services, ACTOR, seasoning.campaigns)
        if seasoning.campaigns
        else [LiveCampaign.of(await _ensure_campaign(services))]
    )
    summary = Summary(
        rows=reading.rows,
        rows_without_customer=reading.rows_without_customer,
        broken_lines=len(reading.broken),
        events_left_out=len(reading.spoiled),
    )
    # The more campaigns there are the longer an event takes, and a chunk has to be done within the deadline of a command.
    size = max(CHUNK_MIN, CHUNK // len(campaigns))
    for start in range(0, len(events), size):
        chunk = events[start : start + size]
        for event, result in zip(chunk, await _record(services, chunk, campaigns), strict=True):
            _count(summary, event, result)
        progress(min(start + size, len(events)), len(events))
    return summary


async def _record(services: Services, chunk: Sequence[ShopEvent], campaigns: Sequence[LiveCampaign]) -> list[Result]:
    """Record events, and once more what the database had no time for: what was done all the same is recalled."""
    results = await services.events.record_all(ACTOR, chunk, campaigns)
    for _ in range(TRIES_MAX):
        again = [place for place, result in enumerate(results) if isinstance(result, OperationsError)]
        if not again:
            break
        repeated = await services.events.record_all(ACTOR, [chunk[place] for place in again], campaigns)
        for place, result in zip(again, repeated, strict=True):
            results[place] = result
    return results


def _count(summary: Summary, event: ShopEvent, result: tuple[object, bool] | GuerdonError) -> None:
    if isinstance(result, GuerdonError):
        summary.refused += 1
        if len(summary.errors) < LINE_ERRORS_SHOWN:
            summary.errors.append(f"{event.id}: {result.code}: {result.detail}")
        return
    if event.type == "refund":
        summary.refunds += 1
    else:
        summary.purchases += 1
    if result[1]:
        summary.recorded_before += 1
    else:
        summary.recorded += 1


async def _ensure_campaign(services: Services) -> Campaign:
    """The replay's campaign stays a draft: it judges what is replayed and nothing that happens today."""
    if not await services.campaigns.exists(CAMPAIGN_ID):
        body = CampaignCreate(
            name="Online Retail replay: 1 point per pound",
            asset="PTS",
            event_types=["purchase", "refund"],
            award=PerAmountAward(points=1, per=100, rounding="floor"),
            clawback="debt",
        )
        with suppress(DuplicateKeyError):  # Another replay was quicker.
            await services.campaigns.create(ACTOR, body, campaign_id=CAMPAIGN_ID)
    return await services.campaigns.get_campaign(CAMPAIGN_ID)
