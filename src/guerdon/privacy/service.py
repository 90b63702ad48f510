"""Erasures: the permanent removal of a member's key and personal data. The ledger does not change.

An erasure is stored as a task when it is requested. Every step can be repeated, so any process can complete the task: the request itself, a
repeated request, or a worker. The certificate, its record in the audit log and the end of the task are one commit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from guerdon.audit_log.service import AuditLog
from guerdon.clock import Clock, to_datetime
from guerdon.database import Database, DuplicateKeyError, PyMongoError, may_try_again
from guerdon.erasable_data import ERASED, ERASURES, ErasableRows
from guerdon.errors import DatabaseUnavailable, InvalidState, NotFound
from guerdon.ledger.service import Ledger
from guerdon.members.models import CLAIMS, MEMBERS, PERSON_KEYS, Claim, Member, PersonKey
from guerdon.members.service import Members
from guerdon.permissions import Actor
from guerdon.privacy.models import ERASING, ErasureTask, Head, StoredCertificate
from guerdon.privacy.rules import address_claims, external_id_claims, filters_of, inventory, view_certificate
from guerdon.sessions.service import Sessions

ERASURES_EVERY_MS = 10_000
TASKS_MAX = 100
"""Maximum number of tasks that one run of the job completes."""
WALLETS_MAX = 1000
"""Maximum number of wallets of a member: one for each asset."""
RECORDS_PAGE = 100
ATTEMPTS_MAX = 20
BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.002, 0.25
_DAY_MS = 86_400_000
_STAFF = "staff cannot be erased; set the role to member first"


class Erasures:
    """The erasures of this deployment."""

    def __init__(
        self,
        database: Database,
        members: Members,
        sessions: Sessions,
        *,
        ledger: Ledger,
        audit: AuditLog,
        clock: Clock,
        belongings: Sequence[ErasableRows],
        external_id_days: int,
        withdraw_files: Callable[[], Awaitable[None]],
    ) -> None:
        """`withdraw_files` makes the files unreadable that may contain any member."""
        self._database = database
        self._member_rows = database.collection(MEMBERS, Member)
        self._claims = database.collection(CLAIMS, Claim)
        self._person_keys = database.collection(PERSON_KEYS, PersonKey)
        self._tasks = database.collection(ERASING, ErasureTask)
        self._certificates = database.collection(ERASURES, StoredCertificate)
        self._members = members
        self._sessions = sessions
        self._ledger = ledger
        self._audit = audit
        self._clock = clock
        self._belongings = belongings
        self._external_id_days = external_id_days
        self._withdraw_files = withdraw_files

    # --- commands ---------------------------------------------------------------------------------------------------

    async def erase(self, member_id: str, actor: Actor, request_id: str) -> StoredCertificate:
        """Remove the personal data of a member permanently. Erasing a member twice returns the same certificate.

        Raises:
            NotFound: the member does not exist.
            InvalidState: the member is staff.
            DatabaseUnavailable: the database did not commit in time. A worker completes the erasure.
        """
        certificate = await self._certificates.get(member_id)
        if certificate is not None:
            return certificate
        return await self._finish(await self._begin(member_id, actor.id, request_id))

    async def erase_own(self, actor: Actor, password: str, request_id: str) -> StoredCertificate:
        """Erase the caller.

        Raises:
            Validation: the password is wrong.
            TooManyRequests, StoreUnavailable, Overloaded: as for `Sessions.prove`.
            InvalidState, DatabaseUnavailable: as for `erase`.
        """
        await self._sessions.prove(actor, password)
        return await self.erase(actor.id, actor, request_id)

    async def finish_begun(self) -> int:
        """Complete the erasures that have begun, and return their number.

        Raises:
            DatabaseUnavailable: at least one could not be completed. The others were.
        """
        tasks = await self._tasks.find({}, sort=[("_id", 1)], limit=TASKS_MAX)
        failed = 0
        for task in tasks:
            try:
                await self._finish(task)
            except InvalidState:
                continue
            except DatabaseUnavailable:
                # An open transaction of a process that died may block the erasure for some seconds.
                failed += 1
        if failed:
            raise DatabaseUnavailable(f"{failed} erasures could not be completed yet", retry_after_seconds=1)
        return len(tasks)

    async def reapply(self, certificate: StoredCertificate) -> bool:
        """Erase a member again whom a restored backup contains. Return False if there was nothing to erase."""
        member = await self._member_rows.get(certificate.id)
        rows = await self._count(certificate.id, member)
        key = await self._person_keys.get(certificate.id)
        restored = key is not None or any(rows.values()) or (member is not None and member.erased_at is None)
        # The role may have been another one when the backup was made.
        change = {"erasing_at": certificate.asked_at, "disabled_at": certificate.asked_at, "role": "member"}
        await self._member_rows.raw.update_one({"_id": certificate.id, "erasing_at": None}, {"$set": change})
        await self._destroy(certificate.id, certificate.asked_at, certificate.external_id_until)
        await self._member_rows.raw.update_one({"_id": certificate.id}, _erased(certificate.completed_at))
        # The audit log of the backup may be older than the erasure too. Then the record is written again, with the current time.
        await self._certify(certificate)
        await self._tasks.raw.delete_one({"_id": certificate.id})
        return restored

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_certificate(self, member_id: str) -> StoredCertificate:
        """Return the certificate of a completed erasure.

        Raises:
            NotFound: the member was not erased, or the erasure is not complete.
        """
        certificate = await self._certificates.get(member_id)
        if certificate is None:
            raise NotFound("there is no completed erasure of this member")
        return certificate

    async def list_certificates(self, after: str, limit: int) -> list[StoredCertificate]:
        """Return up to `limit` certificates with member ids above `after`, in the order of the ids."""
        return await self._certificates.find({"_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit)

    async def find_contradictions(self, certificate: StoredCertificate) -> list[str]:
        """Return the contradictions between a certificate and the database, as messages.

        The certificate must be stored and be in the audit log, the member must be erased, and the ledger must contain its entries.
        """
        messages: list[str] = []
        if await self._certificates.get(certificate.id) != certificate:
            messages.append("it differs from the stored certificate")
        if not await self._is_on_record(certificate):
            messages.append("the audit log does not contain its digest")
        member = await self._member_rows.get(certificate.id)
        if await self._person_keys.get(certificate.id) is not None:
            messages.append("the member's key exists")
        if member is None or member.erased_at is None or member.sealed is not None:
            messages.append("the member is not erased")
        for head in (*certificate.before, *certificate.after):
            entry = await self._ledger.get_entry(head.wallet, head.seq, certificate.id)
            if entry is None or entry.hash != head.head:
                messages.append(f"entry {head.seq} of {head.wallet} does not have the certified hash")
        return messages

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _begin(self, member_id: str, asked_by: str, request_id: str) -> ErasureTask:
        member = await self._members.get_member(member_id)
        if member.role != "member":
            raise InvalidState(_STAFF, status_now=member.role)
        task = ErasureTask(
            id=member_id,
            asked_at=self._clock.now_ms(),
            asked_by=asked_by,
            request_id=request_id,
            found=inventory(member, await self._count(member_id, member)),
            heads=await self._heads(member_id),
        )
        try:
            await self._tasks.insert(task)
        except DuplicateKeyError:
            return await self._tasks.get(member_id) or task
        return task

    async def _finish(self, task: ErasureTask) -> StoredCertificate:
        """Do every step, including those that were done before, and write the certificate once."""
        external_id_until = task.asked_at + self._external_id_days * _DAY_MS
        had_external_id = await self._destroy(task.id, task.asked_at, external_id_until)
        certificate = StoredCertificate(
            id=task.id,
            asked_at=task.asked_at,
            asked_by=task.asked_by,
            request_id=task.request_id,
            completed_at=self._clock.now_ms(),
            destroyed=task.found,
            external_id_until=external_id_until if had_external_id else None,
            before=task.heads,
            after=await self._heads(task.id),
        )
        return await self._certify(certificate)

    async def _destroy(self, member_id: str, asked_at: int, external_id_until: int | None) -> bool:
        """Disable the member and delete their data. Return True if they had an external id.

        Raises:
            InvalidState: the member is staff.
        """
        change = {"$set": {"erasing_at": asked_at, "disabled_at": asked_at}}
        await self._member_rows.raw.update_one({"_id": member_id, "role": "member", "erasing_at": None}, change)
        member = await self._member_rows.get(member_id)
        if member is not None and member.erasing_at is None:
            # The member became staff after the request. The task is dropped before anything is deleted.
            await self._tasks.raw.delete_one({"_id": member_id})
            raise InvalidState(_STAFF, status_now=member.role)
        await self._person_keys.raw.delete_one({"_id": member_id})
        await self._sessions.end_all(member_id)
        # After the deletion of the key: a file that is begun from now on cannot contain the profile.
        await self._withdraw_files()
        for erasable in self._belongings:
            for where in filters_of(erasable, member_id, member):
                await self._database.raw[erasable.collection].delete_many(where)
        if member is None:
            return False
        external_ids = external_id_claims(member)
        await self._claims.raw.delete_many({"_id": {"$in": address_claims(member)}, "member": member_id})
        if external_id_until is not None:
            until = {"$set": {"expires_at": to_datetime(external_id_until)}}
            await self._claims.raw.update_many({"_id": {"$in": external_ids}, "member": member_id}, until)
        return bool(external_ids)

    async def _certify(self, certificate: StoredCertificate) -> StoredCertificate:
        """Write the certificate, its record and the end of the task in one commit. Return the certificate that was committed first."""
        sha256 = view_certificate(certificate).sha256
        subject = {"member_id": certificate.id}
        for attempt in range(ATTEMPTS_MAX):
            committed = await self._certificates.get(certificate.id)
            if committed is not None:
                return committed
            try:
                async with self._database.transaction() as session:
                    await self._certificates.insert(certificate, session)
                    await self._member_rows.raw.update_one(
                        {"_id": certificate.id}, _erased(certificate.completed_at), session=session
                    )
                    await self._tasks.raw.delete_one({"_id": certificate.id}, session=session)
                    await self._audit.append_in(
                        session,
                        certificate.asked_by,
                        ERASED,
                        subject,
                        request_id=certificate.request_id,
                        facts={"certificate": sha256},
                    )
            except PyMongoError as error:
                if not may_try_again(error):
                    raise
                await asyncio.sleep(min(BACKOFF_FIRST_SECONDS * 2**attempt, BACKOFF_MAX_SECONDS))
        raise DatabaseUnavailable("the database did not commit in time; a worker completes the erasure", retry_after_seconds=1)

    async def _is_on_record(self, certificate: StoredCertificate) -> bool:
        sha256, after = view_certificate(certificate).sha256, 0
        while records := await self._audit.list_about(certificate.id, after, RECORDS_PAGE):
            if any(record.action == ERASED and record.facts.get("certificate") == sha256 for record in records):
                return True
            after = records[-1].id
        return False

    async def _count(self, member_id: str, member: Member | None) -> dict[str, int]:
        """Return the number of a member's rows in other collections, by name."""
        rows = dict.fromkeys((erasable.name for erasable in self._belongings), 0)
        for erasable in self._belongings:
            for where in filters_of(erasable, member_id, member):
                rows[erasable.name] += len(await self._database.raw[erasable.collection].find(where, {"_id": 1}).to_list())
        return rows

    async def _heads(self, member_id: str) -> list[Head]:
        accounts = await self._ledger.list_accounts(member_id, limit=WALLETS_MAX)
        return [Head(account.id, account.seq, account.head) for account in accounts]


def _erased(completed_at: int) -> dict[str, dict[str, object]]:
    return {"$set": {"erased_at": completed_at}, "$unset": {"sealed": "", "claims": "", "password_hash": ""}}
