"""The Online Retail data set (UCI Machine Learning Repository) as events: real purchases and cancellations with a known result.

Each pair (InvoiceNo, CustomerID) becomes one event; rows without a customer are skipped and counted. The amount is the sum of
Quantity x UnitPrice in exact decimals, rounded half-even to pence once. An invoice whose number begins with C becomes a refund of the negated
sum, any other invoice a purchase. The events are evaluated only by the campaign of the replay, not by active campaigns: 1 point for each
whole pound, taken back on refunds even into debt, so that the order of the events does not matter. `replay_options.py` can replace it.

Event ids are business keys, so an interrupted replay can be run again: recorded events are found by their id.
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
from guerdon.cli.replay_options import ReplayOptions, arrange, ensure_campaigns
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
class RetailFile:
    """Content of an Online Retail file."""

    invoices: dict[tuple[str, str], Invoice] = field(default_factory=dict[tuple[str, str], Invoice])
    rows: int = 0
    rows_without_customer: int = 0
    broken: dict[int, str] = field(default_factory=dict[int, str])
    """Reason by number of a broken line."""
    incomplete: set[str] = field(default_factory=set[str])
    """Numbers of invoices with a broken line. No event is made of them."""


@dataclass
class Summary:
    """Result of a replay, printed as JSON."""

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
    """The line cannot be read; the message gives the reason."""


def read_file(path: Path) -> RetailFile:
    """Read an Online Retail file, as CSV or gzipped CSV.

    Raises:
        StartupRefused: the file does not exist, or is not an Online Retail CSV.
    """
    file = RetailFile()
    try:
        with _open(path) as handle:
            rows = _rows(handle, file)
            _, header = next(rows, (0, [""]))
            if not set(COLUMNS) <= set(header):
                raise StartupRefused(f"{path} has no header with {', '.join(COLUMNS)}")
            shape = [header.index(column) for column in COLUMNS], len(header)
            for line, row in rows:
                file.rows += 1
                _add(file, line, row, shape)
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise StartupRefused(f"{path} cannot be read: {error}") from None
    for name in [name for name in file.invoices if name[0] in file.incomplete]:
        del file.invoices[name]
    return file


def _open(path: Path) -> IO[str]:
    # Bytes that are not UTF-8 become replacement characters, which no column accepts: they break the line, not the file.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="")
    return path.open("rt", encoding="utf-8", errors="replace", newline="")


def _rows(handle: IO[str], file: RetailFile) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and columns; record and skip lines that are not CSV."""
    rows = csv.reader(handle)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            file.rows += 1
            file.broken[rows.line_num] = f"not CSV: {error}"
            continue
        yield rows.line_num, row


def _add(file: RetailFile, line: int, row: list[str], shape: tuple[list[int], int]) -> None:
    """Add one line to its invoice. If the line is broken, record the reason and mark the invoice as incomplete."""
    columns, width = shape
    invoice_no = row[columns[0]] if len(row) > columns[0] else ""
    customer = row[columns[5]].removesuffix(".0") if len(row) > columns[5] else ""
    try:
        if len(row) != width:
            raise _BrokenLine(f"{len(row)} columns instead of {width}")
        if not customer:
            file.rows_without_customer += 1
            return
        sku, count = _sku(row[columns[1]]), _quantity(row[columns[2]])
        occurred_at, (price, pence) = _moment(row[columns[3]]), _price(row[columns[4]])
        invoice = file.invoices.get((invoice_no, customer))
        if invoice is None:
            _require_match(_INVOICE, invoice_no, "InvoiceNo")
            _require_match(_CUSTOMER, customer, "CustomerID")
            invoice = file.invoices[invoice_no, customer] = Invoice(occurred_at)
    except _BrokenLine as error:
        file.broken[line] = str(error)
        # The first column names the incomplete invoice, even if other columns cannot be read.
        if _INVOICE.match(invoice_no):
            file.incomplete.add(invoice_no)
        return
    invoice.total += count * price
    invoice.items.append(Item(sku=sku, quantity=count, unit_price=pence))


