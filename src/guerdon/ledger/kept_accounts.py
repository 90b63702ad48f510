"""Accounts kept between commits: a batch is decided on the state that this process has written last, without reading it again.

The `_id` of the entries guards a kept account: if another process has changed it, entry `seq + 1` exists, and the commit fails as a whole.
The unique index guards the keys in the same way. Nothing guards what a batch does not write, so a plan with a refusal, with a recorded answer,
or without an entry on a kept account is decided again on a fresh read. See docs/adr/0027-kept-accounts.md.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from guerdon.clock import Clock
from guerdon.errors import GuerdonError
from guerdon.ledger.decide import WritePlan
from guerdon.ledger.models import Account, Command

KEPT_MAX = 10_000
"""Number of accounts that a process keeps, about 0.6 KiB each."""
PARTS_MAX = 8
"""Number of lots and holds above which an account is not kept, because of its size."""
PAUSE_START_SECONDS, PAUSE_CAP_SECONDS = 0.05, 10.0
"""Time without the use of kept accounts after one was out of date; it doubles with each failure in a row and is halved by each success."""


class KeptAccounts:
    """The accounts that this process has written last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        """By id, the account that was written last at the end."""
        self._pause_seconds = 0.0
        self._usable_from = 0.0

    def of(self, commands: Sequence[Command[Any]]) -> dict[str, Account] | None:
        """Return the kept accounts of a batch by id, or None if the batch must be read.

        A command that names documents is always read. If no account of the batch is kept, one read of everything is as cheap.
        """
        if self._clock.monotonic() < self._usable_from:
            return None
        kept = self._accounts
        found: dict[str, Account] = {}
        for command in commands:
            if command.documents:
                return None
            for name in command.accounts:
                if (account := kept.get(name)) is not None:
                    found[name] = account
        return found or None

    def keep(self, plan: WritePlan) -> None:
        """Keep the accounts of a plan that was committed."""
        kept = self._accounts
        for name, account in plan.moved.items():
            kept.pop(name, None)
            if len(account.lots or ()) + len(account.holds) <= PARTS_MAX:
                kept[name] = account
        while len(kept) > KEPT_MAX:
            del kept[next(iter(kept))]

    def drop(self, account_ids: Sequence[str] | frozenset[str]) -> None:
        """Forget accounts that another process may have changed."""
        for name in account_ids:
            self._accounts.pop(name, None)

    def succeeded(self) -> None:
        """Record that a batch on kept accounts was committed."""
        self._pause_seconds /= 2

    def failed(self) -> None:
        """Pause, because a kept account or a key was out of date: processes that share their accounts, or clients that repeat requests."""
        self._pause_seconds = min(max(self._pause_seconds * 2, PAUSE_START_SECONDS), PAUSE_CAP_SECONDS)
        self._usable_from = self._clock.monotonic() + self._pause_seconds


def is_guarded(plan: WritePlan, commands: Sequence[Command[Any]], kept: dict[str, Account]) -> bool:
    """Return True if the commit of a plan fails whenever a fresh read could have led to another plan.

    That is so if each kept account gets an entry, each unique key is inserted, and no command is refused or answered from the records.
    """
    if any(isinstance(result, GuerdonError) or result.replayed for result in plan.results):
        return False
    if not kept.keys() <= plan.moved.keys():
        return False
    inserted = set(chain.from_iterable(entry.unique_keys for entry in plan.entries if entry.unique_keys))
    return inserted.issuperset(chain.from_iterable(command.unique_keys for command in commands))
