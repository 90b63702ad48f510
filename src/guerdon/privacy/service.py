"""Erasing people: their key first of all, and everything that says who they are; the ledger stays as it is.

An erasure is a task from the moment it is asked for. Every step may be done again, so whoever finds the task ends it: the request itself, the
same request again, or a worker. The certificate, its place in the audit log and the end of the task are one commit.
"""

import asyncio
from collections.abc import Sequence

from guerdon.audit_log.service import AuditLog
from guerdon.clock import Clock, to_datetime
from guerdon.database import Database, DuplicateKeyError, PyMongoError, may_try_again
from guerdon.erasable_data import ErasableRows
from guerdon.errors import DatabaseUnavailable, InvalidState, NotFound
from guerdon.ledger.service import Ledger
from guerdon.members.models import CLAIMS, MEMBERS, PERSON_KEYS, Claim, Member, PersonKey
from guerdon.members.service import Members
from guerdon.permissions import Actor
from guerdon.privacy.models import ERASING, ERASURES, ErasureTask, Head, StoredCertificate
from guerdon.privacy.rules import address_claims, external_id_claims, filters_of, inventory, view_certificate
from guerdon.sessions.service import Sessions

ACTION = "memberErased"
ERASURES_EVERY_MS = 10_000
TASKS_MAX = 100
"""So many are ended in one run of the job."""
WALLETS_MAX = 1000
"""A member has one wallet for each asset at most, and there are no more assets."""
RECORDS_PAGE = 100
ATTEMPTS_MAX = 20
BACKOFF_FIRST_SECONDS, BACKOFF_MAX_SECONDS = 0.002, 0.25
_DAY_MS = 86_400_000
_STAFF = "somebody who works here cannot be erased: make them a member first"


