"""What a verification says: the laws, and where they are broken."""

from typing import Literal

from msgspec import Struct

Law = Literal["L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8", "L10", "L11", "CP"]
LAWS: dict[Law, str] = {
    "L1": "conservation: the sides of every transaction sum to zero for each asset",
    "L2": "derivation: each balance, and every rule of an account, is what its entries say",
    "L3": "guards: no account passed its floor, its ceiling or a spending limit, or moved while it was frozen or closed",
    "L4": "once: a key or reference of a member stands for one transaction at most",
    "L5": "answers: every award, hold and refund that was promised stands on the ledger, and no refusal beside a success",
    "L6": "append only: no gap, no repeat, and an unbroken hash chain in every account",
    "L7": "lots: no value is spent before its time, after it, twice, or out of order, and no date moves",
    "L8": "outbox: every transaction has one first entry, which stands in the log, and its further sides name it",
    "L10": "no orphan: nothing lapses unseen, and no hold outlives its end",
    "L11": "vouchers: what they say is what their accounts say, stocks count what was issued, and no price goes back twice",
    "CP": "checkpoints: the books still hold everything that was signed",
}


class Violation(Struct, frozen=True):
    """One broken law: where it shows first, and how."""

    law: Law
    where: str
    detail: str


class VerificationReport(Struct):
    """What was read and what is wrong; `first` holds the first violation of each law."""

    violations: int = 0
    accounts: int = 0
    entries: int = 0
    first: dict[Law, Violation] = {}
    overdue: int = 0
    """Accounts on which something has lapsed that is not booked yet; no violation, since it cannot be spent."""
    checkpoints: int = 0
    """Number of the newest checkpoint that the books were held against; 0 where there is none."""
    signatures: Literal["verified", "no checkpoints", "not checked: no key"] = "no checkpoints"

    def blame(self, law: Law, where: str, detail: str) -> None:
        self.violations += 1
        self.first.setdefault(law, Violation(law, where, detail))
