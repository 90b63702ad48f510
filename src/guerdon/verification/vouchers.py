"""L11: vouchers agree with their accounts, and stocks count the vouchers that were issued and not returned.

Every step in the life of a voucher is an entry on its account that contains the new state. So the newest step gives the state of the document,
independent of earlier entries, and the first entry gives what was issued. The documents and accounts of a page are read in one snapshot, because they
change together; the entries that they name never change.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial

import msgspec
from msgspec import Struct

from guerdon.database import Database, Document, Session
from guerdon.ledger.models import HOLDS_MAX, entry_id, parse_location
from guerdon.ledger.store import ACCOUNTS, REVERSALS
from guerdon.offers.code_patterns import normalise
from guerdon.offers.models import OFFER_VERSIONS, STOCK
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.lookups import BATCH, find_entries, transaction_of
from guerdon.verification.rows import (
    AccountRow,
    EntryRow,
    OfferVersionRow,
    ReversalRow,
    VoucherCodeRow,
    VoucherRow,
    decode_row,
    decode_rows,
)
from guerdon.verification.snapshots import in_snapshot
from guerdon.vouchers.codes.models import CODE_BATCHES
from guerdon.vouchers.models import DEALT_CODES, VOUCHER_CODES, VOUCHERS

STEPS = frozenset({"issue", "reserve", "use", "release", "unuse", "cancel", "load"})
"""Kinds of entries that change the state of a voucher."""
KINDS_AFTER_STEP = frozenset({"void", "hold_expiry", "expiry"})
"""Kinds of entries that may follow the newest step: they are caused by time, or release the rest of a reservation."""
ENTRIES_AFTER_STEP, ENTRIES_AFTER_STEP_MAX = 3, 2 * HOLDS_MAX
"""Usual and maximum number of entries after the newest step: every reservation ends once, and lots expire."""
LAST_USE_KNOWN = frozenset({"issue", "use"})
"""Steps after which the last use of a voucher is known. The others leave it as it is."""
FINAL_STATES = frozenset({"used", "cancelled"})
GIFT_CARD = "gift_card"
EXTERNAL = "external_code"
"""Kind of vouchers with an external code. The code is never dealt again, so a cancelled voucher of this kind stays counted by the stock."""


class _VoucherPage(Struct, frozen=True):
    """Vouchers with the documents that they name, read in one snapshot."""

    documents: list[Document]
    vouchers: list[VoucherRow]
    damaged: dict[str, str]
    """Error by id of a voucher that cannot be decoded."""
    accounts: dict[str, AccountRow]
    reversals: dict[str, ReversalRow]
    """Reversals of the payments."""
    offers: dict[str, OfferVersionRow]
    codes: dict[str, VoucherCodeRow]


async def check_vouchers(database: Database, after: str, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check the vouchers after the id `after`, and then the stocks. Yield the number of vouchers and the last id of each page."""
    while True:
        page = await _read_page(database, after)
        if not page.documents:
            break
        await _check_page(database, page, report_violation)
        after = str(page.documents[-1]["_id"])
        yield len(page.documents), after
    await _check_stocks(database, report_violation)


async def _read_page(database: Database, after: str) -> _VoucherPage:
    async def read(session: Session) -> _VoucherPage:
        cursor = database.raw[VOUCHERS].find({"_id": {"$gt": after}}, limit=BATCH, session=session).sort("_id")
        documents = [document async for document in cursor]
        vouchers, damaged = _decode_vouchers(documents)

        async def find(collection: str, id_of: Callable[[VoucherRow], str]) -> list[Document]:
            where: Document = {"_id": {"$in": sorted({id_of(row) for row in vouchers})}}
            return [document async for document in database.raw[collection].find(where, session=session)]

        return _VoucherPage(
            documents,
            vouchers,
            damaged,
            decode_rows(await find(ACCOUNTS, lambda row: row.account), AccountRow),
            decode_rows(await find(REVERSALS, lambda row: str(row.transaction)), ReversalRow),
            decode_rows(await find(OFFER_VERSIONS, lambda row: row.version_id), OfferVersionRow),
            decode_rows([*await find(VOUCHER_CODES, _code_id), *await find(DEALT_CODES, _code_id)], VoucherCodeRow),
        )

    return await in_snapshot(database, read)


def _decode_vouchers(documents: Sequence[Document]) -> tuple[list[VoucherRow], dict[str, str]]:
    vouchers: list[VoucherRow] = []
    damaged: dict[str, str] = {}
    for document in documents:
        try:
            vouchers.append(decode_row(document, VoucherRow))
        except msgspec.ValidationError as error:
            damaged[str(document["_id"])] = str(error)
    return vouchers, damaged


