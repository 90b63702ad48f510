"""Cost of outstanding value, for the report on the liability."""

from functools import partial

from guerdon.reports.accounting.estimates import cost_of
from guerdon.reports.accounting.service import Accounting
from guerdon.reports.money.service import CostOf, ValueCost, face_value
from guerdon.reports.reading import Snapshot


def costs_of(accounting: Accounting) -> CostOf:
    """Return the function that gives the cost of an asset by its settings. Money without settings costs what it is."""

    async def value_cost(snapshot: Snapshot, asset: str, month: str, outstanding: int) -> ValueCost | None:
        costs = await accounting.compute_costs(snapshot, asset, month)
        if costs.settings is None:
            return await face_value(snapshot, asset, month, outstanding)
        unit_cost = partial(cost_of, unit_cost=costs.settings.cost)
        return ValueCost(costs.settings.currency, unit_cost, sum(costs.expected.values()))

    return value_cost
