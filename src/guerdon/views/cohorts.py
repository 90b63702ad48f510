"""Cohorts of one account: which value arrived when, first in first out within each lot. Pure.

Rules, in the order in which they apply:

- Value that arrives forms a cohort of its month, and of its campaign and version if it is an award. Value from another wallet, whose
  cohorts this account does not know, forms a cohort of the month of its arrival without a campaign.
- Value that leaves is taken from the lots that the entry names, within a lot from the cohort that arrived first. A clawback takes cohorts of
  its own campaign first.
- Value that returns goes back to the cohorts that left last: those of the same lot, then those of other lots, and without any a cohort
  of the present month. They come first in their lot again.
- A debt is a negative cohort of the month in which it was made. Value that repays it is consumed in the way in which the debt was made.
- Holds, their release, confirmations and new dates move cohorts and change none.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from guerdon.ledger.lots import UNDATED
from guerdon.ledger.models import LotDates, Source
from guerdon.views.models import Cohort, CohortMove, CohortQueue, ConsumedCohort

CONSUMED_MAX = 12
"""Maximum number of consumed cohorts that are remembered for value that returns."""
RUNS_MAX = 64
"""Number of cohorts in a lot from which alternating cohorts of the same month, campaign and version are joined at the place of the first."""


class Movement(NamedTuple):
    """Signed change of a cohort."""

    source: Source
    cohort: Cohort
    """The cohort. Its amount has no meaning here."""
    move: CohortMove
    amount: int


class CohortBook:
    """Working copy of the cohorts of one account."""

    __slots__ = ("consumed", "movements", "queues")

    def __init__(self, queues: Sequence[CohortQueue], consumed: tuple[ConsumedCohort, ...]) -> None:
        self.queues: dict[LotDates, tuple[Cohort, ...]] = {
            (each.source, each.available_at, each.expires_at, each.first_expires_at): each.cohorts for each in queues
        }
        self.consumed: tuple[ConsumedCohort, ...] = consumed
        self.movements: list[Movement] = []

    def result(self) -> tuple[CohortQueue, ...]:
        return tuple([CohortQueue(*dates, cohorts) for dates, cohorts in self.queues.items() if cohorts])

    # --- value that arrives -----------------------------------------------------------------------------------------

    def arrive(self, dates: LotDates, cohort: Cohort, move: CohortMove) -> None:
        """Add new value to a lot."""
        self.movements.append(Movement(dates[0], cohort, move, cohort.amount))
        self._put(dates, cohort)

    def give_back(self, dates: LotDates, unknown: Cohort, move: CohortMove) -> None:
        """Return value to the cohorts that it was taken from. `unknown` has the amount, and is the cohort of value that is not remembered."""
        amount = unknown.amount
        if dates == UNDATED:
            amount -= self._cancel_debts(amount, move)
        granted_until = dates[3] or dates[2]
        for cohort in self._recall(amount, (dates[0], granted_until), move, unknown):
            self.movements.append(Movement(dates[0], cohort, move, cohort.amount))
            self._put(dates, cohort, first=True)

    def _cancel_debts(self, amount: int, move: CohortMove) -> int:
        """Cancel debts that the same move has made, the newest first, with up to `amount`. Return the part that was needed."""
        debts, left = list(self.queues.get(UNDATED, ())), amount
        for index in range(len(debts) - 1, -1, -1):
            debt = debts[index]
            if left and debt.debt and _undoes(move, debt.debt):
                part = min(left, -debt.amount)
                left -= part
                self.movements.append(Movement("paid", debt, move, part))
                debts[index] = debt.with_amount(debt.amount + part)
        if left < amount:
            self.queues[UNDATED] = tuple([debt for debt in debts if debt.amount])
        return amount - left

    def _recall(self, amount: int, lot: tuple[Source, int | None], move: CohortMove, unknown: Cohort) -> Iterable[Cohort]:
        """Take `amount` from the consumed cohorts, newest first, those of the lot before others."""
        consumed = list(self.consumed)
        found: list[Cohort] = []
        for same_lot in (True, False):
            for index in range(len(consumed) - 1, -1, -1):
                if not amount:
                    break
                each = consumed[index]
                cohort = each.cohort
                if not cohort.amount or not _undoes(move, each.move) or (same_lot and (each.source, each.granted_until) != lot):
                    continue
                part = min(amount, cohort.amount)
                amount -= part
                found.append(cohort.without(cohort.amount - part))
                consumed[index] = ConsumedCohort(cohort.of_amount(cohort.amount - part), each.source, each.move, each.granted_until)
        if found:
            self.consumed = tuple([each for each in consumed if each.cohort.amount])
        if amount:
            found.append(unknown.of_amount(amount))
        return found

    # --- value that leaves ------------------------------------------------------------------------------------------

    def leave(self, dates: LotDates, amount: int, move: CohortMove, *, campaign: str = "", month: str = "") -> None:
        """Take value from a lot. Undated paid value that is missing becomes a debt of the month."""
        taken, missing = self._take(dates, amount, campaign)
        source, granted_until = dates[0], dates[3] or dates[2]
        for cohort in taken:
            self.movements.append(Movement(source, cohort, move, -cohort.amount))
            self._remember(cohort, source, move, granted_until)
        if missing:
            debt = Cohort(month, -missing, debt=move)
            self.movements.append(Movement("paid", debt, move, -missing))
            self._append(UNDATED, debt)

    # --- value that stays -------------------------------------------------------------------------------------------

    def shift(self, before: Iterable[tuple[LotDates, int]], after: Iterable[tuple[LotDates, int]], undated: int) -> None:
        """Move value between lots: `undated` of what is taken from the lots in `before` becomes undated, the rest goes to those in `after`."""
        pieces: list[tuple[Source, Cohort]] = []
        for dates, amount in before:
            taken, _ = self._take(dates, amount)
            pieces.extend((dates[0], cohort) for cohort in taken)
        for dates, amount in [(UNDATED, undated), *after]:
            left = amount
            while left:
                if not pieces:
                    raise ValueError(f"{left} more arrive in the lot {dates} than leave others")
                source, cohort = pieces.pop(0)
                if cohort.amount > left:
                    pieces.insert(0, (source, cohort.without(left)))
                    cohort = cohort.of_amount(left)
                left -= cohort.amount
                if dates == UNDATED:
                    self._become_undated(source, cohort)
                else:
                    self._append(dates, cohort)

    def _become_undated(self, source: Source, cohort: Cohort) -> None:
        cohort = self._repay(source, cohort)
        if cohort.amount:
            if source != "paid":
                self.movements.append(Movement(source, cohort, "adjusted", -cohort.amount))
                self.movements.append(Movement("paid", cohort, "adjusted", cohort.amount))
            self._append(UNDATED, cohort)

    def mature(self, at: int) -> list[tuple[LotDates, int]]:
        """Move the value of lots whose availability date has passed. Return their dates before, and amounts."""
        ready = [dates for dates in self.queues if dates[1] is not None and dates[1] <= at]
        ready.sort(key=lambda dates: (dates[1] or 0, dates[2] or 0, dates[0], dates[3] or 0))
        matured: list[tuple[LotDates, int]] = []
        for dates in ready:
            cohorts = self.queues.pop(dates)
            matured.append((dates, sum(cohort.amount for cohort in cohorts)))
            for cohort in cohorts:
                self._put((dates[0], None, dates[2], dates[3]), cohort)
        return matured

    # --- queues -----------------------------------------------------------------------------------------------------

    def _put(self, dates: LotDates, cohort: Cohort, *, first: bool = False) -> None:
        """Add a cohort to a lot. Undated value repays debts before."""
        if dates == UNDATED:
            cohort = self._repay("paid", cohort)
            if not cohort.amount:
                return
        cohorts = self.queues.get(dates)
        if not first or not cohorts:
            self._append(dates, cohort)
        elif cohort.is_same(cohorts[0]):
            self.queues[dates] = (cohort.joined(cohorts[0]), *cohorts[1:])
        else:
            self.queues[dates] = _compacted((cohort, *cohorts))

    def _append(self, dates: LotDates, cohort: Cohort) -> None:
        cohorts = self.queues.get(dates)
        if not cohorts:
            self.queues[dates] = (cohort,)
        elif cohort.is_same(cohorts[-1]):
            self.queues[dates] = (*cohorts[:-1], cohorts[-1].joined(cohort))
        else:
            self.queues[dates] = _compacted((*cohorts, cohort))

    def _repay(self, source: Source, cohort: Cohort) -> Cohort:
        """Repay debts with a cohort, the oldest first; return its rest."""
        debts = self.queues.get(UNDATED)
        if not debts or not debts[0].debt:
            return cohort
        left = list(debts)
        while left and cohort.amount:
            debt = left[0]
            part = min(cohort.amount, -debt.amount)
            move = debt.debt
            assert move is not None
            used = cohort.of_amount(part)
            self.movements.append(Movement(source, used, move, -part))
            self.movements.append(Movement("paid", debt, move, part))
            self._remember(used, "paid", move, None)
            cohort = cohort.without(part)
            if debt.amount + part:
                left[0] = debt.with_amount(debt.amount + part)
            else:
                left.pop(0)
        self.queues[UNDATED] = tuple(left)
        return cohort

    def _take(self, dates: LotDates, amount: int, campaign: str = "") -> tuple[list[Cohort], int]:
        """Take value from a lot, cohorts of the campaign first. Return the parts and the amount that is missing, of undated value only."""
        cohorts, taken = self.queues.get(dates, ()), list[Cohort]()
        if campaign and any(cohort.campaign == campaign for cohort in cohorts):
            kept: list[Cohort] = []
            for cohort in cohorts:
                part = min(amount, cohort.amount) if cohort.campaign == campaign else 0
                if part > 0:
                    amount -= part
                    taken.append(cohort.of_amount(part))
                if part <= 0:
                    kept.append(cohort)
                elif cohort.amount > part:
                    kept.append(cohort.without(part))
            cohorts = tuple(kept)
        index = 0
        for cohort in cohorts:
            if amount <= 0 or cohort.amount < 0:
                break
            if cohort.amount > amount:
                taken.append(cohort.of_amount(amount))
                cohorts = (cohort.without(amount), *cohorts[index + 1 :])
                index = amount = 0
                break
            taken.append(cohort)
            amount -= cohort.amount
            index += 1
        self.queues[dates] = cohorts[index:]
        if amount and dates != UNDATED:
            raise ValueError(f"{amount} more leave the lot {dates} than it has")
        return taken, amount

    def _remember(self, cohort: Cohort, source: Source, move: CohortMove, granted_until: int | None) -> None:
        consumed = self.consumed
        if consumed:
            last = consumed[-1]
            if last.move == move and last.granted_until == granted_until and last.source == source and cohort.is_same(last.cohort):
                joined = ConsumedCohort(last.cohort.joined(cohort), source, move, granted_until)
                self.consumed = (*consumed[:-1], joined)
                return
        kept = consumed if len(consumed) < CONSUMED_MAX else consumed[1:]
        self.consumed = (*kept, ConsumedCohort(cohort, source, move, granted_until))


def _compacted(cohorts: tuple[Cohort, ...]) -> tuple[Cohort, ...]:
    """Join equal cohorts at the place of the first, if there are too many."""
    if len(cohorts) <= RUNS_MAX or len(cohorts) % (RUNS_MAX // 4):
        return cohorts
    places: dict[tuple[str, str, int, CohortMove | None], Cohort] = {}
    for cohort in cohorts:
        key = (cohort.month, cohort.campaign, cohort.version, cohort.debt)
        same = places.get(key)
        places[key] = cohort if same is None else same.joined(cohort)
    return tuple(places.values())


def _undoes(move: CohortMove, earlier: CohortMove) -> bool:
    """Return True if value that returns by `move` can have left by `earlier`: a reversed clawback is an adjustment."""
    return move == earlier or (move == "adjusted" and earlier == "clawed_back")
