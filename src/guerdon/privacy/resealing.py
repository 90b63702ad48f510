"""Rotation of the master keys: what an older one has sealed is sealed again by the first.

Each row is changed only if it still is what was read, so the service may run meanwhile, several rotations may run at once, and one that was
killed is simply run again: what is done already is passed over.
"""

from collections.abc import Callable, Sequence

from bson import MinKey
from msgspec import Struct
from pymongo import UpdateOne

from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database, Document
from guerdon.erasable_data import SealedField
from guerdon.errors import Internal

BATCH = 500
NAMED_MAX = 20
Tell = Callable[[str, int, int], None]
"""Told (collection, rows looked at, rows that there are about)."""


class Resealed(Struct, frozen=True):
    """How a rotation has left one kind of sealed field."""

    collection: str
    field: str
    current: int
    """Were sealed by the first key already."""
    resealed: int
    unopenable: int
    """None of the keys opens them: they are left as they are."""
    unopenable_ids: list[str]
    """Some of them."""


async def reseal(database: Database, keys: MasterKeys, places: Sequence[SealedField], tell: Tell) -> list[Resealed]:
    """Seal again by the first key whatever another one has sealed, in every registered place."""
    return [await _reseal_place(database, keys, place, tell) for place in places]


async def _reseal_place(database: Database, keys: MasterKeys, place: SealedField, tell: Tell) -> Resealed:
    rows = database.raw[place.collection]
    about = await rows.estimated_document_count()
    looked = current = resealed = unopenable = 0
    lost: list[str] = []
    after: object = MinKey()
    while page := await rows.find({"_id": {"$gt": after}}, limit=BATCH).sort("_id", 1).to_list():
        updates: list[UpdateOne] = []
        for row in page:
            sealed = row.get(place.field)
            if sealed is None:
                continue
            if keys.is_current(sealed):
                current += 1
                continue
            try:
                updates.append(_update(place, keys, row))
            except Internal:
                unopenable += 1
                lost.extend([str(row["_id"])] if len(lost) < NAMED_MAX else [])
        if updates:
            resealed += (await rows.bulk_write(updates, ordered=False)).modified_count
        after = page[-1]["_id"]
        looked += len(page)
        tell(place.collection, looked, max(about, looked))
    return Resealed(place.collection, place.field, current, resealed, unopenable, lost)


def _update(place: SealedField, keys: MasterKeys, row: Document) -> UpdateOne:
    """
    Raises:
        Internal: none of the keys opens it.
    """
    context = place.context(row)
    again = keys.seal(keys.open(row[place.field], context), context)
    return UpdateOne({"_id": row["_id"], place.field: row[place.field]}, {"$set": {place.field: again}})
