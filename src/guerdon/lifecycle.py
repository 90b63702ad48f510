"""Life cycle of versioned definitions (draft, active, paused, ended), shared by campaigns, offers and tier sets.

A definition is one stored document that changes, and an archive of versions that do not. Each change of content makes a new version with
the next number, inserted in the commit that stores the definition. A change of status makes no version.
"""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from msgspec import Struct

from guerdon.database import DUPLICATE_KEY, WRITE_CONFLICT, Collection, Database, Document, DuplicateKeyError, PyMongoError
from guerdon.errors import InvalidState, NotFound
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.proofs import ArchivedVersion, VersionProof, version_proof
from guerdon.types import DefinitionStatus

DefinitionT = TypeVar("DefinitionT", bound=Struct)
VersionT = TypeVar("VersionT", bound=ArchivedVersion)

TRANSITIONS: Mapping[DefinitionStatus, frozenset[DefinitionStatus]] = {
    "draft": frozenset({"active", "ended"}),
    "active": frozenset({"paused", "ended"}),
    "paused": frozenset({"active", "ended"}),
    "ended": frozenset(),
}
"""Statuses that may follow each status."""


def version_id(definition_id: str, number: int) -> str:
    """Return the id of a version in the archive."""
    return f"{definition_id}/{number}"


class Definitions(Generic[DefinitionT, VersionT]):
    """Definitions of one kind and the archive of their versions."""

    def __init__(
        self, database: Database, current: tuple[str, type[DefinitionT]], archive: tuple[str, type[VersionT]], *, noun: str
    ) -> None:
        """`current` and `archive` are collection names with their struct types; `noun` names the kind in error texts."""
        self._database = database
        self.current: Collection[DefinitionT] = database.collection(*current)
        self.archive: Collection[VersionT] = database.collection(*archive)
        self._noun = noun

    # --- rules ------------------------------------------------------------------------------------------------------

    def require_replaceable(self, status: DefinitionStatus) -> None:
        """
        Raises:
            InvalidState: the definition has ended.
        """
        if status == "ended":
            raise InvalidState(f"the {self._noun} has ended; create another one", status_now=status)

    def require_transition(self, status: DefinitionStatus, target: DefinitionStatus) -> None:
        """
        Raises:
            InvalidState: `target` cannot follow `status`.
        """
        if status == "ended":
            raise InvalidState(f"the {self._noun} has ended", status_now=status)
        if target not in TRANSITIONS[status]:
            raise InvalidState(f"the {self._noun} is {status}; it cannot become {target}", status_now=status)

    async def require_capacity(self, status: DefinitionStatus, target: DefinitionStatus, active_max: int) -> None:
        """
        Raises:
            InvalidState: `target` is active, and `active_max` definitions are active already.
        """
        if target == "active" and await self.current.raw.count_documents({"status": "active"}) >= active_max:
            raise InvalidState(f"{active_max} {self._noun}s are active already; pause one first", status_now=status)

    def conflict(self, status_now: str) -> InvalidState:
        """Return the error for a definition that changed between the read and the commit."""
        return InvalidState(f"another request changed the {self._noun}; read it again", status_now=status_now)

    # --- writes -----------------------------------------------------------------------------------------------------

    async def insert(self, definition: DefinitionT, version: VersionT) -> None:
        """Insert a definition and its first version in one transaction.

        Raises:
            DuplicateKeyError: the id exists, or another transaction inserts it now.
        """
        try:
            async with self._database.transaction() as session:
                await self.current.insert(definition, session)
                await self.archive.insert(version, session)
        except PyMongoError as error:
            if _is_conflict(error):
                raise DuplicateKeyError(str(error), DUPLICATE_KEY) from None
            raise

    async def replace(self, definition: DefinitionT, version: VersionT | None, *, unchanged: Document, status_now: str) -> None:
        """Replace the definition that matches `unchanged`, and insert the new version if there is one, in one transaction.

        Raises:
            InvalidState: another request changed the definition first; `status_now` is a member of the error.
        """
        try:
            async with self._database.transaction() as session:
                document = self.current.encode(definition)
                result = await self.current.raw.replace_one(unchanged, document, session=session)
                if result.matched_count == 0:
                    raise self.conflict(status_now)
                if version is not None:
                    await self.archive.insert(version, session)
        except PyMongoError as error:
            if _is_conflict(error):
                raise self.conflict(status_now) from None
            raise

    # --- reads ------------------------------------------------------------------------------------------------------

    async def get(self, definition_id: str) -> DefinitionT:
        """
        Raises:
            NotFound: the definition does not exist.
        """
        definition = await self.current.get(definition_id)
        if definition is None:
            raise NotFound(f"there is no such {self._noun}")
        return definition

    async def proof_of(self, definition: Struct, before: str | int) -> VersionProof:
        """Return the proof of a new version. `before` is the id of the version before it in the archive, which the first one has not."""
        found = await self.archive.raw.find_one({"_id": before})
        return version_proof(definition, None if found is None else self.archive.decode(found))

    async def exists(self, definition_id: str) -> bool:
        return await self.current.get(definition_id) is not None

    async def find_versions(self, versions: Iterable[tuple[str, int]]) -> list[VersionT]:
        """Return the archived versions named by (definition id, number). Versions that do not exist are left out."""
        ids = [version_id(definition_id, number) for definition_id, number in sorted(versions)]
        return await self.archive.find({"_id": {"$in": ids}}, limit=len(ids)) if ids else []

    async def list_page(
        self, *, status: DefinitionStatus | None, cursor: str | None, limit: int, prefix: str
    ) -> tuple[list[DefinitionT], str | None]:
        """Return one page, newest first, and the cursor of the next page. `prefix` begins every id of the kind.

        Raises:
            Validation: the cursor was not returned by this list.
        """
        where: Document = {} if status is None else {"status": status}
        if cursor is not None:
            where["_id"] = {"$lt": decode_cursor(cursor, prefix)}
        found = [document async for document in self.current.raw.find(where, limit=limit + 1).sort("_id", -1)]
        page = found[:limit]
        next_cursor = encode_cursor(str(page[-1]["_id"])) if len(found) > limit else None
        return [self.current.decode(document) for document in page], next_cursor


def _is_conflict(error: PyMongoError) -> bool:
    return getattr(error, "code", None) in (DUPLICATE_KEY, WRITE_CONFLICT)
