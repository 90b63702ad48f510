"""Result of a verification: the laws and their violations."""

from typing import Literal

from msgspec import Struct

Law = Literal["L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L10", "L11", "L12", "L13", "L14", "L15", "L16", "CP"]
LAWS: dict[Law, str] = {
    "L1": "conservation: the sides of every transaction sum to zero for each asset",
    "L2": "derivation: each balance and all rules of an account follow from its entries",
    "L3": "guards: no account passed its minimum balance, its ceiling or a spending limit, or moved while it was frozen or closed",
    "L4": "uniqueness: a key or reference of a member belongs to at most one transaction",
    "L5": "answers: every stored award, hold and refund is on the ledger, and no refusal exists beside a success",
    "L6": "append only: no gap, no repetition, and an unbroken hash chain in every account",
    "L7": "lots: no value is spent before it is available, after its expiry, twice or out of order, and no date changes",
    "L8": "outbox: every transaction has one first entry, and its further sides name it",
    "L10": "expiry: every expiry is booked in time, and no hold outlives its end",
    "L11": "vouchers: vouchers agree with their accounts, stocks count the issued vouchers, and no price is returned twice",
    "L12": "evidence: what was paid or redeemed agrees with the event, the void, the campaign, the offer and the voucher that justified it",
    "L13": "members: events, voids and tier changes form an unbroken chain, and the state and the refunds of the member follow from it",
    "L14": "versions: no published version of a campaign, an offer, a segment or the tiers was changed or removed, and those in force are published",
    "L15": "erasures: the audit log is unbroken, and each certificate agrees with it and with the ledger",
    "L16": "month close: no figure of a closed month was changed or removed since the audit log recorded its digest",
    "CP": "checkpoints: the ledger agrees with everything that was signed",
}


class Violation(Struct, frozen=True):
    """Violation of a law."""

    law: Law
    where: str
    """Id of the object, such as an entry, an account or `{collection}/{id}`."""
    detail: str


class VerificationReport(Struct):
    """Result of a verification, printed as JSON."""

    violations: int = 0
    """Number of violations."""
    accounts: int = 0
    """Number of accounts that were read."""
    entries: int = 0
    """Number of entries that were read."""
    first: dict[Law, Violation] = {}
    """First violation of each broken law."""
    overdue: int = 0
    """Number of accounts with expired value that is not booked yet. This is not a violation: the value cannot be spent."""
    ahead: int = 0
    """Number of entries that are dated after the time of the database. This is not a violation, but a clock was wrong: value may have expired early."""
    first_ahead: str | None = None
    """Id of the first of these entries."""
    balances: dict[str, dict[str, int]] = {}
    """Balance of `wallets` and of each system account by asset, in minor units. They add up to 0 for each asset."""
    checkpoints: int = 0
    """Number of the newest checkpoint that was checked; 0 without checkpoints."""
    signatures: Literal["verified", "no checkpoints", "not checked: no key"] = "no checkpoints"

    def add(self, law: Law, where: str, detail: str) -> None:
        """Add a violation."""
        self.violations += 1
        self.first.setdefault(law, Violation(law, where, detail))