class Erasures:
    """The erasures of this deployment."""

    def __init__(
        self,
        database: Database,
        identity: Members,
        sessions: Sessions,
        *,
        ledger: Ledger,
        audit: AuditLog,
        clock: Clock,
        belongings: Sequence[ErasableRows],
        external_id_days: int,
    ) -> None:
        self._database = database
        self._members = database.collection(MEMBERS, Member)
        self._claims = database.collection(CLAIMS, Claim)
        self._person_keys = database.collection(PERSON_KEYS, PersonKey)
        self._tasks = database.collection(ERASING, ErasureTask)
        self._certificates = database.collection(ERASURES, StoredCertificate)
        self._identity = identity
        self._sessions = sessions
        self._ledger = ledger
        self._audit = audit
        self._clock = clock
        self._belongings = belongings
        self._external_id_days = external_id_days

    # --- commands ---------------------------------------------------------------------------------------------------

    async def erase(self, member_id: str, actor: Actor, request_id: str) -> StoredCertificate:
        """Make everything unreadable that says who a member is. Erasing twice changes nothing and answers the same certificate.

        Raises:
            NotFound: there is no such member.
            InvalidState: it is somebody who works here.
            DatabaseUnavailable: the database did not settle it in time; a worker goes on with it.
        """
        done = await self._certificates.get(member_id)
        if done is not None:
            return done
        return await self._finish(await self._begin(member_id, actor.id, request_id))

    async def erase_own(self, actor: Actor, password: str, request_id: str) -> StoredCertificate:
        """Erase the caller.

        Raises:
            Validation: the password is not right.
            TooManyRequests, StoreUnavailable, Overloaded: as for a change of password.
            InvalidState, DatabaseUnavailable: as for `erase`.
        """
        await self._sessions.prove(actor, password)
        return await self.erase(actor.id, actor, request_id)

    async def finish_begun(self) -> int:
        """End what was begun and not ended, whoever began it; return how many there were.

        Raises:
            DatabaseUnavailable: one or more could not be settled; the others were.
        """
        tasks = await self._tasks.find({}, sort=[("_id", 1)], limit=TASKS_MAX)
        unsettled = 0
        for task in tasks:
            try:
                await self._finish(task)
            except InvalidState:
                continue
            except DatabaseUnavailable:
                # What a process that died has left open in the database may stand in the way for some seconds more.
                unsettled += 1
        if unsettled:
            raise DatabaseUnavailable(f"{unsettled} erasures could not be ended yet", retry_after_seconds=1)
        return len(tasks)

    async def reapply(self, certificate: StoredCertificate) -> bool:
        """Erase again somebody whom a restored backup has brought back. Tell whether there was anything left to erase."""
        member = await self._members.get(certificate.id)
        rows = await self._count(certificate.id, member)
        key = await self._person_keys.get(certificate.id)
        again = key is not None or any(rows.values()) or (member is not None and member.erased_at is None)
        # Whatever they were when the backup was made.
        marked = {"erasing_at": certificate.asked_at, "disabled_at": certificate.asked_at, "role": "member"}
        await self._members.raw.update_one({"_id": certificate.id, "erasing_at": None}, {"$set": marked})
        await self._destroy(certificate.id, certificate.asked_at, certificate.external_id_until)
        await self._members.raw.update_one({"_id": certificate.id}, _erased(certificate.completed_at))
        # The backup's audit log may be older than the erasure as well: its record is written anew, at the time that it is now.
        await self._certify(certificate)
        await self._tasks.raw.delete_one({"_id": certificate.id})
        return again

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_certificate(self, member_id: str) -> StoredCertificate:
        """
        Raises:
            NotFound: no such member was erased, or the erasure is not finished.
        """
        certificate = await self._certificates.get(member_id)
        if certificate is None:
            raise NotFound("there is no certificate of an erasure of such a member")
        return certificate

    async def list_certificates(self, after: str, limit: int) -> list[StoredCertificate]:
        """Return up to `limit` certificates in the order of their members' ids, those after `after`."""
        return await self._certificates.find({"_id": {"$gt": after}}, sort=[("_id", 1)], limit=limit)

    async def doubts_about(self, certificate: StoredCertificate) -> list[str]:
        """Return what speaks against a certificate, as sentences: it must be on record, its person gone, and the ledger as it says."""
        doubts: list[str] = []
        if await self._certificates.get(certificate.id) != certificate:
            doubts.append("it is not the one that is stored")
        if not await self._is_on_record(certificate):
            doubts.append("the audit log does not hold its digest")
        member = await self._members.get(certificate.id)
        if await self._person_keys.get(certificate.id) is not None:
            doubts.append("the person's key is there")
        if member is None or member.erased_at is None or member.sealed is not None:
            doubts.append("the person is not erased")
        for head in (*certificate.before, *certificate.after):
            entry = await self._ledger.get_entry(head.wallet, head.seq, certificate.id)
            if entry is None or entry.hash != head.head:
                doubts.append(f"entry {head.seq} of {head.wallet} is not the one that it names")
        return doubts

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _begin(self, member_id: str, asked_by: str, request_id: str) -> ErasureTask:
        member = await self._identity.get_member(member_id)
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
        """Do every step, whether or not it was done before, and certify it once."""
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
        """Lock the member out, and delete what is theirs. Tell whether they had an external id.

        Raises:
            InvalidState: somebody who works here.
        """
        marked = {"$set": {"erasing_at": asked_at, "disabled_at": asked_at}}
        await self._members.raw.update_one({"_id": member_id, "role": "member", "erasing_at": None}, marked)
        member = await self._members.get(member_id)
        if member is not None and member.erasing_at is None:
            # Made one of those who work here after it was asked for: they are let in again before anything is lost.
            await self._tasks.raw.delete_one({"_id": member_id})
            raise InvalidState(_STAFF, status_now=member.role)
        await self._person_keys.raw.delete_one({"_id": member_id})
        await self._sessions.end_all(member_id)
        for each in self._belongings:
            for where in filters_of(each, member_id, member):
                await self._database.raw[each.collection].delete_many(where)
        if member is None:
            return False
        external_ids = external_id_claims(member)
        await self._claims.raw.delete_many({"_id": {"$in": address_claims(member)}, "member": member_id})
        if external_id_until is not None:
            until = {"$set": {"expires_at": to_datetime(external_id_until)}}
            await self._claims.raw.update_many({"_id": {"$in": external_ids}, "member": member_id}, until)
        return bool(external_ids)

    async def _certify(self, certificate: StoredCertificate) -> StoredCertificate:
        """Write the certificate, its record and the end of the task in one commit; whoever comes second gets the first one's."""
        proof = view_certificate(certificate).sha256
        subject = {"member_id": certificate.id}
        for attempt in range(ATTEMPTS_MAX):
            done = await self._certificates.get(certificate.id)
            if done is not None:
                return done
            try:
                async with self._database.transaction() as session:
                    await self._certificates.insert(certificate, session)
                    await self._members.raw.update_one({"_id": certificate.id}, _erased(certificate.completed_at), session=session)
                    await self._tasks.raw.delete_one({"_id": certificate.id}, session=session)
                    await self._audit.append_in(
                        session,
                        certificate.asked_by,
                        ACTION,
                        subject,
                        request_id=certificate.request_id,
                        facts={"certificate": proof},
                    )
            except PyMongoError as error:
                if not may_try_again(error):
                    raise
                await asyncio.sleep(min(BACKOFF_FIRST_SECONDS * 2**attempt, BACKOFF_MAX_SECONDS))
        raise DatabaseUnavailable("the database could not settle this in time; a worker goes on with it", retry_after_seconds=1)

    async def _is_on_record(self, certificate: StoredCertificate) -> bool:
        proof, after = view_certificate(certificate).sha256, 0
        while records := await self._audit.list_about(certificate.id, after, RECORDS_PAGE):
            if any(record.action == ACTION and record.facts.get("certificate") == proof for record in records):
                return True
            after = records[-1].id
        return False

    async def _count(self, member_id: str, member: Member | None) -> dict[str, int]:
        """How many rows of other rooms are a member's."""
        rows = dict.fromkeys((each.name for each in self._belongings), 0)
        for each in self._belongings:
            for where in filters_of(each, member_id, member):
                rows[each.name] += len(await self._database.raw[each.collection].find(where, {"_id": 1}).to_list())
        return rows

    async def _heads(self, member_id: str) -> list[Head]:
        accounts = await self._ledger.list_accounts(member_id, limit=WALLETS_MAX)
        return [Head(account.id, account.seq, account.head) for account in accounts]


def _erased(completed_at: int) -> dict[str, dict[str, object]]:
    return {"$set": {"erased_at": completed_at}, "$unset": {"sealed": "", "claims": "", "password_hash": ""}}
