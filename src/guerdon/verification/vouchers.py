"""L11: what vouchers say is what their accounts say, and a stock counts what was issued of it and not given back.

A voucher's life is the history of its account: every step is an entry that says what the voucher became by it. So the newest entry tells what
the document must say, whatever has happened before; and what was issued, the first one. Documents and accounts of a page are read in one
snapshot, since they change together; the entries that they name never change.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from msgspec import Struct

from guerdon.database import Database, Document, Session
from guerdon.ledger.models import HOLDS_MAX, entry_id, parse_location
from guerdon.ledger.store import ACCOUNTS, REVERSALS
from guerdon.offers.models import OFFER_VERSIONS
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.lookups import BATCH, find_entries
from guerdon.verification.snapshots import in_snapshot
from guerdon.vouchers.codes.models import CODE_BATCHES
from guerdon.vouchers.models import DEALT_CODES, VOUCHER_CODES, VOUCHERS

COPIED = ("name", "kind", "value", "price", "minimum_basket")
"""What a voucher repeats of the version of the offer that it was issued by."""
STEPS = frozenset({"issue", "reserve", "use", "release", "unuse", "cancel", "load"})
BEHIND = frozenset({"void", "hold_expiry", "expiry"})
LOOKED_BACK, LOOKED_BACK_MAX = 3, 2 * HOLDS_MAX
"""So many entries behind the newest step are usual, and possible: every reservation ends once, and lots lapse."""
OVER = frozenset({"used", "cancelled"})
CARD, STOCK = "gift_card", "stock"
EXTERNAL = "external_code"
"""Its voucher's code is never dealt again, so that the stock keeps it when it is cancelled."""


class _VoucherPage(Struct, frozen=True):
    vouchers: list[Document]
    accounts: dict[str, Document]
    reversed: dict[str, Document]
    """What says how much of a price was taken back."""
    offers: dict[str, Document]
    """What the versions say that the vouchers were issued by."""
    codes: dict[str, Document]


