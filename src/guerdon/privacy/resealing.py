"""Rotation of the master keys: values that an older key has sealed are sealed again by the first key.

A row is changed only if it is still the one that was read. So the service may run meanwhile, several rotations may run at once, and an
interrupted rotation can be run again: it skips the rows that are done.
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
ReportProgress = Callable[[str, int, int], None]
"""Receives the collection, the number of rows examined, and the estimated number of rows."""


class Resealed(Struct, frozen=True):
    """The result of a rotation for one sealed field."""

    collection: str
    field: str
    current: int
    """Number of values that the first key had sealed already."""
    resealed: int
    """Number of values that were sealed again."""
    unopenable: int
    """Number of values that none of the keys opens. They are not changed."""
    unopenable_ids: list[str]
    """Ids of the first 20 such rows."""


async def reseal(
    database: Database, keys: MasterKeys, fields: Sequence[SealedField], report_progress: ReportProgress
) -> list[Resealed]:
    """Seal every value of the registered fields by the first key, if another key has sealed it."""
    return [await _reseal_field(database, keys, field, report_progress) for field in fields]


async def _reseal_field(database: Database, keys: MasterKeys, field: SealedField, report_progress: ReportProgress) -> Resealed:
    rows = database.raw[field.collection]
    estimated = await rows.estimated_document_count()
    examined = current = resealed = unopenable = 0
    unopenable_ids: list[str] = []
    after: object = MinKey()
    while page := await rows.find({"_id": {"$gt": after}}, limit=BATCH).sort("_id", 1).to_list():
        updates: list[UpdateOne] = []
        for row in page:
            sealed = row.get(field.field)
            if sealed is None:
                continue
            if keys.is_current(sealed):
                current += 1
                continue
            try:
                updates.append(_update(field, keys, row))
            except Internal:
                unopenable += 1
                if len(unopenable_ids) < NAMED_MAX:
                    unopenable_ids.append(str(row["_id"]))
        if updates:
            resealed += (await rows.bulk_write(updates, ordered=False)).modified_count
        after = page[-1]["_id"]
        examined += len(page)
        report_progress(field.collection, examined, max(estimated, examined))
    return Resealed(field.collection, field.field, current, resealed, unopenable, unopenable_ids)


def _update(field: SealedField, keys: MasterKeys, row: Document) -> UpdateOne:
    """
    Raises:
        Internal: none of the keys opens the value.
    """
    context = field.context(row)
    sealed = keys.seal(keys.open(row[field.field], context), context)
    return UpdateOne({"_id": row["_id"], field.field: row[field.field]}, {"$set": {field.field: sealed}})
