"""BIT-1: one thing changed behind the ledger's back, and taken back again."""

import random
from collections.abc import Callable
from typing import Any

from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS
from guerdon.database import Database, Document
from guerdon.erasable_data import ERASURES
from guerdon.exchanges.models import RATE_VERSIONS
from guerdon.ledger.entry_hash import HASHED_FIELDS, entry_hash
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import Entry
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS, decode_entry
from guerdon.offers.models import OFFER_VERSIONS, OFFERS
from guerdon.tiers.models import TIER_CHANGES, TIER_SET_VERSIONS, TIER_SETS
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.vouchers.models import VOUCHER_CODES, VOUCHERS

Change = tuple[str, str | int, Document | None]
"""Collection, id, and what stands there afterwards (None: nothing)."""
Tamper = Callable[[random.Random, "Copy"], list[Change]]
VOUCHERS_AND_MORE = (VOUCHERS, VOUCHER_CODES, OFFER_VERSIONS, RATE_VERSIONS)
PROVEN = (
    MEMBER_STATES, REFUNDS, EVENT_VOIDS, TIER_SETS, TIER_SET_VERSIONS, TIER_CHANGES, CAMPAIGNS, CAMPAIGN_VERSIONS, OFFERS, AUDIT, ERASURES,
)  # fmt: skip
"""Collections that `test_document_proofs.py` tampers with, besides events and vouchers."""
COLLECTIONS = (ACCOUNTS, ENTRIES, HOLD_DOCUMENTS, REVERSALS, EVENTS, CHECKPOINTS, *VOUCHERS_AND_MORE, *PROVEN)


class Copy:
    """The untouched books, in memory."""

    def __init__(self, rows: dict[str, dict[Any, Document]]) -> None:
        self.rows = rows

    @classmethod
    async def of(cls, database: Database) -> "Copy":
        return cls({name: {row["_id"]: row async for row in database.raw[name].find({}).sort("_id")} for name in COLLECTIONS})

    @property
    def accounts(self) -> list[Document]:
        return list(self.rows[ACCOUNTS].values())

    @property
    def entries(self) -> list[Document]:
        """Remembered refusals lie among them and are none."""
        return [row for row in self.rows[ENTRIES].values() if "balance_after" in row]

    def table(self, collection: str) -> list[Document]:
        return self.entries if collection == ENTRIES else list(self.rows[collection].values())

    def chain(self, account: str) -> list[Document]:
        return [row for row in self.entries if row["_id"].rpartition("#")[0] == account]

    async def put(self, database: Database, changes: list[Change]) -> None:
        for collection, row_id, _ in changes:
            await database.raw[collection].delete_one({"_id": row_id})
        for collection, _, document in changes:
            if document is not None:
                await database.raw[collection].insert_one(document)

    async def restore(self, database: Database, changes: list[Change]) -> None:
        await self.put(database, [(collection, row_id, None) for collection, row_id, _ in changes])
        await self.put(database, [(collection, row_id, self.rows[collection].get(row_id)) for collection, row_id, _ in changes])

    async def write(self, database: Database) -> None:
        """Put everything into an empty database."""
        for collection, rows in self.rows.items():
            if rows:
                await database.raw[collection].insert_many(list(rows.values()))


# --- one value ----------------------------------------------------------------------------------------------------------


def _flip(rng: random.Random, raw: bytes) -> bytes:
    place = rng.randrange(len(raw))
    return raw[:place] + bytes([raw[place] ^ (1 << rng.randrange(8))]) + raw[place + 1 :]


def _digit(rng: random.Random, number: int) -> int:
    """One digit of a number, changed."""
    digits = list(str(abs(number)))
    place = rng.randrange(len(digits))
    digits[place] = rng.choice([digit for digit in "0123456789" if digit != digits[place]])
    return int("".join(digits)) * (-1 if number < 0 else 1)