async def check_vouchers(database: Database, after: str, blame: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check all vouchers behind the id `after`, and at the end the stocks; yield after each page how many there were, and the last id."""
    while True:
        page = await _read_page(database, after)
        if not page.vouchers:
            break
        await _check_page(database, page, blame)
        after = str(page.vouchers[-1]["_id"])
        yield len(page.vouchers), after
    await _check_stocks(database, blame)


async def _read_page(database: Database, after: str) -> _VoucherPage:
    async def read(session: Session) -> _VoucherPage:
        found = database.raw[VOUCHERS].find({"_id": {"$gt": after}}, limit=BATCH, session=session).sort("_id")
        vouchers = [row async for row in found]

        async def named(collection: str, name_of: Callable[[Document], str]) -> dict[str, Document]:
            wanted = sorted({name_of(row) for row in vouchers})
            return {str(row["_id"]): row async for row in database.raw[collection].find({"_id": {"$in": wanted}}, session=session)}

        return _VoucherPage(
            vouchers,
            await named(ACCOUNTS, lambda row: str(row.get("account"))),
            await named(REVERSALS, lambda row: str(row.get("transaction"))),
            await named(OFFER_VERSIONS, _version_of),
            {**await named(VOUCHER_CODES, _code_of), **await named(DEALT_CODES, _code_of)},
        )

    return await in_snapshot(database, read)


async def _check_page(database: Database, page: _VoucherPage, blame: ReportViolation) -> None:
    wanted: set[str] = set()
    for row in page.vouchers:
        account = page.accounts.get(str(row.get("account")))
        if account is not None:
            newest = _seq(account)
            wanted |= {entry_id(account["_id"], seq) for seq in {1, *range(max(1, newest - LOOKED_BACK), newest + 1)}}
        if (place := parse_location(str(row.get("transaction")))) is not None:
            wanted.add(entry_id(*place))
    entries = await find_entries(database, wanted)
    for account in page.accounts.values():
        if _telling(account, entries, LOOKED_BACK) is None:
            first = max(1, _seq(account) - LOOKED_BACK_MAX)
            entries |= await find_entries(database, {entry_id(account["_id"], seq) for seq in range(first, _seq(account))})
    for row in page.vouchers:
        try:
            for fault in _faults(row, page, entries):
                blame("L11", f"{VOUCHERS}/{row['_id']}", fault)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            blame("L11", f"{VOUCHERS}/{row['_id']}", f"not a voucher: {error!r}")


def _faults(row: Document, page: _VoucherPage, entries: dict[str, Document]) -> Iterator[str]:
    account = page.accounts.get(row["account"])
    if account is None or _seq(account) < 1:
        yield f"its account, {row['account']}, does not exist, or nothing was ever issued on it"
        return
    card = row["kind"] == CARD
    named = row["account"].startswith(f"{row['_id']}:") if card else row["account"] == f"{row['owner']}:uses.{row['_id']}"
    if not named or account["kind"] != (CARD if card else "voucher"):
        yield f"{row['account']} is not its account"
    first = entries.get(entry_id(account["_id"], 1), {})
    told = _metadata(first)
    whose = told.get("voucher", row["_id"] if told.get("batch", "") == row.get("batch") else None)
    said = (first.get("kind"), first.get("amount"), whose)
    if said != ("issue", row["uses"], row["_id"]):
        yield f"{row['uses']} were issued by it, its first entry says {said}"
    if row["member"] not in {None, row["owner"]} or (row["member"] is None) != (row["owner"] == row["_id"]):
        yield f"it is {row['member']}'s, and lies with {row['owner']}"
    copied, offer = {name: row[name] for name in COPIED}, page.offers.get(_version_of(row), {}).get("offer", {})
    if copied != {name: offer.get(name) for name in COPIED}:
        yield f"its offer, {_version_of(row)}, does not exist, or does not say what it says"
    if page.codes.get(_code_of(row), {}).get("voucher") != row["_id"]:
        yield "its code stands for another voucher, or for none"
    yield from _faults_of_state(row, account, entries)
    yield from _faults_of_price(row, page, entries)


def _faults_of_state(row: Document, account: Document, entries: dict[str, Document]) -> Iterator[str]:
    """What the document says is what the newest step has made of it; what time does changes no document."""
    telling = _telling(account, entries, LOOKED_BACK_MAX)
    if telling is None:
        yield "no step of it stands on its account"
        return
    told = _metadata(telling)
    if telling["kind"] == "issue":
        said = ("issued", None, _ends_at(telling))
    else:
        said = (told["state"], _number(told.get("reserved_until")), _number(told.get("ends_at")))
    found = (row["state"], row.get("reserved_until"), row.get("expires_at"))
    if found != said:
        yield f"it says {found} of its state, reservation and end, its account {said}"
    if row["state"] in OVER and account["balance"]:
        yield f"it is {row['state']}, and {account['balance']} are left"


def _telling(account: Document, entries: dict[str, Document], back: int) -> Document | None:
    """The newest entry that is a step: behind it there may be what time has done, and the rest of a reservation that was released."""
    for seq in range(_seq(account), max(0, _seq(account) - back - 1), -1):
        entry = entries.get(entry_id(account["_id"], seq), {})
        if entry.get("kind") in STEPS:
            return entry
        if entry.get("kind") not in BEHIND:
            return None
    return None


def _faults_of_price(row: Document, page: _VoucherPage, entries: dict[str, Document]) -> Iterator[str]:
    """What was paid is on the ledger, and goes back once: when the voucher is cancelled."""
    price, name = row.get("price"), row.get("transaction")
    if price is None and name is None:
        return
    place = parse_location(str(name))
    paid = {} if place is None else entries.get(entry_id(*place), {})
    told = (paid.get("kind"), paid.get("amount"), paid.get("asset"), _metadata(paid).get("voucher"))
    if price is None or told != ("redeem", -price["amount"], price["asset"], row["_id"]):
        yield f"its price is {price}, what was paid says {told}"
        return
    taken_back, due = page.reversed.get(str(name), {}).get("reversed", 0), price["amount"] if row["state"] == "cancelled" else 0
    if taken_back != due:
        yield f"{taken_back} of its price were taken back, where {due} should have been"


async def _check_stocks(database: Database, blame: ReportViolation) -> None:
    """Every stock account counts what was issued of its offer, without what was given back; of a batch, all of it from its beginning."""
    stocks, counted = await in_snapshot(database, partial(_read_stocks, database))
    for name in sorted(stocks.keys() | counted.keys()):
        if stocks.get(name) != counted[name]:
            blame("L11", name, f"{counted[name]} were issued and not given back, the stock counts {stocks.get(name)}")


async def _read_stocks(database: Database, session: Session) -> tuple[dict[str, Any], Counter[str]]:
    """Return what the stock accounts count, and what there is of each."""
    where: Document = {"_id": {"$gte": "off_", "$lt": "off`"}, "kind": STOCK}
    rows = database.raw[ACCOUNTS].find(where, {"balance": 1}, session=session)
    stocks = {str(row["_id"]): row.get("balance") async for row in rows}
    there: Counter[str] = Counter()
    for collection, pipeline in ((VOUCHERS, ISSUED), (CODE_BATCHES, BATCHED)):
        async for row in await database.raw[collection].aggregate(pipeline, session=session):
            stock = f"{row['_id']}:{STOCK}"
            there[stock] += row["count"]
    return stocks, there


ISSUED: list[Document] = [
    # What belongs to a batch was counted by it, and stays counted.
    {"$match": {"batch": None, "$or": [{"state": {"$ne": "cancelled"}}, {"kind": EXTERNAL}]}},
    {"$group": {"_id": "$offer", "count": {"$sum": 1}}},
]
BATCHED: list[Document] = [
    {"$match": {"kind": {"$in": ["generate", "shared"]}, "$or": [{"status": {"$in": ["running", "done"]}}, {"open": True}]}},
    {"$lookup": {"from": VOUCHERS, "localField": "voucher", "foreignField": "_id", "as": "shared"}},
    # A shared code counts with all its uses.
    {"$set": {"count": {"$cond": [{"$eq": ["$kind", "shared"]}, {"$sum": "$shared.uses"}, "$wanted"]}}},
    {"$group": {"_id": "$owner", "count": {"$sum": "$count"}}},
]


def _version_of(row: Document) -> str:
    return f"{row.get('offer')}/{row.get('offer_version')}"


def _code_of(row: Document) -> str:
    """The id of what leads from its code to a voucher."""
    if row.get("number") is not None:
        return f"{row.get('offer')}#{str(row['number']).rjust(9, '0')}"
    return str(row.get("code")).replace("-", "").replace(" ", "").upper()


def _ends_at(row: Document) -> int | None:
    """When the last of an entry's, or an account's, lots lapses."""
    lots: list[dict[str, Any]] = row.get("lots") or []
    return max((lot["expires_at"] for lot in lots if lot.get("expires_at") is not None), default=None)


def _seq(account: Document) -> int:
    """The number of an account's newest entry; the row may be damaged, which its own proof says."""
    seq: object = account.get("seq")
    return seq if isinstance(seq, int) else 0


def _metadata(entry: Document) -> dict[str, str]:
    return entry.get("metadata") or {}


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)