async def _check_page(database: Database, page: _VoucherPage, report_violation: ReportViolation) -> None:
    for voucher_id, error in page.damaged.items():
        report_violation("L11", f"{VOUCHERS}/{voucher_id}", f"the voucher is damaged: {error}")
    entry_ids: set[str] = set()
    for row in page.vouchers:
        account = page.accounts.get(row.account)
        if account is not None:
            newest = account.seq
            entry_ids |= {entry_id(account.id, seq) for seq in {1, *range(max(1, newest - ENTRIES_AFTER_STEP), newest + 1)}}
        if row.transaction is not None and (location := parse_location(row.transaction)) is not None:
            entry_ids.add(entry_id(*location))
    entries = await find_entries(database, entry_ids)
    for account in page.accounts.values():
        if _newest_step(account, entries, ENTRIES_AFTER_STEP) is None:
            first = max(1, account.seq - ENTRIES_AFTER_STEP_MAX)
            entries |= await find_entries(database, {entry_id(account.id, seq) for seq in range(first, account.seq)})
    for row in page.vouchers:
        for fault in _faults(row, page, entries):
            report_violation("L11", f"{VOUCHERS}/{row.id}", fault)


def _faults(row: VoucherRow, page: _VoucherPage, entries: dict[str, EntryRow]) -> Iterator[str]:
    account = page.accounts.get(row.account)
    if account is None or account.seq < 1:
        yield f"its account {row.account} does not exist, is damaged, or has no entry"
        return
    is_card = row.kind == GIFT_CARD
    has_own_account = row.account.startswith(f"{row.id}:") if is_card else row.account == f"{row.owner}:uses.{row.id}"
    if not has_own_account or account.kind != (GIFT_CARD if is_card else "voucher"):
        yield f"{row.account} is not its account"
    yield from _faults_of_issue(row, entries.get(entry_id(account.id, 1)))
    if row.member not in {None, row.owner} or (row.member is None) != (row.owner == row.id):
        yield f"its member is {row.member}, but its owner is {row.owner}"
    version = page.offers.get(row.version_id)
    # A code of a batch is given away: its voucher has neither the price of the offer nor a payment.
    is_given = row.batch is not None and row.transaction is None
    copied = (row.name, row.kind, row.value, row.price, row.minimum_basket)
    if version is None or copied != (
        version.offer.name,
        version.offer.kind,
        version.offer.value,
        None if is_given else version.offer.price,
        version.offer.minimum_basket,
    ):
        yield f"the version {row.version_id} of its offer does not exist or differs from it"
    code = page.codes.get(_code_id(row))
    if code is None or code.voucher != row.id:
        yield "its code does not exist or leads to another voucher"
    yield from _faults_of_state(row, account, entries)
    yield from _faults_of_price(row, page, entries)


def _faults_of_issue(row: VoucherRow, first: EntryRow | None) -> Iterator[str]:
    """Compare the voucher with the first entry of its account."""
    if first is None:
        yield "the first entry of its account does not exist or is damaged"
        return
    # The first entry names the voucher or, for a code batch, the batch.
    same_batch = first.metadata.get("batch", "") == row.batch
    voucher_id = first.metadata.get("voucher", row.id if same_batch else None)
    issued = (first.kind, first.amount, voucher_id)
    if issued != ("issue", row.uses, row.id):
        yield f"its first entry has kind, amount and voucher {issued}, expected {('issue', row.uses, row.id)}"


def _faults_of_state(row: VoucherRow, account: AccountRow, entries: dict[str, EntryRow]) -> Iterator[str]:
    """Compare the state of the voucher with the newest step. Entries that time causes do not change the document."""
    step = _newest_step(account, entries, ENTRIES_AFTER_STEP_MAX)
    if step is None:
        yield "its account has no entry that sets its state"
        return
    if step.kind == "issue":
        expected = ("issued", None, _ends_at(step))
    else:
        expected = (
            step.metadata.get("state"),
            _optional_int(step.metadata.get("reserved_until")),
            _optional_int(step.metadata.get("ends_at")),
        )
    stored = (row.state, row.reserved_until, row.expires_at)
    if stored != expected:
        yield f"its state, reservation and expiry are {stored}; its account gives {expected}"
    last_use = (step.transaction or transaction_of(step.id)) if step.kind == "use" else None
    if step.kind in LAST_USE_KNOWN and row.last_use != last_use:
        yield f"its last use is {row.last_use}, expected {last_use}"
    if row.state in FINAL_STATES and account.balance:
        yield f"its state is {row.state}, but its account has a balance of {account.balance}"


