"""Classification of entries into the columns of the roll-forward. Pure.

The counterparty decides, because it says where value came from or went to; the sign and the kind tell the rest apart.
"""

from guerdon.ledger.models import BREAKAGE, CASH, EXCHANGE, ISSUER, MERCHANT, SYSTEM
from guerdon.views.entries import AnyEntry
from guerdon.views.models import CohortMove, Flow

WALLETS = "wallets"
"""Counterparty of value from or to another wallet."""
MOVES: dict[Flow, CohortMove] = {
    "earned": "earned",
    "loaded": "earned",
    "restored": "redeemed",
    "redeemed": "redeemed",
    "expired": "expired",
    "clawed_back": "clawed_back",
    "adjusted": "adjusted",
    "transferred": "transferred",
}
"""Move of a cohort that belongs to a flow. Value that is restored cancels the move that took it."""
HOLDER_FLOWS = frozenset[Flow]({"earned", "loaded", "redeemed", "transferred"})
"""Flows that the holder of a wallet causes."""


def flow_of(entry: AnyEntry) -> Flow:
    """Return the flow of an entry that changes the balance of a wallet.

    | counterparty | value arrives | value leaves |
    |---|---|---|
    | another wallet, `system:exchange` | transferred | transferred |
    | `system:breakage` | expired (an expiry is reversed) | expired |
    | `system:merchant` | restored | redeemed |
    | `system:issuer`, `system:cash` | earned if it is an award or a part is promotional, else loaded; adjusted if reversed | clawed_back for the kind `clawback`, else adjusted |
    | others | adjusted | adjusted |
    """
    counterparty, amount = entry.counterparty, entry.amount
    if counterparty == MERCHANT:
        return "redeemed" if amount < 0 else "restored"
    if counterparty in (ISSUER, CASH):
        if amount < 0:
            return "clawed_back" if entry.kind == "clawback" else "adjusted"
        if entry.reverses is not None:
            return "adjusted"
        if entry.kind == "award" or (entry.lots is not None and any(lot.source == "promotional" for lot in entry.lots)):
            return "earned"
        return "loaded"
    if counterparty == BREAKAGE:
        return "expired"
    if counterparty == EXCHANGE or not counterparty.startswith(SYSTEM):
        return "transferred"
    return "adjusted"


def is_return(entry: AnyEntry) -> bool:
    """Return True if the entry returns value that left the account earlier."""
    return entry.amount > 0 and (entry.reverses is not None or entry.counterparty in (MERCHANT, BREAKAGE))