def other_value(rng: random.Random, value: Any) -> Any:
    """Another value of the same type, as near as one bit or one character, somewhere inside."""
    if isinstance(value, bool | None):
        return "something"
    if isinstance(value, int):
        return _digit(rng, value)
    if isinstance(value, bytes):
        return _flip(rng, value)
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1:] != "x" else "y")
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [other_value(rng, item) if number == place else item for number, item in enumerate(value)]
    name = rng.choice([*value, "added"])
    return {**value, name: other_value(rng, value[name]) if name in value else "1"}


def _with(collection: str, name: str, copy: Copy) -> list[Document]:
    return [row for row in copy.table(collection) if row.get(name) not in (None, [], {})]


def change_field(collection: str, name: str) -> Tamper:
    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice(_with(collection, name, copy))
        return [(collection, row["_id"], {**row, name: other_value(rng, row[name])})]

    return tamper


def retype_field(collection: str, name: str) -> Tamper:
    """A number that becomes a float or a text."""

    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice(copy.table(collection))
        return [(collection, row["_id"], {**row, name: rng.choice([float(row[name]), str(row[name])])})]

    return tamper


def drop_field(collection: str, name: str) -> Tamper:
    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice(_with(collection, name, copy))
        return [(collection, row["_id"], {key: value for key, value in row.items() if key != name})]

    return tamper


def set_field(collection: str, name: str, value: Any) -> Tamper:
    """A value that is right in itself, where another one stands."""

    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice([row for row in copy.table(collection) if row.get(name) != value])
        return [(collection, row["_id"], {**row, name: value})]

    return tamper


def delete_row(collection: str) -> Tamper:
    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        return [(collection, rng.choice(copy.table(collection))["_id"], None)]

    return tamper


def rename_row(collection: str, name: str) -> Tamper:
    """A document under another name, that of something that never was."""

    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice(copy.table(collection))
        return [(collection, row["_id"], None), (collection, name, {**row, "_id": name})]

    return tamper


# --- whole rows ---------------------------------------------------------------------------------------------------------


def truncate_tail(rng: random.Random, copy: Copy) -> list[Change]:
    chain = copy.chain(rng.choice([row for row in copy.accounts if row["seq"]])["_id"])
    return [(ENTRIES, row["_id"], None) for row in chain[-rng.randint(1, min(3, len(chain))) :]]


def swap_bodies(rng: random.Random, copy: Copy) -> list[Change]:
    one, two = rng.sample(copy.entries, 2)
    return [(ENTRIES, one["_id"], {**two, "_id": one["_id"]}), (ENTRIES, two["_id"], {**one, "_id": two["_id"]})]


def _forged(row: Document, account: str, seq: int) -> Document:
    plain = {key: value for key, value in row.items() if key not in {"key", "once", "fingerprint", "reference"}}
    return {**plain, "_id": f"{account}#{seq:012d}"}


def change_award(name: str) -> Tamper:
    """What an event says that it has paid."""

    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice(_with(EVENTS, "awards", copy))
        [award] = row["awards"]
        return [(EVENTS, row["_id"], {**row, "awards": [{**award, name: other_value(rng, award[name])}]})]

    return tamper


def insert_in_front(rng: random.Random, copy: Copy) -> list[Change]:
    row = rng.choice(copy.entries)
    document = _forged(row, row["_id"].rpartition("#")[0], 0)
    return [(ENTRIES, document["_id"], document)]


def append_entry(rng: random.Random, copy: Copy) -> list[Change]:
    """One more entry after the newest: the account row does not know it."""
    account = rng.choice([row for row in copy.accounts if row["seq"]])
    document = _forged(copy.chain(account["_id"])[-1], account["_id"], account["seq"] + 1)
    return [(ENTRIES, document["_id"], document)]


