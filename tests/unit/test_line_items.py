"""Quantities with decimals, costs of lines, and discounts below zero: exact, without floats."""

import random
from fractions import Fraction

import msgspec
import pytest
from msgspec import Struct

from guerdon.campaigns.domain import Item, ReturnedItem
from guerdon.campaigns.line_items import add_up, chosen, cost_of, costs_of, returned_share
from guerdon.campaigns.models import ItemsOf
from guerdon.quantities import Quantity, exact, line_cost, stored

TEA = ItemsOf(categories=["tea"])


class Line(Struct):
    quantity: Quantity


def item(sku: str, quantity: int | str, price: int, category: str | None = None) -> Item:
    return Item(sku=sku, quantity=quantity, unit_price=price, category=category)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0.352", "0.352"), ("2.500", "2.5"), ("2.0", 2), ("2", 2), ("999999.999999", "999999.999999"), ("0.000001", "0.000001"), ("10", 10),
        ("100.10", "100.1"),
    ],
)  # fmt: skip
def test_decimal_quantity_has_one_stored_form(text: str, kept: int | str) -> None:
    quantity = msgspec.json.decode(f'{{"quantity":"{text}"}}', type=Line).quantity
    assert stored(quantity) == kept
    assert exact(stored(quantity)) == Fraction(text)
    assert stored(stored(quantity)) == kept


@pytest.mark.parametrize(
    "value",
    [
        "0", "-1", "0.5", "1.5", "2.0", "1e3", "1000001", '"0"', '"0.0"', '"0.000000"', '"-1"', '"+1"', '".5"', '"1."', '"01"', '"1e3"', '"1E-3"', '"NaN"', '"nan"',
        '"Infinity"', '"0.0000001"', '"1000000.5"', '"1,5"', '" 1"', '"1 "', '"1\\n"', '"\\u0661"', '""', "true", "null", "[]",
    ],
)  # fmt: skip
def test_other_quantity_is_refused(value: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f'{{"quantity":{value}}}', type=Line)


@pytest.mark.parametrize(
    ("quantity", "price", "cost"),
    [
        ("0.352", 2490, 876), ("0.5", 1, 1), ("0.49", 1, 0), ("1.5", 1, 2), ("2.5", 1, 3), ("0.5", -1, -1), ("1.5", -1, -2), ("0.49", -1, 0), (3, 255, 765), (3, -255, -765),
        ("999999.999999", 10**15, 999999999999000000000), ("0.1", 10**15 - 5, 10**14), ("0.000001", 499_999, 0), ("0.000001", 500_000, 1),
    ],
)  # fmt: skip
def test_cost_of_a_line_is_rounded_half_up(quantity: int | str, price: int, cost: int) -> None:
    assert line_cost(quantity, price) == cost


def test_discount_reduces_its_article_its_category_or_the_order() -> None:
    lines = [item("A", 1, 2000, "tea"), item("B", 1, 1000, "tea"), item("C", 1, 1000, "mug")]
    for discount, costs in (
        (item("A", 1, -500, "tea"), [1500, 1000, 1000]),
        (item("T", 1, -600, "tea"), [1600, 800, 1000]),
        (item("COUPON", 1, -400, "discount"), [1800, 900, 900]),
        (item("COUPON", 2, -200), [1800, 900, 900]),
        (item("A", 1, -2400), [0, 800, 800]),
        (item("COUPON", 1, -9999), [0, 0, 0]),
        (item("COUPON", 1, -1), [2000, 1000, 999]),
    ):
        assert [cost for _, cost in costs_of([*lines, discount])] == costs, discount
        assert [cost for _, cost in costs_of([discount, *lines])] == costs, discount


def test_discounts_are_shared_out_whole_and_no_line_falls_below_zero() -> None:
    rng = random.Random(14)
    for _ in range(2000):
        names = [rng.choice("ABCDE") for _ in range(rng.randint(1, 8))]
        quantities = [rng.choice([1, 2, 7, "0.352", "1.5", "12.000001"]) for _ in names]
        items = [
            item(name, quantity, rng.randint(-300, 1000), rng.choice([None, "tea", "mug", "discount"]))
            for name, quantity in zip(names, quantities, strict=True)
        ]
        costs = costs_of(items)
        signed = [line_cost(each.quantity, each.unit_price) for each in items]
        assert all(0 <= cost <= line_cost(each.quantity, each.unit_price) for each, cost in costs)
        assert sum(cost for _, cost in costs) == max(0, sum(signed)), items
        whole, tea = chosen(items), chosen(items, TEA)
        assert 0 <= cost_of(tea) <= cost_of(whole)
        every = add_up(items)
        assert returned_share(whole, every) == (1 if whole else 0)
        assert returned_share(tea, every) == (1 if tea else 0)


def test_parts_of_a_weight_are_returned_exactly() -> None:
    bought = [item("CHEESE", "0.352", 2490, "tea"), item("CUP", 1, 1000)]
    lines = chosen(bought, TEA)
    parts = [ReturnedItem(sku="CHEESE", quantity=part) for part in ("0.1", "0.052", "0.2")]
    share = Fraction(0)
    for part in parts:
        before, share = share, share + returned_share(lines, [part])
        assert share - before == exact(part.quantity) / Fraction("0.352")
    assert share == 1
    assert returned_share(lines, [ReturnedItem(sku="CHEESE", quantity=9)]) == 1, "at most what was bought"


def test_returned_quantities_are_added_exactly_and_without_discounts() -> None:
    first = add_up([item("A", "0.1", 5), item("A", "0.2", 5), item("COUPON", 1, -5), item("B", 1, 5)])
    assert first == (ReturnedItem(sku="A", quantity="0.3"), ReturnedItem(sku="B", quantity=1))
    assert add_up([item("A", "0.7", 5), item("B", 2, 0)], first) == (
        ReturnedItem(sku="A", quantity=1), ReturnedItem(sku="B", quantity=3),
    )  # fmt: skip


def test_whole_quantities_are_stored_as_before() -> None:
    assert msgspec.json.encode(Item(sku="A", quantity=3, unit_price=255)) == b'{"sku":"A","quantity":3,"unit_price":255}'
    assert msgspec.convert({"sku": "A", "quantity": -3}, Item) == Item(sku="A", quantity=-3)
    assert chosen([item("A", -3, 5, "tea")], TEA) == {}, "a negative quantity of an import does not count"
