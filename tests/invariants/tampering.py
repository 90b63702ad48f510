"""BIT-1: one thing changed behind the ledger's back, and taken back again."""

import random
from collections.abc import Callable
from typing import Any

from guerdon.database import Database, Document
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from tests.invariants.company import IS_ENTRY

Change = tuple[str, str, Document | None]
"""Collection, id, and what stands there afterwards (None: nothing)."""
Tamper = Callable[[random.Random, "Copy"], list[Change]]


class Copy:
    """The untouched books, in memory."""

    def __init__(self, accounts: list[Document], entries: list[Document]) -> None:
        self.rows: dict[str, dict[str, Document]] = {
            ACCOUNTS: {row["_id"]: row for row in accounts},
            ENTRIES: {row["_id"]: row for row in entries},
        }

    @classmethod
    async def of(cls, database: Database) -> "Copy":
        return cls(
            [row async for row in database.raw[ACCOUNTS].find({})],
            [row async for row in database.raw[ENTRIES].find(IS_ENTRY).sort("_id")],
        )

    @property
    def accounts(self) -> list[Document]:
        return list(self.rows[ACCOUNTS].values())

    @property
    def entries(self) -> list[Document]:
        return list(self.rows[ENTRIES].values())

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
    """Another value of the same type, as near as one bit or one character."""
    if isinstance(value, bool | None):
        return "something"
    if isinstance(value, int):
        return _digit(rng, value)
    if isinstance(value, bytes):
        return _flip(rng, value)
    if isinstance(value, str):
        return value[:-1] + ("x" if value[-1:] != "x" else "y")
    if isinstance(value, list):
        return [other_value(rng, value[0]), *value[1:]]
    return {**value, "added": "1"}


def change_field(collection: str, name: str) -> Tamper:
    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice([row for row in copy.rows[collection].values() if row.get(name) is not None])
        return [(collection, row["_id"], {**row, name: other_value(rng, row[name])})]

    return tamper


def retype_field(collection: str, name: str) -> Tamper:
    """A number that becomes a float or a text."""

    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice(list(copy.rows[collection].values()))
        return [(collection, row["_id"], {**row, name: rng.choice([float(row[name]), str(row[name])])})]

    return tamper


def drop_field(collection: str, name: str) -> Tamper:
    def tamper(rng: random.Random, copy: Copy) -> list[Change]:
        row = rng.choice([row for row in copy.rows[collection].values() if row.get(name)])
        return [(collection, row["_id"], {key: value for key, value in row.items() if key != name})]

    return tamper


def delete_entry(rng: random.Random, copy: Copy) -> list[Change]:
    return [(ENTRIES, rng.choice(copy.entries)["_id"], None)]


def delete_account(rng: random.Random, copy: Copy) -> list[Change]:
    return [(ACCOUNTS, rng.choice(copy.accounts)["_id"], None)]


def truncate_tail(rng: random.Random, copy: Copy) -> list[Change]:
    chain = copy.chain(rng.choice(copy.accounts)["_id"])
    return [(ENTRIES, row["_id"], None) for row in chain[-rng.randint(1, min(3, len(chain))) :]]


def swap_bodies(rng: random.Random, copy: Copy) -> list[Change]:
    one, two = rng.sample(copy.entries, 2)
    return [(ENTRIES, one["_id"], {**two, "_id": one["_id"]}), (ENTRIES, two["_id"], {**one, "_id": two["_id"]})]


def _forged(row: Document, account: str, seq: int) -> Document:
    plain = {key: value for key, value in row.items() if key not in {"key", "once", "fingerprint", "reference"}}
    return {**plain, "_id": f"{account}#{seq:012d}"}


def insert_in_front(rng: random.Random, copy: Copy) -> list[Change]:
    row = rng.choice(copy.entries)
    document = _forged(row, row["_id"].rpartition("#")[0], 0)
    return [(ENTRIES, document["_id"], document)]


def append_entry(rng: random.Random, copy: Copy) -> list[Change]:
    """One more entry after the newest: the account row does not know it."""
    account = rng.choice(copy.accounts)
    document = _forged(copy.chain(account["_id"])[-1], account["_id"], account["seq"] + 1)
    return [(ENTRIES, document["_id"], document)]


