"""SourceSums of what entered and left the wallets of an asset, and the roll-forward that follows from them. Pure, but for reading the sums."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import date
from typing import NamedTuple, get_args

from guerdon.database import Document
from guerdon.ledger.models import SYSTEM
from guerdon.reports.models import Grouping
from guerdon.reports.periods import DayRange, name_of
from guerdon.reports.reading import Snapshot
from guerdon.views.models import FLOWS, Flow

FLOW_NAMES: tuple[Flow, ...] = get_args(Flow)
WALLETS = "wallets"
"""Counterparty of value from another wallet, and the name of the sum of all wallets in a trial balance."""


class SourceSums(NamedTuple):
    """Signed change of all wallets, and its parts by source."""

    amount: int = 0
    paid: int = 0
    promotional: int = 0

    def plus(self, other: "SourceSums") -> "SourceSums":
        return SourceSums(self.amount + other.amount, self.paid + other.paid, self.promotional + other.promotional)


class FlowRow(NamedTuple):
    """Change of all wallets in one period by one flow and counterparty."""

    period: str
    """A day or a month."""
    flow: Flow
    counterparty: str
    sums: SourceSums


FlowReader = Callable[[Grouping, str, str], Awaitable[list[FlowRow]]]
"""Returns the rows of the days or months from the first name to before the second. Periods of one unit sort by their names."""


def flow_reader(snapshot: Snapshot, asset: str) -> FlowReader:
    """Return the reader of the flows of an asset."""

    async def read(unit: Grouping, first: str, before: str) -> list[FlowRow]:
        where = {"asset": asset, "unit": unit, "period": {"$gte": first, "$lt": before}}
        return [_row_of(row) for row in await snapshot.sums(FLOWS, where, ("period", "flow", "counterparty"))]

    return read


async def read_before(read: FlowReader, day: date) -> list[FlowRow]:
    """Return the rows of all time before a day: months, and the days of the month of the day."""
    month = name_of(day, "month")
    return [*await read("month", "", month), *await read("day", f"{month}-01", day.isoformat())]


def _row_of(row: Document) -> FlowRow:
    return FlowRow(row["period"], row["flow"], row["counterparty"], SourceSums(row["amount"], row["paid"], row["promotional"]))


# --- roll-forward ---------------------------------------------------------------------------------------------------


class Roll(NamedTuple):
    """One period of a roll-forward: the balance before it, the signed changes by flow, and the balance after it."""

    period: str
    opening: SourceSums
    flows: Mapping[Flow, SourceSums]
    closing: SourceSums


async def read_roll_forward(read: FlowReader, days: DayRange) -> list[Roll]:
    """Return the periods of a range in order."""
    opening = total_of(await read_before(read, days.first))
    changes: defaultdict[tuple[str, Flow], SourceSums] = defaultdict(SourceSums)
    for row in await _rows_within(read, days):
        key = (row.period if days.is_by_day else row.period[:7], row.flow)
        changes[key] = changes[key].plus(row.sums)
    rolls: list[Roll] = []
    for period in days.periods:
        flows: dict[Flow, SourceSums] = {flow: changes[period, flow] for flow in FLOW_NAMES}
        closing = opening
        for sums in flows.values():
            closing = closing.plus(sums)
        rolls.append(Roll(period, opening, flows, closing))
        opening = closing
    return rolls


async def _rows_within(read: FlowReader, days: DayRange) -> list[FlowRow]:
    """Return the rows of a range: whole months by month where that is enough, the rest by day."""
    first, after = days.first.isoformat(), days.after.isoformat()
    if days.is_by_day or first[:7] == after[:7]:
        return await read("day", first, after)
    rows = [*await read("day", f"{after[:7]}-01", after)]
    if first.endswith("-01"):
        return [*rows, *await read("month", first[:7], after[:7])]
    head = await read("day", first, f"{first[:7]}-32")
    return [*rows, *head, *await read("month", f"{first[:7]}-", after[:7])]


def total_of(rows: Iterable[FlowRow]) -> SourceSums:
    """Return the sum of all rows."""
    total = SourceSums()
    for row in rows:
        total = total.plus(row.sums)
    return total


def system_balances(rows: Iterable[FlowRow]) -> dict[str, int]:
    """Return the balances of the system accounts: minus what the wallets received from them."""
    balances: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row.counterparty.startswith(SYSTEM):
            balances[row.counterparty] -= row.sums.amount
    return dict(sorted(balances.items()))
