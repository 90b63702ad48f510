"""Cohorts told a second time: every minor unit is an object of its own, with the month, the campaign and the entry that brought it."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from guerdon.calendar import Calendar
from guerdon.ledger.models import Entry

Dates = tuple[str, int | None, int | None, int | None]
UNDATED: Dates = ("paid", None, None, None)
Origin = tuple[str, str, int]
"""Month, campaign and version."""


@dataclass(frozen=True)
class Unit:
    month: str
    campaign: str
    version: int
    seq: int

    @property
    def origin(self) -> Origin:
        return self.month, self.campaign, self.version


@dataclass(frozen=True)
class Owed:
    """A unit of a debt."""

    month: str
    move: str


@dataclass(frozen=True)
class Gone:
    """A unit that has left."""

    unit: Unit
    source: str
    until: int | None
    move: str


@dataclass
class UnitAccount:
    """One account, entry by entry."""

    lots: defaultdict[Dates, list[Unit]] = field(default_factory=lambda: defaultdict(list))
    debts: list[Owed] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    holds: dict[int, Counter[Dates]] = field(default_factory=dict)
    moves: Counter[tuple[str, str, str, int, str, str]] = field(default_factory=Counter)
    """By source, month, campaign and version of the unit, its move, and the month of the move."""
    taken: dict[int, list[tuple[int | None, Origin]]] = field(default_factory=dict)
    """By number of an entry: the units that it took, each by the entry that brought it and its origin."""
    month: str = ""
    seq: int = 0

    def follow(self, entry: Entry, calendar: Calendar) -> None:
        self.month, self.seq = calendar.local(entry.at).strftime("%Y-%m"), entry.seq
        ready = [dates for dates in self.lots if dates[1] is not None and dates[1] <= entry.at]
        for dates in sorted(ready, key=lambda dates: (dates[1], dates[2] or 0, dates[0], dates[3] or 0)):
            for unit in self.lots.pop(dates):
                self.put((dates[0], None, *dates[2:]), unit)
        listed: Counter[Dates] = Counter()
        for lot in entry.lots or ():
            listed[lot.dates] += lot.amount
        change, hold = entry.hold, None
        if change is not None and change.change > 0:
            self.holds[change.seq] = Counter({dates: -amount for dates, amount in listed.items()})
            return
        if change is not None:
            hold = self.holds[change.seq]
            if entry.amount:
                hold.update(listed)
            else:
                del self.holds[change.seq]
                listed.subtract(hold)
        undated = entry.amount - sum(listed.values())
        if entry.amount < 0:
            self.spend(entry, listed, -undated)
        elif entry.amount > 0:
            self.receive(entry, listed, undated)
        else:
            self.rearrange(listed, undated)

    # --- what leaves ------------------------------------------------------------------------------------------------

    def spend(self, entry: Entry, listed: Counter[Dates], undated: int) -> None:
        own = entry.metadata.get("campaign") if entry.kind == "clawback" else None
        move = move_of(entry)
        taken = self.taken[entry.seq] = []
        for dates, amount in [*((dates, -amount) for dates, amount in listed.items()), (UNDATED, undated)]:
            for _ in range(amount):
                units = self.lots[dates]
                if not units:
                    assert dates == UNDATED
                    self.debts.append(Owed(self.month, move))
                    self.count("paid", (self.month, "", 0), move, -1)
                    taken.append((None, (self.month, "", 0)))
                    continue
                place = next((index for index, unit in enumerate(units) if unit.campaign == own), 0) if own else 0
                unit = units.pop(place)
                taken.append((unit.seq, unit.origin))
                self.count(dates[0], unit.origin, move, -1)
                self.gone.append(Gone(unit, dates[0], dates[3] or dates[2], move))

    # --- what arrives -----------------------------------------------------------------------------------------------

    def receive(self, entry: Entry, listed: Counter[Dates], undated: int) -> None:
        own = (entry.metadata["campaign"], int(entry.metadata["version"])) if "campaign" in entry.metadata else ("", 0)
        new, move = Unit(self.month, *own, entry.seq), move_of(entry)
        returns = entry.reverses is not None or entry.counterparty in ("system:merchant", "system:breakage")
        for dates, amount in [*listed.items(), (UNDATED, undated)]:
            if not returns:
                for _ in range(amount):
                    self.count(dates[0], new.origin, move, 1)
                    self.put(dates, new)
                continue
            left = amount
            if dates == UNDATED:
                for owed in [owed for owed in reversed(self.debts) if undoes(move, owed.move)][:left]:
                    place = len(self.debts) - 1 - self.debts[::-1].index(owed)
                    del self.debts[place]
                    self.count("paid", (owed.month, "", 0), move, 1)
                    left -= 1
            for unit in [self.recall(dates, move) or new for _ in range(left)]:
                self.count(dates[0], unit.origin, move, 1)
                self.put(dates, unit, first=True)

    def recall(self, dates: Dates, move: str) -> Unit | None:
        """The unit that left last by this move: from the same lot, or else from another."""
        for same in (True, False):
            for place in range(len(self.gone) - 1, -1, -1):
                gone = self.gone[place]
                if undoes(move, gone.move) and (not same or (gone.source, gone.until) == (dates[0], dates[3] or dates[2])):
                    del self.gone[place]
                    return gone.unit
        return None

    # --- what stays -------------------------------------------------------------------------------------------------

    def rearrange(self, listed: Counter[Dates], undated: int) -> None:
        pool = [(dates[0], self.lots[dates].pop(0)) for dates, amount in listed.items() for _ in range(-amount)]
        for _ in range(undated):
            source, unit = pool.pop(0)
            if self.repaid(source, unit):
                continue
            if source != "paid":
                self.count(source, unit.origin, "adjusted", -1)
                self.count("paid", unit.origin, "adjusted", 1)
            self.lots[UNDATED].append(unit)
        for dates, amount in listed.items():
            for _ in range(amount):
                self.lots[dates].append(pool.pop(0)[1])
        assert not pool

    def put(self, dates: Dates, unit: Unit, *, first: bool = False) -> None:
        if dates == UNDATED and self.repaid("paid", unit):
            return
        self.lots[dates].insert(0 if first else len(self.lots[dates]), unit)

    def repaid(self, source: str, unit: Unit) -> bool:
        """The oldest debt is repaid, as if it had been made with this unit."""
        if not self.debts:
            return False
        owed = self.debts.pop(0)
        self.count(source, unit.origin, owed.move, -1)
        self.count("paid", (owed.month, "", 0), owed.move, 1)
        self.gone.append(Gone(unit, "paid", None, owed.move))
        return True

    def count(self, source: str, origin: Origin, move: str, change: int) -> None:
        self.moves[source, *origin, move, self.month] += change


def move_of(entry: Entry) -> str:
    """The way in which an entry moves cohorts."""
    match entry.counterparty:
        case "system:merchant":
            return "redeemed"
        case "system:breakage":
            return "expired"
        case "system:issuer" | "system:cash" if entry.kind == "clawback":
            return "clawed_back"
        case "system:issuer" | "system:cash":
            return "earned" if entry.amount > 0 and entry.reverses is None else "adjusted"
        case "system:exchange":
            return "transferred"
        case other:
            return "adjusted" if other.startswith("system:") else "transferred"


def undoes(move: str, earlier: str) -> bool:
    return earlier in ({"adjusted", "clawed_back"} if move == "adjusted" else {move})


def runs(values: list[Any]) -> list[tuple[Any, int]]:
    """Equal neighbours as one, with their number."""
    return [(value, len(list(same))) for value, same in groupby(values)]
