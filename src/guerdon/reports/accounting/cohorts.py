"""Cohorts of an asset by the month in which value was earned, as they were at the end of a month. Pure, but for reading the rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from guerdon.database import Document
from guerdon.projections.models import Aggregate
from guerdon.reports.accounting.estimates import CohortHistory, month_number
from guerdon.reports.reading import Snapshot
from guerdon.views.models import COHORT_MONTHS, COHORTS

AWARDED: Mapping[str, Any] = {"campaign": {"$gt": ""}}
"""Condition for value that a campaign awarded."""


class CohortState(Struct, frozen=True):
    """Value of one cohort at the end of a month, in minor units."""

    issued: int = 0
    """Value that was earned, less what was taken back or adjusted."""
    redeemed: int = 0
    expired: int = 0
    transferred: int = 0
    """Value that went to other wallets or was exchanged, less what came."""


class CohortTable:
    """State of the value of each month of earning, month by month."""

    def __init__(self, rows: Iterable[Document]) -> None:
        """`rows` are sums by `earned_month`, `move` and `month`."""
        moved: defaultdict[str, defaultdict[int, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
        for row in rows:
            age = max(0, month_number(row["month"]) - month_number(row["earned_month"]))
            moves = moved[row["earned_month"]][age]
            moves[row["move"]] = moves.get(row["move"], 0) + row["amount"]
        self.months = sorted(moved)
        self._states = {month: _cumulative(ages) for month, ages in moved.items()}
        """States at the end of each age, up to the last age with a change."""

    def state(self, earned: str, month: str) -> CohortState:
        """Return the cohort of the month `earned` at the end of `month`, which is not before it."""
        states = self._states.get(earned, [CohortState()])
        return states[min(month_number(month) - month_number(earned), len(states) - 1)]

    def history(self, earned: str, month: str) -> CohortHistory:
        """Return the cohort at the end of `month` with its redemption by age. Transferred value is not issued by this cohort."""
        states = self._states.get(earned, [CohortState()])
        ages = month_number(month) - month_number(earned) + 1
        known = [each.redeemed for each in states[:ages]]
        last = states[min(ages, len(states)) - 1]
        redeemed = (*known, *[known[-1]] * (ages - len(known)))
        return CohortHistory(earned, last.issued - last.transferred, redeemed, last.expired)

    def histories(self, month: str) -> list[CohortHistory]:
        """Return all cohorts that were earned up to `month`, oldest first, as they were at its end."""
        return [self.history(earned, month) for earned in self.months if earned <= month]


def _cumulative(ages: Mapping[int, Mapping[str, int]]) -> list[CohortState]:
    states: list[CohortState] = []
    state = CohortState()
    for age in range(max(ages) + 1):
        moves = ages.get(age, {})
        state = CohortState(
            issued=state.issued + sum(moves.get(move, 0) for move in ("earned", "clawed_back", "adjusted")),
            redeemed=state.redeemed - moves.get("redeemed", 0),
            expired=state.expired - moves.get("expired", 0),
            transferred=state.transferred - moves.get("transferred", 0),
        )
        states.append(state)
    return states


async def read_cohorts(snapshot: Snapshot, asset: str, month: str) -> CohortTable:
    """Return the cohorts of all value of an asset, with what happened up to the end of `month`."""
    return CohortTable(await _sums(snapshot, COHORT_MONTHS, up_to(asset, month)))


async def read_awarded_cohorts(snapshot: Snapshot, asset: str, month: str) -> CohortTable:
    """Return the cohorts of the value that campaigns awarded."""
    return CohortTable(await _sums(snapshot, COHORTS, {**up_to(asset, month), **AWARDED}))


def up_to(asset: str, month: str) -> Document:
    """Return the condition for what happened up to the end of a month. Value was earned before, which an index can tell."""
    return {"asset": asset, "earned_month": {"$lte": month}, "month": {"$lte": month}}


async def _sums(snapshot: Snapshot, aggregate: Aggregate, where: Mapping[str, Any]) -> Sequence[Document]:
    return await snapshot.sums(aggregate, where, ("earned_month", "move", "month"))