def _require_match(pattern: re.Pattern[str], value: str, column: str) -> None:
    if not pattern.match(value):
        raise _BrokenLine(f"{column} {value[:40]!r} is invalid")


# Half a million lines contain a few thousand different values of each column, so each value is checked and converted once.


@lru_cache(maxsize=65_536)
def _sku(code: str) -> str:
    if not 0 < len(code) <= 200 or not code.isprintable():
        raise _BrokenLine(f"StockCode {code[:40]!r} is invalid")
    return code


@lru_cache(maxsize=65_536)
def _quantity(text: str) -> int:
    _require_match(_QUANTITY, text, "Quantity")
    return int(text)


@lru_cache(maxsize=65_536)
def _price(text: str) -> tuple[Decimal, int]:
    """Return the price in pounds and in pence."""
    _require_match(_PRICE, text, "UnitPrice")
    return Decimal(text), to_pence(Decimal(text))


@lru_cache(maxsize=65_536)
def _moment(date: str) -> int:
    try:
        return to_ms(datetime.strptime(date, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC))
    except ValueError:
        raise _BrokenLine(f"InvoiceDate {date[:40]!r} is not YYYY-MM-DD HH:MM:SS") from None


def to_pence(amount: Decimal) -> int:
    """Round pounds to pence, half to even. The patterns of the columns limit the number of digits, so the result always fits."""
    return int((amount * 100).quantize(Decimal(1), ROUND_HALF_EVEN))


def events_of(file: RetailFile, limit: int | None) -> list[ShopEvent]:
    """Return the first `limit` events of the file, in the order of the file."""
    names = list(file.invoices)[:limit]
    return [_event(invoice_no, customer, file.invoices[invoice_no, customer]) for invoice_no, customer in names]


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


async def record_events(
    services: Services,
    file: RetailFile,
    *,
    limit: int | None,
    progress: Callable[[int, int], None],
    options: ReplayOptions | None = None,
) -> Summary:
    """Record the events of the file, and call `progress` with the number of processed events and their total."""
    options = options or ReplayOptions()
    events = arrange(events_of(file, limit), options)
    campaigns = (
        await ensure_campaigns(services, ACTOR, options.campaigns)
        if options.campaigns
        else [LiveCampaign.of(await _ensure_campaign(services))]
    )
    summary = Summary(
        rows=file.rows,
        rows_without_customer=file.rows_without_customer,
        broken_lines=len(file.broken),
        events_left_out=len(file.incomplete),
    )
    # With more campaigns an event takes longer, and a chunk has to be recorded within the deadline of a command.
    size = max(CHUNK_MIN, CHUNK // len(campaigns))
    for start in range(0, len(events), size):
        chunk = events[start : start + size]
        for event, result in zip(chunk, await _record(services, chunk, campaigns), strict=True):
            _count(summary, event, result)
        progress(min(start + size, len(events)), len(events))
    return summary


async def _record(services: Services, chunk: Sequence[ShopEvent], campaigns: Sequence[LiveCampaign]) -> list[Result]:
    """Record events, and record those again that failed because the database was busy. Events that were recorded nevertheless are found by id."""
    results = await services.events.record_all(ACTOR, chunk, campaigns)
    for _ in range(TRIES_MAX):
        failed = [index for index, result in enumerate(results) if isinstance(result, OperationsError)]
        if not failed:
            break
        repeated = await services.events.record_all(ACTOR, [chunk[index] for index in failed], campaigns)
        for index, result in zip(failed, repeated, strict=True):
            results[index] = result
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
    """Create the campaign of the replay. It stays a draft, so it applies to replayed events only."""
    if not await services.campaigns.exists(CAMPAIGN_ID):
        body = CampaignCreate(
            name="Online Retail replay: 1 point per pound",
            asset="PTS",
            event_types=["purchase", "refund"],
            award=PerAmountAward(points=1, per=100, rounding="floor"),
            clawback="debt",
        )
        with suppress(DuplicateKeyError):  # Another replay has created it in the meantime.
            await services.campaigns.create(ACTOR, body, campaign_id=CAMPAIGN_ID)
    return await services.campaigns.get_campaign(CAMPAIGN_ID)