def _newest_step(account: AccountRow, entries: dict[str, EntryRow], entries_after: int) -> EntryRow | None:
    """Return the newest entry that is a step, or None. At most `entries_after` entries may follow it."""
    for seq in range(account.seq, max(0, account.seq - entries_after - 1), -1):
        entry = entries.get(entry_id(account.id, seq))
        if entry is None:
            return None
        if entry.kind in STEPS:
            return entry
        if entry.kind not in KINDS_AFTER_STEP:
            return None
    return None


def _faults_of_price(row: VoucherRow, page: _VoucherPage, entries: dict[str, EntryRow]) -> Iterator[str]:
    """Check that the price was paid, and that it was returned if and only if the voucher is cancelled."""
    if row.price is None and row.transaction is None:
        return
    location = None if row.transaction is None else parse_location(row.transaction)
    payment = None if location is None else entries.get(entry_id(*location))
    if row.price is None or payment is None:
        yield f"its price is {row.price}, but its payment {row.transaction} does not exist"
        return
    paid = (payment.kind, payment.amount, payment.asset, payment.metadata.get("voucher"))
    if paid != ("redeem", -row.price.amount, row.price.asset, row.id):
        yield f"its price is {row.price}; its payment has kind, amount, asset and voucher {paid}"
        return
    reversal = page.reversals.get(str(row.transaction))
    returned, expected = 0 if reversal is None else reversal.reversed, row.price.amount if row.state == "cancelled" else 0
    if returned != expected:
        yield f"{returned} of its price was returned, expected {expected}"


async def _check_stocks(database: Database, report_violation: ReportViolation) -> None:
    """Check that every stock account counts the issued and not returned vouchers of its offer, and all codes of each code batch."""
    stocks, issued = await in_snapshot(database, partial(_read_stocks, database))
    for account_id in sorted(stocks.keys() | issued.keys()):
        if stocks.get(account_id) != issued[account_id]:
            report_violation(
                "L11", account_id, f"{issued[account_id]} were issued and not returned; the stock counts {stocks.get(account_id)}"
            )


async def _read_stocks(database: Database, session: Session) -> tuple[dict[str, object], Counter[str]]:
    """Return the balance of each stock account, and the number of its issued vouchers."""
    where: Document = {"_id": {"$gte": "off_", "$lt": "off`"}, "kind": STOCK}
    rows = database.raw[ACCOUNTS].find(where, {"balance": 1}, session=session)
    stocks: dict[str, object] = {str(row["_id"]): row.get("balance") async for row in rows}
    issued: Counter[str] = Counter()
    for collection, pipeline in ((VOUCHERS, ISSUED), (CODE_BATCHES, BATCHED)):
        async for row in await database.raw[collection].aggregate(pipeline, session=session):
            stock_id = f"{row['_id']}:{STOCK}"
            issued[stock_id] += row["count"]
    return stocks, issued


ISSUED: list[Document] = [
    # Codes of a code batch are counted by the batch and stay counted.
    {"$match": {"batch": None, "$or": [{"state": {"$ne": "cancelled"}}, {"kind": EXTERNAL}]}},
    {"$group": {"_id": "$offer", "count": {"$sum": 1}}},
]
"""Aggregation over the vouchers: number of issued and not returned vouchers by offer."""
BATCHED: list[Document] = [
    {"$match": {"kind": {"$in": ["generate", "shared"]}, "$or": [{"status": {"$in": ["running", "done"]}}, {"open": True}]}},
    {"$lookup": {"from": VOUCHERS, "localField": "voucher", "foreignField": "_id", "as": "shared"}},
    # A shared code counts with all its uses.
    {"$set": {"count": {"$cond": [{"$eq": ["$kind", "shared"]}, {"$sum": "$shared.uses"}, "$wanted"]}}},
    {"$group": {"_id": "$owner", "count": {"$sum": "$count"}}},
]
"""Aggregation over the code batches: number of codes by offer."""


def _code_id(row: VoucherRow) -> str:
    """Return the id of the document that leads from the code of a voucher to the voucher."""
    if row.number is not None:
        return f"{row.offer}#{str(row.number).rjust(9, '0')}"
    return normalise(str(row.code))


def _ends_at(entry: EntryRow) -> int | None:
    """Return the latest expiry of the lots of an entry, or None."""
    return max((lot.expires_at for lot in entry.lots or () if lot.expires_at is not None), default=None)


def _optional_int(text: str | None) -> int | None:
    """Return the number in `text`, or None without a text. A text that is not a number gives -1, which equals no stored time."""
    if text is None:
        return None
    return int(text) if text.isdecimal() else -1