def insert_for_nobody(rng: random.Random, copy: Copy) -> list[Change]:
    """An entry of an account that does not exist."""
    document = _forged(rng.choice(copy.entries), f"mem_{rng.getrandbits(128):032x}:PTS", 1)
    return [(ENTRIES, document["_id"], document)]


def copy_key(rng: random.Random, copy: Copy) -> list[Change]:
    """The key of one entry, with its mark, on another entry of the same member."""
    keyed = [row for row in copy.entries if row.get("key")]
    one = rng.choice([row for row in keyed if sum(each["owner"] == row["owner"] for each in keyed) > 1])
    two = rng.choice([row for row in keyed if row["owner"] == one["owner"] and row["_id"] != one["_id"]])
    stolen = {name: one[name] for name in ("key", "fingerprint", "once", "reference", "actor") if name in one}
    kept = {key: value for key, value in two.items() if key not in {"reference", "once"}}
    return [(ENTRIES, two["_id"], {**kept, **stolen})]


def refuse_a_success(rng: random.Random, copy: Copy) -> list[Change]:
    """A refusal under the key of something that was done."""
    row = rng.choice([row for row in copy.entries if row.get("once")])
    name = "refusal#" + row["once"][0].hex()
    refusal = {
        "_id": name, "owner": row["owner"], "once": row["once"][:1], "fingerprint": row["fingerprint"], "code": "insufficient-funds",
        "detail": "", "members": {},
    }  # fmt: skip
    return [(ENTRIES, name, refusal)]


def give_back_again(rng: random.Random, copy: Copy) -> list[Change]:
    """A stock that counts one voucher less, with the count of its row and its chain as they should be."""
    stock = next(
        row for row in copy.accounts if row["kind"] == "stock" and any(each["kind"] == "cancel" for each in copy.chain(row["_id"]))
    )
    chain = copy.chain(stock["_id"])
    cancelled = next(row for row in chain if row["kind"] == "cancel")
    last = chain[-1]
    forged = {
        **cancelled,
        "_id": f"{stock['_id']}#{stock['seq'] + 1:012d}",
        "balance_after": last["balance_after"] - 1,
        "at": last["at"],
    }
    rows = rechained([*chain, forged])
    row = {**stock, "balance": rows[-1]["balance_after"], "seq": len(rows), "head": rows[-1]["hash"], "at": rows[-1]["at"]}
    return [(ENTRIES, rows[-1]["_id"], rows[-1]), (ACCOUNTS, stock["_id"], row)]


def delete_account_of_voucher(rng: random.Random, copy: Copy) -> list[Change]:
    return [(ACCOUNTS, rng.choice(copy.table(VOUCHERS))["account"], None)]


def refund_otherwise(rng: random.Random, copy: Copy) -> list[Change]:
    """The price of a voucher that nobody gave back is said to be back, or a part of one that was is not."""
    row = rng.choice([row for row in copy.table(VOUCHERS) if row["transaction"] is not None])
    known = copy.rows[REVERSALS].get(row["transaction"], {"_id": row["transaction"], "owner": row["owner"], "at": 1})
    return [(REVERSALS, row["transaction"], {**known, "reversed": known.get("reversed", 0) + 1})]


def worth_more(rng: random.Random, copy: Copy) -> list[Change]:
    """An offer that says something else than its vouchers do."""
    issued = {row["offer"] for row in copy.table(VOUCHERS)}
    row = rng.choice([row for row in copy.table(OFFER_VERSIONS) if row["owner"] in issued])
    offer = {**row["offer"], "value": other_value(rng, row["offer"]["value"])}
    return [(OFFER_VERSIONS, row["_id"], {**row, "offer": offer})]


# --- with a chain that fits: only the laws about values, and the checkpoints, can tell ----------------------------------------


def rechained(chain: list[Document]) -> list[Document]:
    """The same entries with hashes that fit."""
    rows: list[Document] = []
    before = bytes(32)
    for row in chain:
        entry: Entry = decode_entry({**row, "prev": before})
        before = entry_hash(entry)
        rows.append({**row, "prev": entry.prev, "hash": before})
    return rows


