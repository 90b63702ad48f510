"""Short histories of one or two wallets, told in days, on the pure ledger."""

from dataclasses import replace

from guerdon.ledger.models import Lot
from tests.invariants.in_memory_ledger import NOW_MS, wallet_id
from tests.invariants.ledger_driver import Till
from tests.invariants.ledger_requests import Ask, Dates, Terms

DAY_MS = 86_400_000
MINE, THEIRS = wallet_id(1), wallet_id(2)


class History:
    """A till and the days of it; every request gets the next number as its key."""

    def __init__(self, zone: str = "Europe/Berlin") -> None:
        self.till = Till(zone)
        self.number = 0

    def on(self, day: float, kind: str, amount: int | None = None, wallet: str = MINE, **more: object) -> str:
        """Ask and return the key.

        Raises:
            GuerdonError: the refusal.
        """
        self.number += 1
        key = f"key-{self.number}"
        self.till.do(replace(Ask("debit", wallet, key, amount), kind=kind, **more), at(day))
        return key

    def credit(self, amount: int, *, until: float | None = None, since: float | None = None, **more: str) -> str:
        dates = Dates(more.pop("source", "paid"), None if since is None else at(since), None if until is None else at(until))
        return self.on(0, "credit", amount, dates=dates, **more)

    def hold(self, amount: int, days: float) -> str:
        return self.on(0, "hold", amount, ttl_ms=int(days * DAY_MS))

    def terms(self, **terms: int) -> None:
        self.on(0, "terms", terms=Terms(**terms))

    def lots(self, wallet: str = MINE) -> list[tuple[int, float | None]]:
        """(amount, expires on day)"""
        lots: tuple[Lot, ...] = self.till.store.accounts[wallet].lots or ()
        return [(lot.amount, None if lot.expires_at is None else (lot.expires_at - NOW_MS) / DAY_MS) for lot in lots]


def at(day: float) -> int:
    return NOW_MS + int(day * DAY_MS)
