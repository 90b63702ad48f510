"""The check of the views against the ledger and the events."""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial

from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.database import Database, Document, Session
from guerdon.errors import DatabaseUnavailable
from guerdon.projections.models import Increment
from guerdon.projections.reading import Views
from guerdon.reports.check.comparison import (
    BUCKET,
    BUCKET_LENGTH,
    Difference,
    Subtotal,
    Sums,
    add_to,
    compare,
    expand,
    rows_to_sums,
    subtotal_of,
)
from guerdon.reports.check.events import subtotals_of_events
from guerdon.reports.check.money import subtotals_of_money
from guerdon.reports.check.subjects import Pending, SubjectCheck, TooFarBehind
from guerdon.reports.check.vouchers import subtotal_of_offers
from guerdon.verification.snapshots import in_snapshot
from guerdon.views.models import ACCOUNT_STATES, COHORTS, DAYS, MEMBER_STATES, PURCHASES, TOTALS

WALLETS = "wallets"


class CheckReport(Struct, frozen=True, kw_only=True):
    """Result of a check."""

    view_version: int
    accounts: int
    """Number of accounts whose state was compared."""
    members: int
    pending: int
    """Number of entries, events and voids that the views did not have yet. They were added before the comparison."""
    values: int
    """Number of sums that were compared."""
    differences: dict[str, int]
    """Number of differences by view."""
    first: list[Difference]
    """First difference of each view."""
    trial_balance: dict[str, dict[str, int]]
    """By asset: balances of the wallets together and of each system account, from the views. They add up to 0."""

    @property
    def equal(self) -> bool:
        return not self.differences


class NotChecked(Exception):
    """The views cannot be compared. The message says why."""


async def check_views(database: Database, views: Views, calendar: Calendar) -> CheckReport:
    """Compute every sum of the serving views a second time and compare, in one snapshot of the database. The service may run meanwhile.

    Raises:
        NotChecked: There are no views yet, they lack too many documents, or the database cannot keep a snapshot for as long as it takes.
    """
    version = await views.version()
    if not version:
        raise NotChecked("the views are not built yet; start `guerdon worker --pool views`, or run `guerdon reports rebuild`")
    try:
        return await in_snapshot(database, partial(_check, database, views, calendar, version))
    except TooFarBehind:
        raise NotChecked("the views lack more than 50,000 documents; run the check again when they have caught up") from None
    except DatabaseUnavailable:
        raise NotChecked(
            "the database did not keep its snapshot until the end of the check; run it at a quieter time, or raise the parameter "
            "minSnapshotHistoryWindowInSeconds of the database"
        ) from None


async def _check(database: Database, views: Views, calendar: Calendar, version: int, session: Session) -> CheckReport:
    found: dict[str, list[Difference]] = {}

    def report(difference: Difference) -> None:
        found.setdefault(difference.view, []).append(difference)

    subjects = SubjectCheck(database, views.group, version, session, report)
    await subjects.check_accounts()
    await subjects.check_members()
    pending = list(expand(subjects.pending.increments))
    values = 0
    async for subtotal in _subtotals(database, calendar, session):
        sums = await _sums_of(database, version, subtotal, session)
        sums = _with(sums, subtotal_of(subtotal, pending))
        kept = {key: value for key, value in sums.items() if subtotal.keep(key)}
        expected = {key: value for key, value in subtotal.expected.items() if subtotal.keep(key)}
        values += len(kept)
        for difference in compare(subtotal.aggregate.collection, subtotal.sums, kept, expected):
            report(difference)
    for difference in await _compare_states(database, version, pending, subjects.pending, session):
        report(difference)
    balances = await _trial_balance(database, version, pending, session)
    for asset, accounts in balances.items():
        if sum(accounts.values()):
            report(Difference("trial balance", asset, f"the balances of all accounts add up to {sum(accounts.values())}"))
    return CheckReport(
        view_version=version,
        accounts=subjects.accounts,
        members=subjects.members,
        pending=subjects.pending.documents,
        values=values,
        differences={view: len(differences) for view, differences in sorted(found.items())},
        first=[differences[0] for _, differences in sorted(found.items())],
        trial_balance=balances,
    )


async def _subtotals(database: Database, calendar: Calendar, session: Session) -> AsyncIterator[Subtotal]:
    async for subtotal in subtotals_of_money(database, calendar, session):
        yield subtotal
    yield await subtotal_of_offers(database, calendar, session)
    async for subtotal in subtotals_of_events(database, calendar, session):
        yield subtotal


