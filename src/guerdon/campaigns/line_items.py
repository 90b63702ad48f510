"""Line items of an event that a campaign applies to, and the share of them that is returned. Pure.

A line item counts by its cost, `quantity` times `unit_price`, or by its quantity if no line item has a price. Line items of one article are
added up. Imports may hold negative quantities and prices; these do not count.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

from msgspec import Struct

from guerdon.campaigns.domain import Item, ReturnedItem
from guerdon.campaigns.models import ItemsOf


class Lines(Struct, frozen=True):
    """Quantity and cost (in minor units) of one article."""

    quantity: int
    cost: int


def chosen(items: Iterable[Item], wanted: ItemsOf | None = None) -> dict[str, Lines]:
    """Return, by SKU, the articles that match the campaign's `items`; all of them if `wanted` is None."""
    lines: dict[str, Lines] = {}
    for item in items:
        if item.quantity > 0 and (wanted is None or item.sku in wanted.skus or item.category in wanted.categories):
            known = lines.get(item.sku, Lines(0, 0))
            cost = known.cost + item.quantity * max(item.unit_price, 0)
            lines[item.sku] = Lines(known.quantity + item.quantity, cost)
    return lines


def cost_of(lines: dict[str, Lines]) -> int:
    return sum(line.cost for line in lines.values())


def returned_share(lines: dict[str, Lines], returned: Sequence[ReturnedItem]) -> Fraction:
    """Return the share of the articles that was returned, 0 to 1. Of each article at most the bought quantity counts."""
    whole = cost_of(lines)
    share = Fraction(0)
    for item in returned:
        line = lines.get(item.sku)
        if line is not None:
            back = Fraction(min(item.quantity, line.quantity), line.quantity)
            share += back * (Fraction(line.cost, whole) if whole else Fraction(line.quantity, _count(lines)))
    return share


def _count(lines: dict[str, Lines]) -> int:
    return sum(line.quantity for line in lines.values())


def add_up(items: Iterable[Item], known: Sequence[ReturnedItem] = ()) -> tuple[ReturnedItem, ...]:
    """Return the returned quantity of each article, including earlier returns."""
    return merged(known, [ReturnedItem(sku=item.sku, quantity=item.quantity) for item in items if item.quantity > 0])


def merged(known: Sequence[ReturnedItem], more: Sequence[ReturnedItem]) -> tuple[ReturnedItem, ...]:
    sums = {each.sku: each.quantity for each in known}
    for each in more:
        sums[each.sku] = sums.get(each.sku, 0) + each.quantity
    return tuple(ReturnedItem(sku=sku, quantity=quantity) for sku, quantity in sorted(sums.items()))