def _plain_accounts(copy: Copy) -> list[Document]:
    """Accounts whose row says nothing that their last entry does not say."""
    return [row for row in copy.accounts if row.get("lots") is None and row["seq"] > 2]


def _row_after(account: Document, chain: list[Document]) -> Document:
    last = chain[-1]
    return {**account, "balance": last["balance_after"], "seq": len(chain), "head": last["hash"], "at": last["at"]}


def remove_transfer_side(rng: random.Random, copy: Copy) -> list[Change]:
    """Undo the newest entry of an account and its row with it, so that the chain is whole: only the other side can tell."""
    tails = {account["_id"]: copy.chain(account["_id"])[-1] for account in _plain_accounts(copy)}
    name = rng.choice([name for name, row in tails.items() if row["kind"] == "transfer"])
    row = _row_after(copy.rows[ACCOUNTS][name], copy.chain(name)[:-1])
    return [(ENTRIES, tails[name]["_id"], None), (ACCOUNTS, name, row)]


def cut_off_signed_tail(rng: random.Random, copy: Copy) -> list[Change]:
    """BIT-3: the newest entries of an account, and every trace of them on its row. No other account knows them."""
    newest = max(row["at"] for row in copy.entries)
    account = rng.choice(_plain_accounts(copy))
    chain = copy.chain(account["_id"])
    signed = [row for row in chain if row["at"] < newest - 86_400_000]
    kept = signed[: -rng.randint(1, len(signed) - 1)]
    cut: list[Change] = [(ENTRIES, row["_id"], None) for row in chain[len(kept) :]]
    return [*cut, (ACCOUNTS, account["_id"], _row_after(account, kept))]


def rewrite_history(rng: random.Random, copy: Copy) -> list[Change]:
    """The first credit was larger: every balance behind it, the whole chain and the row follow."""
    account = rng.choice([row for row in _plain_accounts(copy) if copy.chain(row["_id"])[0]["kind"] == "credit"])
    more = rng.randint(1, 10**6)
    chain = copy.chain(account["_id"])
    raised = [{**row, "balance_after": row["balance_after"] + more} for row in chain]
    raised[0]["amount"] += more
    rows = rechained(raised)
    return [*((ENTRIES, row["_id"], row) for row in rows), (ACCOUNTS, account["_id"], _row_after(account, rows))]


def confirm_otherwise(change: Callable[[list[Document]], list[Document]]) -> Tamper:
    """Other lots in a confirmation, in order of their amounts, with a chain and a head of the row that fit."""

    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice([row for row in copy.entries if row["kind"] == "confirmation"])
        name = row["_id"].rpartition("#")[0]
        lots = change(sorted(row["lots"], key=lambda lot: lot["amount"]))
        rows = rechained([{**each, "lots": lots} if each["_id"] == row["_id"] else each for each in copy.chain(name)])
        return [
            *((ENTRIES, each["_id"], each) for each in rows),
            (ACCOUNTS, name, {**copy.rows[ACCOUNTS][name], "head": rows[-1]["hash"]}),
        ]

    return tamper


def _not_waiting(lots: list[Document]) -> list[Document]:
    """What could be spent already lives longer."""
    return [{**lots[0], "available_at": None}, *lots[1:]]


def _one_more(lots: list[Document]) -> list[Document]:
    """More becomes spendable than has waited."""
    return [*lots[:-1], {**lots[-1], "amount": lots[-1]["amount"] + 1}]


def _paid(lots: list[Document]) -> list[Document]:
    """What was awarded becomes what was paid for."""
    return [*lots[:-1], {**lots[-1], "source": "paid"}]


def _lapsed(lots: list[Document]) -> list[Document]:
    """It has lapsed when it comes."""
    return [*lots[:-1], {**lots[-1], "expires_at": 1}]


