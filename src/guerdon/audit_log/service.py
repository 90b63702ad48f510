"""Writes and reads the audit log."""

import asyncio
import random
from collections.abc import AsyncIterator

from guerdon.audit_log.models import AUDIT, GENESIS, Phase, Record
from guerdon.audit_log.rules import as_successor
from guerdon.clock import Clock
from guerdon.crypto.redaction import redacted
from guerdon.database import Database, DuplicateKeyError, Session
from guerdon.errors import DatabaseUnavailable

ATTEMPTS_MAX = 50
BACKOFF_SECONDS = 0.02
BATCH = 1000
TERMINAL = "terminal"


class AuditLog:
    """The audit log of this deployment. The unique `_id` decides the order of concurrent writers. No method changes or deletes a record."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._records = database.collection(AUDIT, Record)
        self._clock = clock

    async def append(
        self,
        phase: Phase,
        actor: str,
        action: str,
        subject: dict[str, str],
        *,
        request_id: str,
        status: int | None = None,
        facts: dict[str, str] | None = None,
    ) -> Record:
        """Write the next record. It is durable when this returns.

        Raises:
            DatabaseUnavailable: too many other processes wrote at the same time.
        """
        draft = self._draft(phase, actor, action, subject, request_id=request_id, status=status, facts=facts)
        for _ in range(ATTEMPTS_MAX):
            try:
                return await self._insert_next(draft, None)
            except DuplicateKeyError:
                await asyncio.sleep(random.uniform(0, BACKOFF_SECONDS))
        raise DatabaseUnavailable("the audit log could not be written in time; nothing was changed", retry_after_seconds=1)

    async def append_in(
        self, session: Session, actor: str, action: str, subject: dict[str, str], *, request_id: str, facts: dict[str, str]
    ) -> Record:
        """Write a record of a completed action in the caller's transaction.

        Raises:
            DuplicateKeyError: another process wrote at the same time. The transaction is aborted.
        """
        draft = self._draft("answered", actor, action, subject, request_id=request_id, status=None, facts=facts)
        return await self._insert_next(draft, session)

    def _draft(
        self,
        phase: Phase,
        actor: str,
        action: str,
        subject: dict[str, str],
        *,
        request_id: str,
        status: int | None,
        facts: dict[str, str] | None,
    ) -> Record:
        return Record(
            id=0,
            at=self._clock.now_ms(),
            phase=phase,
            actor=actor,
            action=action,
            # A caller may send a key in place of its id, and a record can never be removed.
            subject={name: redacted(value) for name, value in subject.items()},
            request_id=request_id,
            status=status,
            facts=facts or {},
            prev=GENESIS,
            hash=GENESIS,
        )

    async def _insert_next(self, draft: Record, session: Session | None) -> Record:
        newest = await self._records.raw.find({}, session=session, limit=1).sort("_id", -1).to_list()
        record = as_successor(draft, self._records.decode(newest[0]) if newest else None)
        await self._records.insert(record, session)
        return record

    async def list_about(self, member_id: str, after: int, limit: int) -> list[Record]:
        """Return up to `limit` records about a member with numbers above `after`, oldest first."""
        return await self._records.find({"about": member_id, "_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit)

    async def list_records(self, limit: int, before: int | None) -> tuple[list[Record], str | None]:
        """Return a page of records with numbers below `before`, newest first, and the `before` of the next page or None."""
        where = {} if before is None else {"_id": {"$lt": before}}
        page = await self._records.find(where, sort=[("_id", -1)], limit=limit)
        return page, str(page[-1].id) if len(page) == limit and page[-1].id > 1 else None

    async def read(self, after: int = 0) -> AsyncIterator[Record]:
        """Yield the records with numbers above `after`, oldest first."""
        while page := await self._records.find({"_id": {"$gt": after}}, sort=[("_id", 1)], limit=BATCH):
            for record in page:
                yield record
            after = page[-1].id

    async def get(self, seq: int) -> Record | None:
        """Return the record with this number, or None."""
        found = await self._records.find({"_id": seq}, limit=1)
        return found[0] if found else None