def insert_for_nobody(rng: random.Random, copy: Copy) -> list[Change]:
    """An entry of an account that does not exist."""
    document = _forged(rng.choice(copy.entries), f"mem_{rng.getrandbits(128):032x}:PTS", 1)
    return [(ENTRIES, document["_id"], document)]


def copy_key(rng: random.Random, copy: Copy) -> list[Change]:
    """The key of one entry, with its mark, on another entry of the same member."""
    keyed = [row for row in copy.entries if row.get("key")]
    one = rng.choice(keyed)
    two = rng.choice([row for row in keyed if row["owner"] == one["owner"] and row["_id"] != one["_id"]])
    stolen = {name: one[name] for name in ("key", "fingerprint", "once", "reference", "actor") if name in one}
    kept = {key: value for key, value in two.items() if key not in {"reference", "once"}}
    return [(ENTRIES, two["_id"], {**kept, **stolen})]


def remove_transfer_side(rng: random.Random, copy: Copy) -> list[Change]:
    """Undo the newest entry of an account and its row with it, so that the chain is whole: only the other side can tell."""
    tails = {account["_id"]: copy.chain(account["_id"])[-1] for account in copy.accounts}
    name, tail = rng.choice([(name, row) for name, row in tails.items() if row["kind"] == "transfer"])
    before = copy.chain(name)[-2]
    account = copy.rows[ACCOUNTS][name]
    row = {**account, "balance": before["balance_after"], "seq": account["seq"] - 1, "head": before["hash"]}
    return [(ENTRIES, tail["_id"], None), (ACCOUNTS, name, row)]


_ENTRY_FIELDS = (
    "owner", "asset", "transaction", "kind", "amount", "balance_after", "held_after", "counter", "actor", "at", "prev", "hash",
    "reason", "reference", "key", "fingerprint", "metadata", "once",
)  # fmt: skip
TAMPERS: dict[str, tuple[Tamper, set[str]]] = {
    **{f"entry {name}": (change_field(ENTRIES, name), {"L6"}) for name in _ENTRY_FIELDS},
    "entry amount, L2": (change_field(ENTRIES, "amount"), {"L2", "L6"}),
    "entry balance_after, L2": (change_field(ENTRIES, "balance_after"), {"L2", "L6"}),
    "entry key, L4": (change_field(ENTRIES, "key"), {"L4", "L6"}),
    "entry reference, L4": (change_field(ENTRIES, "reference"), {"L4", "L6"}),
    "entry once, L4": (change_field(ENTRIES, "once"), {"L4", "L6"}),
    **{f"entry {name} retyped": (retype_field(ENTRIES, name), {"L6"}) for name in ("amount", "balance_after", "at")},
    **{f"entry {name} dropped": (drop_field(ENTRIES, name), {"L6"}) for name in ("amount", "key", "once", "metadata", "hash")},
    "entry deleted": (delete_entry, {"L6"}),
    "entries swapped": (swap_bodies, {"L6"}),
    "tail truncated": (truncate_tail, {"L2", "L6"}),
    "entry appended": (append_entry, {"L6"}),
    "entry number 0": (insert_in_front, {"L6"}),
    "entry of nobody": (insert_for_nobody, {"L6"}),
    "key copied": (copy_key, {"L4", "L6"}),
    "transfer side removed": (remove_transfer_side, {"L1"}),
    "account deleted": (delete_account, {"L6"}),
    "account balance": (change_field(ACCOUNTS, "balance"), {"L2"}),
    "account held": (change_field(ACCOUNTS, "held"), {"L2"}),
    "account seq": (change_field(ACCOUNTS, "seq"), {"L6"}),
    "account head": (change_field(ACCOUNTS, "head"), {"L6"}),
    "account owner": (change_field(ACCOUNTS, "owner"), set()),
    "account asset": (change_field(ACCOUNTS, "asset"), set()),
    **{f"account {name} retyped": (retype_field(ACCOUNTS, name), set()) for name in ("balance", "seq", "floor")},
}
"""What is done, and the laws that must be named at least (none: any)."""
