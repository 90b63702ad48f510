"""Steps of vouchers as they appear in entries: what an offer has issued, and what became of it. Pure.

A step counts the uses that it concerns; of a gift card, which is one voucher, it counts 1. `amount` is money: that of gift cards, and the
discount of a used voucher. The stock of the offer tells how many were issued, also for codes that were never used.
"""

from typing import NamedTuple

from guerdon.ledger.models import parse_location
from guerdon.projections.models import Increment
from guerdon.views.entries import AnyEntry
from guerdon.views.models import OFFERS

MOVES = {"use": "used", "unuse": "unused", "load": "loaded", "cancel": "cancelled", "expiry": "expired"}
"""Moves of entries that change what is left on a voucher."""
OFFER = "off_"


class Issuer(NamedTuple):
    """Offer of a voucher, and its version. "" and 0 if they are not known."""

    offer: str = ""
    version: int = 0


def issuer_of(entry: AnyEntry, known: Issuer) -> Issuer:
    """Return the offer of the account of a voucher or stock: that of its first entry, which issues it."""
    if known.offer:
        return known
    version = entry.metadata.get("version", "")
    number = int(version) if version.isdecimal() else 0
    offer = entry.metadata.get("offer", "")
    if not offer and entry.owner.startswith(OFFER):
        offer = entry.owner
    if not offer and entry.transaction is not None:
        # The voucher of a shared code is issued by a transaction that begins with the stock of its offer.
        location = parse_location(entry.transaction)
        owner = "" if location is None else location[0].partition(":")[0]
        offer = owner if owner.startswith(OFFER) else ""
    return Issuer(offer, number)


def voucher_increments(kind: str, entry: AnyEntry, issuer: Issuer, day: str) -> list[Increment]:
    """Return the changes of `OFFERS` by an entry of an account of this kind."""
    if kind == "stock":
        return _stock_increments(entry, issuer, day)
    if kind not in ("voucher", "gift_card"):
        return []
    is_card = kind == "gift_card"
    hold, amount = entry.hold, entry.amount
    if entry.kind == "issue":
        return [_increment(day, issuer, "issued", 0, amount)] if is_card else []
    if hold is not None and not amount:
        if hold.change > 0:
            return [_increment(day, issuer, "reserved", 1 if is_card else hold.change, hold.change if is_card else 0)]
        # What a use leaves of its reservation is released by an entry of the kind `void`.
        count = 0 if entry.kind == "void" else 1 if is_card else -hold.change
        return [_increment(day, issuer, "released", count, -hold.change if is_card else 0)]
    move = MOVES.get(entry.kind)
    if move is None:
        return []
    discount = entry.metadata.get("discount", "")
    money = abs(amount) if is_card else int(discount) if move == "used" and discount.isdecimal() else 0
    return [_increment(day, issuer, move, 1 if is_card else abs(amount), money)]


def _stock_increments(entry: AnyEntry, issuer: Issuer, day: str) -> list[Increment]:
    returned = entry.kind == "cancel" and "voucher" not in entry.metadata
    if entry.kind != "issue" and not returned:
        return []
    # A code batch that failed is taken out of the stock; a cancelled voucher is told by its own account.
    version = entry.metadata.get("version", "")
    number = int(version) if version.isdecimal() else 0
    return [_increment(day, Issuer(issuer.offer, number), "issued", entry.amount, 0)]


def _increment(day: str, issuer: Issuer, move: str, count: int, amount: int) -> Increment:
    return Increment(OFFERS, (day, issuer.offer, issuer.version, move), {"count": count, "amount": amount})
