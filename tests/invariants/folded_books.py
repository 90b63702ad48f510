"""Entries folded into views in memory, and the laws that the views obey, derived from the entries and accounts by other means."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from guerdon.calendar import Calendar
from guerdon.ledger.lots import UNDATED
from guerdon.ledger.models import COUNTED, SYSTEM, Account, Entry, LotDates
from guerdon.projections.models import Aggregate, Increment, Target
from guerdon.views.fold_entries import fold_entry
from guerdon.views.models import COHORT_MONTHS, COHORTS, DAYS, FLOWS, LOTS, TOTALS, AccountReadModel

TARGET = Target(1, 0)
Rows = dict[tuple[object, ...], Counter[str]]


class FoldedBooks:
    """States of accounts, and the rows of each aggregate as sums by key."""

    def __init__(self, calendar: Calendar) -> None:
        self.calendar = calendar
        self.states: dict[str, AccountReadModel] = {}
        self.rows: dict[str, Rows] = defaultdict(dict)

    def follow(self, entries: Iterable[Entry]) -> None:
        """Fold the entries that are new, each account in the order of its numbers."""
        for entry in sorted(entries, key=lambda entry: (entry.account, entry.seq)):
            state = self.states.get(entry.account)
            if state is None or entry.seq > state.seq:
                folded = fold_entry(state, entry, TARGET, calendar=self.calendar)
                self.states[entry.account] = folded.state
                self.add(folded.increments)

    def add(self, increments: Iterable[Increment]) -> None:
        for aggregate, key, changes in increments:
            assert len(key) == len(aggregate.key)
            assert set(changes) <= set(aggregate.sums)
            self.rows[aggregate.collection].setdefault(key, Counter()).update(changes)
            for rollup in aggregate.rollups:
                for rolled in rollup.keys_of(key):
                    assert len(rolled) == len(rollup.aggregate.key)
                    self.rows[rollup.aggregate.collection].setdefault(rolled, Counter()).update(changes)

    def sums(self, aggregate: Aggregate, *names: str) -> dict[tuple[object, ...], Counter[str]]:
        """Return the rows of an aggregate added up by some parts of its key."""
        found: dict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
        for key, row in self.rows[aggregate.collection].items():
            named = dict(zip(aggregate.key, key, strict=True))
            found[tuple(named[name] for name in names)].update(row)
        return {key: Counter({name: value for name, value in row.items() if value}) for key, row in found.items()}


def amounts(rows: Mapping[tuple[object, ...], Counter[str]], name: str = "amount") -> dict[tuple[object, ...], int]:
    return {key: row[name] for key, row in rows.items() if row[name]}


def lots_of(account: Account) -> dict[LotDates, int]:
    """Return the value of an account by its dates, held value included, from the row of the account."""
    lots: Counter[LotDates] = Counter()
    for lot in (*(account.lots or ()), *(lot for hold in account.holds for lot in hold.lots)):
        lots[lot.dates] += lot.amount
    lots[UNDATED] = account.balance - sum(lots.values())
    return {dates: amount for dates, amount in lots.items() if amount}


def assert_views(books: FoldedBooks, accounts: Mapping[str, Account], entries: Iterable[Entry]) -> None:
    """Check every law of the views of entries."""
    entries = list(entries)
    money = {name: account for name, account in accounts.items() if account.kind in ("wallet", "gift_card")}
    for name, account in accounts.items():
        state = books.states[name]
        assert (state.seq, state.at, state.balance, state.held) == (account.seq, account.at, account.balance, account.held)
        assert (state.kind, state.counts_money) == (account.kind, name in money)
    for name, account in money.items():
        assert_queues(books.states[name], account)
    assert_days(books, money, entries)
    assert_sums(books, money)


def assert_queues(state: AccountReadModel, account: Account) -> None:
    queues = {queue.dates: sum(cohort.amount for cohort in queue.cohorts) for queue in state.queues}
    assert queues == lots_of(account)
    assert sum(queues.values()) == account.balance
    for queue in state.queues:
        assert all(cohort.amount for cohort in queue.cohorts)
        debts = [cohort.debt is not None for cohort in queue.cohorts]
        assert not any(debts) or (all(debts) and queue.dates == UNDATED)
        assert all((cohort.amount < 0) == (cohort.debt is not None) for cohort in queue.cohorts)
    free = [lot.expires_at for lot in account.lots or () if lot.expires_at is not None]
    assert state.next_expires_at == min(free, default=None)


def assert_days(books: FoldedBooks, money: Mapping[str, Account], entries: Iterable[Entry]) -> None:
    balances: Counter[tuple[str]] = Counter()
    by_day: Counter[tuple[str, str]] = Counter()
    numbers: Counter[tuple[str]] = Counter()
    systems: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        if entry.account in money and entry.amount:
            balances[entry.asset,] += entry.amount
            by_day[entry.asset, books.calendar.local(entry.at).date().isoformat()] += entry.amount
            numbers[entry.asset,] += 1
            systems[entry.asset, entry.counterparty if entry.counterparty.startswith(SYSTEM) else "wallets"] += entry.amount
    assert amounts(books.sums(DAYS, "asset")) == {key: value for key, value in balances.items() if value}
    assert amounts(books.sums(DAYS, "asset", "day")) == {key: value for key, value in by_day.items() if value}
    assert amounts(books.sums(DAYS, "asset"), "count") == dict(numbers)
    assert amounts(books.sums(DAYS, "asset", "counterparty")) == {key: value for key, value in systems.items() if value}
    assert all(key[1] not in ("wallets", COUNTED) for key in amounts(books.sums(DAYS, "asset", "counterparty")))
    for row in books.rows[DAYS.collection].values():
        assert row["amount"] == row["paid"] + row["promotional"]


def assert_sums(books: FoldedBooks, money: Mapping[str, Account]) -> None:
    """Totals are the sums of the accounts, lots those of the queues, and cohorts those of what is left in them."""
    totals: dict[tuple[object, ...], Counter[str]] = defaultdict(Counter)
    lots: Counter[tuple[object, ...]] = Counter()
    held: Counter[tuple[object, ...]] = Counter()
    left: Counter[tuple[object, ...]] = Counter()
    calendar = books.calendar
    for name, account in money.items():
        row = totals[account.asset,]
        row.update(wallets=1, balance=account.balance, held=account.held, debt=min(account.balance, 0))
        for (source, available_at, expires_at, _), amount in lots_of(account).items():
            available = "" if available_at is None else calendar.local(available_at).date().isoformat()
            available = "awaiting" if available == "9999-12-31" else available
            expires = "" if expires_at is None else calendar.local(expires_at).date().isoformat()
            lots[account.asset, source, available, expires] += amount
        undated = account.held
        for lot in (lot for hold in account.holds for lot in hold.lots):
            expires = "" if lot.expires_at is None else calendar.local(lot.expires_at).date().isoformat()
            held[account.asset, lot.source, "", expires] += lot.amount
            undated -= lot.amount
        held[account.asset, "paid", "", ""] += undated
        for queue in books.states[name].queues:
            for cohort in queue.cohorts:
                left[account.asset, queue.source, cohort.month, cohort.campaign, cohort.version] += cohort.amount
    assert {key: +row for key, row in books.sums(TOTALS, "asset").items()} == {key: +row for key, row in totals.items()}
    assert amounts(books.sums(TOTALS, "asset"), "debt") == {key: row["debt"] for key, row in totals.items() if row["debt"]}
    assert amounts(books.sums(LOTS, *LOTS.key)) == {key: amount for key, amount in lots.items() if amount}
    assert amounts(books.sums(LOTS, *LOTS.key), "held") == {key: amount for key, amount in held.items() if amount}
    cohorts = ("asset", "source", "earned_month", "campaign", "campaign_version")
    assert amounts(books.sums(COHORTS, *cohorts)) == {key: amount for key, amount in left.items() if amount}
    for source in ("paid", "promotional"):
        from_days = {key: row[source] for key, row in books.sums(DAYS, "asset").items() if row[source]}
        from_cohorts = {
            key[:1]: row["amount"]
            for key, row in books.sums(COHORTS, "asset", "source").items()
            if key[1] == source and row["amount"]
        }
        assert from_days == from_cohorts
    months = ("asset", "source", "earned_month", "move", "month")
    assert amounts(books.sums(COHORT_MONTHS, *months)) == amounts(books.sums(COHORTS, *months))
    for unit, length in (("day", 10), ("month", 7)):
        fine: Counter[tuple[object, ...]] = Counter()
        for (asset, day, flow, counterparty), row in books.sums(DAYS, "asset", "day", "flow", "counterparty").items():
            fine[asset, unit, str(day)[:length], flow, counterparty] += row["promotional"]
        coarse = {key: value for key, value in amounts(books.sums(FLOWS, *FLOWS.key), "promotional").items() if key[1] == unit}
        assert coarse == {key: value for key, value in fine.items() if value}
    moved = {"earned": "earned", "loaded": "earned", "restored": "redeemed"}
    flows: Counter[tuple[object, ...]] = Counter()
    for (asset, day, flow), row in books.sums(DAYS, "asset", "day", "flow").items():
        flows[asset, str(day)[:7], moved.get(str(flow), flow)] += row["amount"]
    moves = amounts(books.sums(COHORTS, "asset", "month", "move"))
    assert {key: value for key, value in flows.items() if value} == moves