async def _sums_of(database: Database, version: int, subtotal: Subtotal, session: Session) -> Sums:
    """Return the sums of the views."""
    fields: dict[str, object] = {name: f"${name}" for name in subtotal.by}
    if BUCKET in fields:
        fields[BUCKET] = {"$substrBytes": ["$owner", 0, BUCKET_LENGTH]}
    group: Document = {"_id": fields, **{name: {"$sum": f"${name}"} for name in subtotal.sums}}
    rows = await database.raw[subtotal.aggregate.collection].aggregate(
        [{"$match": {"version": version}}, {"$group": group}], session=session, allowDiskUse=True
    )
    return rows_to_sums([row async for row in rows], subtotal.by, subtotal.sums)


def _with(sums: Sums, more: Sums) -> Sums:
    for key, values in more.items():
        add_to(sums, key, values)
    return sums


# --- states ---------------------------------------------------------------------------------------------------------


async def _compare_states(
    database: Database, version: int, pending: Sequence[Increment], lacking: Pending, session: Session
) -> list[Difference]:
    """Compare the cohorts with those that are left in the accounts, and the purchases with those of the members."""
    by = ("asset", "source", "earned_month", "campaign", "campaign_version")
    cohorts = Subtotal(COHORTS, by, ("amount",), await _cohorts_left(database, version, lacking, session))
    spent = Subtotal(PURCHASES, ("currency",), ("amount",), await _spent(database, version, lacking, session))
    differences: list[Difference] = []
    found = _with(await _sums_of(database, version, cohorts, session), subtotal_of(cohorts, pending))
    differences += compare(COHORTS.collection, ("amount",), found, cohorts.expected)
    # What members have spent is the sum of purchases, refunds and voids of purchases, as the rows of these types are.
    types = Subtotal(PURCHASES, ("currency", "type"), ("amount",), {})
    rows = _with(await _sums_of(database, version, types, session), subtotal_of(types, pending))
    bought: Sums = {}
    for (currency, kind), value in rows.items():
        if kind in ("purchase", "refund", "void"):
            add_to(bought, (currency,), value)
    return differences + compare(MEMBER_STATES, ("spent",), spent.expected, bought)


async def _cohorts_left(database: Database, version: int, lacking: Pending, session: Session) -> Sums:
    cohort = "$queues.cohorts"
    key: Document = {
        "asset": "$asset",
        "source": "$queues.source",
        "earned_month": f"{cohort}.month",
        "campaign": {"$ifNull": [f"{cohort}.campaign", ""]},
        "campaign_version": {"$ifNull": [f"{cohort}.version", 0]},
    }
    pipeline: list[Document] = [
        {"$match": {"version": version}},
        {"$unwind": "$queues"},
        {"$unwind": cohort},
        {"$group": {"_id": key, "amount": {"$sum": f"{cohort}.amount"}}},
    ]
    rows = await database.raw[ACCOUNT_STATES].aggregate(pipeline, session=session, allowDiskUse=True)
    sums = rows_to_sums([row async for row in rows], tuple(key), ("amount",))
    for before, after in lacking.accounts:
        for state, sign in ((before, -1), (after, 1)):
            for queue in () if state is None else state.queues:
                for each in queue.cohorts:
                    assert state is not None
                    row_key = (state.asset, queue.source, each.month, each.campaign, each.version)
                    add_to(sums, row_key, (sign * each.amount,))
    return sums


async def _spent(database: Database, version: int, lacking: Pending, session: Session) -> Sums:
    pipeline: list[Document] = [
        {"$match": {"version": version}},
        {"$project": {"spent": {"$objectToArray": {"$ifNull": ["$spent", {}]}}}},
        {"$unwind": "$spent"},
        {"$group": {"_id": {"currency": "$spent.k"}, "spent": {"$sum": "$spent.v"}}},
    ]
    rows = await database.raw[MEMBER_STATES].aggregate(pipeline, session=session)
    sums = rows_to_sums([row async for row in rows], ("currency",), ("spent",))
    for before, after in lacking.members:
        for state, sign in ((before, -1), (after, 1)):
            for currency, amount in () if state is None else state.spent.items():
                add_to(sums, (currency,), (sign * amount,))
    return sums


async def _trial_balance(
    database: Database, version: int, pending: Iterable[Increment], session: Session
) -> dict[str, dict[str, int]]:
    """Return the balances of all accounts by asset: the wallets from the totals, the system accounts from the daily sums."""
    pending = list(pending)
    balances: dict[str, Counter[str]] = {}
    totals = Subtotal(TOTALS, ("asset",), ("balance",), {})
    for (asset,), (balance,) in _with(await _sums_of(database, version, totals, session), subtotal_of(totals, pending)).items():
        balances.setdefault(str(asset), Counter())[WALLETS] += balance
    systems = Subtotal(DAYS, ("asset", "counterparty"), ("amount",), {})
    for (asset, account), (amount,) in _with(
        await _sums_of(database, version, systems, session), subtotal_of(systems, pending)
    ).items():
        if account != WALLETS:
            balances.setdefault(str(asset), Counter())[str(account)] -= amount
    return {asset: dict(sorted(accounts.items())) for asset, accounts in sorted(balances.items())}
