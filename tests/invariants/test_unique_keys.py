"""What no reading in advance can promise: the database itself lets a key or a reference stand on one row of a member only."""

import pytest
from pymongo.errors import DuplicateKeyError

from guerdon.database import Database
from guerdon.ledger.store import ENTRIES


async def test_unique_key_exists_once_per_member_across_wallets(database: Database) -> None:
    entries = database.raw[ENTRIES]
    await entries.insert_one({"_id": "mem_a:PTS#1", "owner": "mem_a", "once": [b"key", b"order-1"]})
    for row in ("mem_a:GBP#1", "refusal#1"):
        with pytest.raises(DuplicateKeyError):
            await entries.insert_one({"_id": row, "owner": "mem_a", "once": [b"order-1"]})
    await entries.insert_one({"_id": "mem_b:PTS#1", "owner": "mem_b", "once": [b"key", b"order-1"]})
    for row in ("mem_a:PTS#2", "mem_a:PTS#3"):
        await entries.insert_one({"_id": row, "owner": "mem_a"})
    await entries.delete_many({})
