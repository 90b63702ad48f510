"""Line items of an event that a campaign applies to, and the share of them that is returned. Pure.

A line item counts by its cost, `quantity` times `unit_price` rounded half up to minor units, or by its quantity if no line item has a price.
Line items of one article are added up. A line with a price below zero is a discount. It reduces the lines of its own SKU; without such lines
those of its category; otherwise, and with what exceeds them, all lines. A discount is shared out in proportion to the costs of the lines,
in whole minor units, and no line falls below zero. Imports may hold negative quantities; these do not count.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from msgspec import Struct

from guerdon.campaigns.domain import Item, ReturnedItem
from guerdon.campaigns.models import ItemsOf
from guerdon.quantities import AnyQuantity, exact, is_positive, line_cost, stored


class Lines(Struct, frozen=True):
    """Quantity and cost (in minor units) of one article."""

    quantity: Fraction
    cost: int


def chosen(items: Iterable[Item], wanted: ItemsOf | None = None) -> dict[str, Lines]:
    """Return, by SKU, the articles that match the campaign's `items`, with their share of the discounts; all articles if `wanted` is None."""
    lines: dict[str, Lines] = {}
    for item, cost in costs_of(items):
        if wanted is None or item.sku in wanted.skus or item.category in wanted.categories:
            known = lines.get(item.sku, Lines(Fraction(0), 0))
            lines[item.sku] = Lines(known.quantity + exact(item.quantity), known.cost + cost)
    return lines


def costs_of(items: Iterable[Item]) -> list[tuple[Item, int]]:
    """Return the line items that are not discounts, each with its cost less its share of the discounts."""
    lines: list[Item] = []
    discounts: list[Item] = []
    for item in items:
        if is_positive(item.quantity):
            (lines if item.unit_price >= 0 else discounts).append(item)
    costs = [line_cost(item.quantity, item.unit_price) for item in lines]
    if discounts:
        _subtract(discounts, lines, costs)
    return list(zip(lines, costs, strict=True))


def _subtract(discounts: Sequence[Item], lines: Sequence[Item], costs: list[int]) -> None:
    """Subtract discounts from the costs of lines: of an article first, then of a category, then of all."""
    skus, categories = {line.sku for line in lines}, {line.category for line in lines} - {None}
    of_sku: defaultdict[str, int] = defaultdict(int)
    of_category: defaultdict[str, int] = defaultdict(int)
    of_all = 0
    for discount in discounts:
        amount = -line_cost(discount.quantity, discount.unit_price)
        if discount.sku in skus:
            of_sku[discount.sku] += amount
        elif discount.category is not None and discount.category in categories:
            of_category[discount.category] += amount
        else:
            of_all += amount
    of_all += _share_out(of_sku, lines, costs, lambda line: line.sku)
    of_all += _share_out(of_category, lines, costs, lambda line: line.category)
    _share_out({"": of_all}, lines, costs, lambda _: "")


def _share_out(amounts: dict[str, int], lines: Sequence[Item], costs: list[int], name_of: Callable[[Item], str | None]) -> int:
    """Subtract each amount from the lines of its name, in proportion to their costs. Return what exceeds them."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, line in enumerate(lines):
        if (name := name_of(line)) is not None and name in amounts:
            members[name].append(index)
    excess = 0
    for name, amount in amounts.items():
        total = sum(costs[index] for index in members[name])
        shared = min(amount, total)
        excess += amount - shared
        before = passed = 0
        for index in members[name] if shared else ():
            passed += costs[index]
            upto = shared * passed // total
            costs[index] -= upto - before
            before = upto
    return excess


def cost_of(lines: dict[str, Lines]) -> int:
    return sum(line.cost for line in lines.values())


def returned_share(lines: dict[str, Lines], returned: Sequence[ReturnedItem]) -> Fraction:
    """Return the share of the articles that was returned, 0 to 1. Of each article at most the bought quantity counts."""
    whole = cost_of(lines)
    share = Fraction(0)
    for item in returned:
        line = lines.get(item.sku)
        if line is not None:
            back = min(exact(item.quantity), line.quantity) / line.quantity
            share += back * (Fraction(line.cost, whole) if whole else line.quantity / _count(lines))
    return share


def _count(lines: dict[str, Lines]) -> Fraction:
    return sum((line.quantity for line in lines.values()), Fraction(0))


def add_up(items: Iterable[Item], known: Sequence[ReturnedItem] = ()) -> tuple[ReturnedItem, ...]:
    """Return the returned quantity of each article, including earlier returns. A discount is not returned."""
    returned = [item for item in items if is_positive(item.quantity) and item.unit_price >= 0]
    return merged(known, [ReturnedItem(sku=item.sku, quantity=item.quantity) for item in returned])


def merged(known: Sequence[ReturnedItem], more: Sequence[ReturnedItem]) -> tuple[ReturnedItem, ...]:
    sums: dict[str, AnyQuantity] = {each.sku: each.quantity for each in known}
    for each in more:
        sums[each.sku] = stored(exact(sums.get(each.sku, 0)) + exact(each.quantity))
    return tuple(ReturnedItem(sku=sku, quantity=quantity) for sku, quantity in sorted(sums.items()))
