"""Balances of all accounts by asset, added up from the entries while they are verified.

A system account has no row: its balance is the sum, with the opposite sign, of the entries that name it. Value between two accounts with
rows adds up to zero. The sum over all accounts of an asset is therefore zero.
"""

from msgspec import Struct

from guerdon.ledger.models import COUNTED, SYSTEM, Entry
from guerdon.money import is_asset_code
from guerdon.verification.account_replay import ReportViolation

WALLETS = "wallets"
"""Name of the sum of all accounts with rows: wallets and gift cards."""
COMMIT_MS = 60_000
"""Time after which no entry with an earlier time can be committed: the time is set at the decision, and a commit takes at most a minute."""


class TrialBalance(Struct):
    """Running sums. Accounts that count and hold no value are left out."""

    balances: dict[str, dict[str, int]] = {}
    """Balance of each account by asset, in minor units."""
    pairs: dict[str, int] = {}
    """Sum by asset of the value between two accounts, both of whose entries are older than `committed_before`."""
    committed_before: int = 0
    """Time in milliseconds up to which every entry was committed when the run began."""

    def add(self, entry: Entry) -> None:
        """Add an entry that was applied to its account."""
        if entry.amount == 0 or entry.counterparty == COUNTED or not is_asset_code(entry.asset):
            return
        accounts = self.balances.setdefault(entry.asset, {WALLETS: 0})
        accounts[WALLETS] += entry.amount
        if entry.counterparty.startswith(SYSTEM):
            accounts[entry.counterparty] = accounts.get(entry.counterparty, 0) - entry.amount

    def add_pair(self, entry: Entry, other_at: int) -> None:
        """Add one side of value between two accounts. The run meets the other side too if both were committed before it began."""
        if max(entry.at, other_at) < self.committed_before:
            self.pairs[entry.asset] = self.pairs.get(entry.asset, 0) + entry.amount

    def sorted(self) -> dict[str, dict[str, int]]:
        """Return the balances, ordered by asset and account; the accounts with rows come first."""
        return {
            asset: {WALLETS: accounts[WALLETS], **{name: accounts[name] for name in sorted(accounts.keys() - {WALLETS})}}
            for asset, accounts in sorted(self.balances.items())
        }

    def check(self, report_violation: ReportViolation) -> None:
        """Check that the accounts of each asset add up to zero.

        While the ledger is in use, a run may meet one side of a transfer that is committed meanwhile. Such a difference is not reported if the
        transfers that are older than the run add up to zero.
        """
        for asset, accounts in self.balances.items():
            total = sum(accounts.values())
            if total and self.pairs.get(asset, 0):
                report_violation("L1", asset, f"the balances of all accounts of {asset} add up to {total}")
