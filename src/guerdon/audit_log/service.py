"""Appending to the audit log and reading it."""

import asyncio
import random
from collections.abc import AsyncIterator

from guerdon.audit_log.models import AUDIT, GENESIS, Phase, Record
from guerdon.audit_log.rules import chained
from guerdon.clock import Clock
from guerdon.crypto.redaction import redacted
from guerdon.database import Database, DuplicateKeyError, Session
from guerdon.errors import DatabaseUnavailable

ATTEMPTS_MAX = 50
BACKOFF_SECONDS = 0.02
BATCH = 1000
TERMINAL = "terminal"


class AuditLog:
    """The log of this deployment. Its `_id`s decide which of two processes comes first; nothing here changes or deletes."""

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
        """Write the next record; it is durable when this returns.

        Raises:
            DatabaseUnavailable: too many others wrote at the same moment.
        """
        draft = self._draft(phase, actor, action, subject, request_id=request_id, status=status, facts=facts)
        for _ in range(ATTEMPTS_MAX):
            try:
                return await self._place(draft, None)
            except DuplicateKeyError:
                await asyncio.sleep(random.uniform(0, BACKOFF_SECONDS))
        raise DatabaseUnavailable("the audit log could not be written in time; nothing was done", retry_after_seconds=1)

    async def append_in(
        self, session: Session, actor: str, action: str, subject: dict[str, str], *, request_id: str, facts: dict[str, str]
    ) -> Record:
        """Write a record in somebody else's transaction, of something that was done.

        Raises:
            DuplicateKeyError: another process wrote at the same moment; the transaction is lost.
        """
        draft = self._draft("answered", actor, action, subject, request_id=request_id, status=None, facts=facts)
        return await self._place(draft, session)

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
            # Somebody takes a key for the id of a key, and what is written here is never taken out again.
            subject={name: redacted(value) for name, value in subject.items()},
            request_id=request_id,
            status=status,
            facts=facts or {},
            prev=GENESIS,
            hash=GENESIS,
        )

    async def _place(self, draft: Record, session: Session | None) -> Record:
        newest = await self._records.raw.find({}, session=session, limit=1).sort("_id", -1).to_list()
        record = chained(draft, self._records.decode(newest[0]) if newest else None)
        await self._records.insert(record, session)
        return record

    async def list_about(self, member_id: str, after: int, limit: int) -> list[Record]:
        """Return up to `limit` records that name a member and come after number `after`, oldest first."""
        return await self._records.find({"about": member_id, "_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit)

    async def list_records(self, limit: int, before: int | None) -> tuple[list[Record], str | None]:
        """Return a page, newest first, and the position of the next."""
        where = {} if before is None else {"_id": {"$lt": before}}
        page = await self._records.find(where, sort=[("_id", -1)], limit=limit)
        return page, str(page[-1].id) if len(page) == limit and page[-1].id > 1 else None

    async def read(self, after: int = 0) -> AsyncIterator[Record]:
        """Yield the records behind number `after`, oldest first."""
        while page := await self._records.find({"_id": {"$gt": after}}, sort=[("_id", 1)], limit=BATCH):
            for record in page:
                yield record
            after = page[-1].id

    async def get(self, seq: int) -> Record | None:
        found = await self._records.find({"_id": seq}, limit=1)
        return found[0] if found else None
