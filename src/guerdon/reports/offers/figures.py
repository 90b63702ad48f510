"""Figures of offers from the rows of the views and the counts of refusals. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from guerdon.offers.models import Offer

MOVES = ("issued", "reserved", "released", "used", "unused", "loaded", "cancelled", "expired")


class OfferTally:
    """Sums of one offer or one period."""

    def __init__(self) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.amounts: defaultdict[str, int] = defaultdict(int)
        self.paid: defaultdict[str, int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        self.use_refusals: defaultdict[str, int] = defaultdict(int)

    def add_move(self, row: Mapping[str, Any]) -> None:
        """Add a row of `OFFERS`."""
        self.counts[row["move"]] += row["count"]
        self.amounts[row["move"]] += row["amount"]

    def add_price(self, row: Mapping[str, Any]) -> None:
        """Add a row of `DAYS`."""
        self.paid[row["asset"]] -= row["amount"]

    def add_refusal(self, row: Mapping[str, Any]) -> None:
        """Add a count of refusals."""
        sums = self.refusals if row["step"] == "redeem" else self.use_refusals
        sums[row["reason"]] += row["count"]

    def figures(self) -> dict[str, Any]:
        """Return the fields of `OfferFigures`."""
        issued = self.counts["issued"]
        return {
            **{move: self.counts[move] for move in MOVES},
            "use_share": round((self.counts["used"] - self.counts["unused"]) / issued, 6) if issued > 0 else None,
            "issued_amount": self.amounts["issued"],
            "used_amount": self.amounts["used"],
            "price_paid": {asset: amount for asset, amount in sorted(self.paid.items()) if amount},
            "refusals": dict(sorted(self.refusals.items())),
            "use_refusals": dict(sorted(self.use_refusals.items())),
        }


def currency_of(offer: Offer) -> str | None:
    """Return the currency of the vouchers' value, or None."""
    return None if offer.value is None else getattr(offer.value, "currency", None)
