"""Prints docs/api/award-types.md, the table of award types, from their registry: `make docs`."""

from pathlib import Path

import msgspec

from guerdon.campaigns.award_types import AWARD_TYPES, AwardBasis, AwardType
from guerdon.campaigns.cel import compile_formula, facts_of

PATH = Path(__file__).parents[2] / "docs" / "api" / "award-types.md"
EVENT = {
    "id": "order-1001", "type": "purchase", "amount": 13912, "currency": "GBP", "items": [], "attributes": {},
    "occurred_at": "2026-01-31T12:00:00.000Z",
}  # fmt: skip
REFUNDS = {
    "proportional": "the refunded share of the purchase; for an award on certain `items`, the returned share of these items",
}
"""By refund rule: what a refund takes back."""
_HEAD = """# Award types

`make docs` writes this page from `src/guerdon/campaigns/award_types.py`. Each row is a value of `award` in a [campaign](campaigns.md#awards).
Decimals have at most four places. `rounding` is `floor` (the default), `ceil` or `half_even`. Amounts are in minor units.

"""


def amount_of(award_type: AwardType[msgspec.Struct]) -> int | None:
    """Return what the type's example pays for `EVENT`."""
    expression = None if award_type.formula is None else award_type.formula(award_type.example)
    formula = None if expression is None else compile_formula(expression, "/award/expression")
    basis = AwardBasis(int(str(EVENT["amount"])), formula=formula, facts=facts_of(EVENT, {}, 0))
    return award_type.amount(award_type.example, basis)[0]


def current() -> str:
    """Return the page as the code is now."""
    rows = [
        f"| `{msgspec.json.encode(each.example).decode()}` | {' '.join(each.documentation.split())} | {amount_of(each)} "
        f"| {REFUNDS[each.refund_rule]} |\n"
        for each in AWARD_TYPES.values()
    ]
    head = f"| example | amount | for a purchase of {EVENT['amount']} | a refund takes back |\n|---|---|---|---|\n"
    return _HEAD + head + "".join(rows)


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