def own_words(rng: random.Random, copy: Copy) -> list[Change]:
    """A field that is not hashed, since no entry has it: it would let MongoDB delete the row some day."""
    row = rng.choice(copy.entries)
    return [(ENTRIES, row["_id"], {**row, "expires_at": row["at"]})]


_ENTRY_FIELDS = (*HASHED_FIELDS[1:], "prev", "hash")
"""Every stored field of an entry but its id, which `delete_row` and `swap_bodies` change."""
_VOUCHER_FIELDS = (
    "owner", "member", "offer", "offer_version", "name", "kind", "value", "uses", "price", "transaction", "account", "expires_at",
    "state", "reserved_until",
)  # fmt: skip
_HOLD_FIELDS = ("owner", "account", "asset", "amount", "captured", "left", "status", "expires_at", "created_at")
NOBODY = "mem_" + "0" * 32 + ":PTS"
TAMPERS: dict[str, tuple[Tamper, set[str]]] = {
    **{f"entry {name}": (change_field(ENTRIES, name), {"L6"}) for name in _ENTRY_FIELDS},
    "entry amount, L2": (change_field(ENTRIES, "amount"), {"L2", "L6"}),
    "entry balance_after, L2": (change_field(ENTRIES, "balance_after"), {"L2", "L6"}),
    "entry key, L4": (change_field(ENTRIES, "key"), {"L4", "L6"}),
    "entry reference, L4": (change_field(ENTRIES, "reference"), {"L4", "L6"}),
    "entry once, L4": (change_field(ENTRIES, "once"), {"L4", "L6"}),
    "entry pair, L1": (change_field(ENTRIES, "pair"), {"L1", "L6"}),
    "entry sides, L8": (change_field(ENTRIES, "sides"), {"L6", "L8"}),
    "rate of an exchange changed": (change_field(RATE_VERSIONS, "to_amount"), {"L5"}),
    "rate of an exchange deleted": (delete_row(RATE_VERSIONS), {"L5"}),
    "entry transaction, L8": (change_field(ENTRIES, "transaction"), {"L6", "L8"}),
    **{f"entry {name} retyped": (retype_field(ENTRIES, name), {"L6"}) for name in ("amount", "balance_after", "at")},
    **{
        f"entry {name} dropped": (drop_field(ENTRIES, name), {"L6"})
        for name in ("amount", "key", "once", "metadata", "hash", "pair", "lots", "hold", "terms", "reverses")
    },
    "entry with a field more": (own_words, {"L6"}),
    "entry deleted": (delete_row(ENTRIES), {"L6"}),
    "entries swapped": (swap_bodies, {"L6"}),
    "tail truncated": (truncate_tail, {"L6"}),
    "entry appended": (append_entry, {"L6"}),
    "entry number 0": (insert_in_front, {"L6"}),
    "entry of nobody": (insert_for_nobody, {"L6"}),
    "key copied": (copy_key, {"L4", "L6"}),
    "success refused": (refuse_a_success, {"L5"}),
    "transfer side removed": (remove_transfer_side, {"L1"}),
    "signed tail cut off": (cut_off_signed_tail, {"CP"}),
    "history rewritten": (rewrite_history, {"CP"}),
    "confirmed what did not wait": (confirm_otherwise(_not_waiting), {"L7"}),
    "confirmed more than waited": (confirm_otherwise(_one_more), {"L7"}),
    "confirmed as paid": (confirm_otherwise(_paid), {"L7"}),
    "confirmed when lapsed": (confirm_otherwise(_lapsed), {"L7"}),
    "confirmed nothing": (confirm_otherwise(lambda lots: lots[1:]), {"L7"}),
    "account deleted": (delete_row(ACCOUNTS), {"L6"}),
    "account balance": (change_field(ACCOUNTS, "balance"), {"L2"}),
    "account held": (change_field(ACCOUNTS, "held"), {"L2"}),
    "account seq": (change_field(ACCOUNTS, "seq"), {"L6"}),
    "account head": (change_field(ACCOUNTS, "head"), {"L6"}),
    "account at": (change_field(ACCOUNTS, "at"), {"L6"}),
    "account kind": (change_field(ACCOUNTS, "kind"), {"CP"}),
    "account opened_at": (change_field(ACCOUNTS, "opened_at"), {"CP"}),
    "account due_at": (change_field(ACCOUNTS, "due_at"), {"L10"}),
    "account due_at dropped": (drop_field(ACCOUNTS, "due_at"), {"L10"}),
    "account floor": (set_field(ACCOUNTS, "floor", -1000), {"L2"}),
    "account ceiling": (change_field(ACCOUNTS, "ceiling"), {"L2"}),
    "account opened again": (set_field(ACCOUNTS, "status", "open"), {"L2"}),
    "account frozen": (set_field(ACCOUNTS, "status", "frozen"), {"L2"}),
    "account limits dropped": (drop_field(ACCOUNTS, "limits"), {"L2"}),
    "account lots dropped": (drop_field(ACCOUNTS, "lots"), {"L7"}),
    "account holds emptied": (set_field(ACCOUNTS, "holds", []), {"L7"}),
    **{
        f"account {name}": (change_field(ACCOUNTS, name), set())
        for name in ("owner", "asset", "status", "lots", "holds", "limits", "spent")
    },
    **{f"account {name} retyped": (retype_field(ACCOUNTS, name), set()) for name in ("balance", "seq", "floor")},
    **{f"hold {name}": (change_field(HOLD_DOCUMENTS, name), {"L5"}) for name in _HOLD_FIELDS},
    "hold deleted": (delete_row(HOLD_DOCUMENTS), {"L5"}),
    "hold of nobody": (rename_row(HOLD_DOCUMENTS, f"hld_{NOBODY}:1"), {"L5"}),
    "hold revived": (set_field(HOLD_DOCUMENTS, "status", "held"), {"L5"}),
    "refund counted otherwise": (change_field(REVERSALS, "reversed"), {"L5"}),
    "refund forgotten": (delete_row(REVERSALS), {"L5"}),
    "refund of nothing": (rename_row(REVERSALS, f"txn_{NOBODY}:1"), {"L5"}),
    **{f"award {name}": (change_award(name), {"L5"}) for name in ("campaign", "version", "asset", "amount", "transaction_id")},
    "checkpoint changed": (change_field(CHECKPOINTS, "jws"), {"CP"}),
    "checkpoint deleted": (delete_row(CHECKPOINTS), {"CP"}),
    "checkpoint renumbered": (rename_row(CHECKPOINTS, 7), {"CP"}),
}  # fmt: skip
"""What is done, and the laws that must be named at least (none: any)."""
VOUCHER_TAMPERS: dict[str, Tamper] = {
    **{f"voucher {name}": change_field(VOUCHERS, name) for name in _VOUCHER_FIELDS},
    **{f"said to be {state}": set_field(VOUCHERS, "state", state) for state in ("issued", "partly_used", "used", "cancelled")},
    "another code": set_field(VOUCHERS, "code", "NOTHING"),
    "said to be reserved": set_field(VOUCHERS, "reserved_until", 1 << 45),
    "without an end": drop_field(VOUCHERS, "expires_at"),
    "of nobody": rename_row(VOUCHERS, "vch_" + "0" * 32),
    "voucher deleted": delete_row(VOUCHERS),
    "account deleted": delete_account_of_voucher,
    "given back again": give_back_again,
    "refunded otherwise": refund_otherwise,
    "code of another voucher": change_field(VOUCHER_CODES, "voucher"),
    "code deleted": delete_row(VOUCHER_CODES),
    "version of an offer changed": worth_more,
}
"""What only L11 has to tell: the accounts and entries are as they should be, or it is told besides."""
