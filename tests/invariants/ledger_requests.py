"""What may be asked of the books and what may come of it, in words that the ledger and the model of it share."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

Kind = Literal[
    "credit", "debit", "transfer", "hold", "capture", "void", "reversal", "freeze", "unfreeze", "close", "terms", "award", "confirmation",
    "transaction", "exchange",
]  # fmt: skip
WAITING = 253_402_300_799_999
"""The date of value that has none before it is confirmed: the last millisecond of the year 9999."""
STATUS_AFTER = {"freeze": "frozen", "unfreeze": "open", "close": "closed"}


SEVERAL = {"transaction", "exchange"}
"""What is taken back whole or not at all."""
RATE = (3, 2)
"""So many points are so many pence; the rest of a penny is dropped."""


class Terms(NamedTuple):
    floor: int = 0
    ceiling: int = 10**18
    day: int | None = None
    month: int | None = None


NO_TERMS = Terms()


class Dates(NamedTuple):
    source: str = "paid"
    available_at: int | None = None
    expires_at: int | None = None
    first_expires_at: int | None = None

    def at(self, now: int) -> "Dates":
        """A date that has passed is forgotten."""
        return self if self.available_at is None or self.available_at > now else self._replace(available_at=None)

    @property
    def place(self) -> tuple[float, bool, int, int]:
        """The spend order."""
        until = float("inf") if self.expires_at is None else self.expires_at
        return (until, self.source == "paid", self.available_at or 0, self.first_expires_at or 0)


PLAIN = Dates()
Piece = tuple[Dates, int]
Pieces = list[Piece]


@dataclass(frozen=True)
class Ask:
    """What somebody asks for. `about` is the key of the hold, the transaction or the award that it is about.

    An award waits to be confirmed, and lapses by its `dates`; those of a confirmation are what it gives.
    """

    kind: Kind
    wallet: str
    key: str
    amount: int | None = None
    to: str | None = None
    reference: str | None = None
    dates: Dates = PLAIN
    ttl_ms: int = 0
    about: str = ""
    final: bool = False
    terms: Terms = NO_TERMS
    parts: tuple[tuple[str, int], ...] = ()
    """Wallets and signed amounts of a transaction, the first debited one first; what they do not balance is breakage, or exchanged."""

    @property
    def owner(self) -> str:
        return self.wallet.partition(":")[0]

    @property
    def content(self) -> "Ask":
        return replace(self, key="")


class Answer(NamedTuple):
    """`code` is None when it was done; then `after` is (balance, held) of the first wallet right after."""

    code: str | None
    after: tuple[int, int] | None = None
    replayed: bool = False
