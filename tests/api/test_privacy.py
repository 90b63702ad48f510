"""GDPR-1 to 4 as far as one process shows them: export, erasure, late events, restored backups. tests/trust/test_privacy.py has the rest."""

import asyncio
import copy
import json
from contextlib import suppress
from hashlib import sha256
from typing import Any

import bson
import msgspec
import pytest
from pymongo import monitoring

from guerdon.audit_log.rules import find_faults
from guerdon.collections import INDEXES, SEALED_FIELDS
from guerdon.database import Database, Document
from guerdon.errors import DatabaseUnavailable, Validation
from guerdon.members.models import Member
from guerdon.members.vault import open_profile
from guerdon.permissions import Actor
from guerdon.privacy.exports import BATCH
from guerdon.privacy.models import ERASING, CertificateView
from guerdon.privacy.rules import stored_certificate, view_certificate
from guerdon.wiring.services import Services
from tests.clients import Caller, Log, ManualClock, problem
from tests.factories import Factory

PASSWORD = "correct horse battery"
ATTRIBUTES = 20
ADMIN = Actor("mem_" + "a" * 32, "operator")


class Subject:
    """Somebody all of whose personal fields hold a mark of their own, forty in all."""

    def __init__(self, name: str) -> None:
        self.marks = [f"mark{number:02}x{name}" for number in range(2 * ATTRIBUTES + 4)]
        self.email, self.external_id = f"{self.marks[0]}@example.com", self.marks[1]
        self.device, self.other_email = self.marks[2], f"{self.marks[3]}@example.com"
        names, values = self.marks[4 : 4 + ATTRIBUTES], self.marks[4 + ATTRIBUTES :]
        self.attributes = dict(zip(names, values, strict=True))
        self.id = self.token = ""

    async def join(self, service: Caller, anonymous: Caller, services: Services) -> None:
        """Be made by a shop, be given a password by an operator, log in."""
        body = {"email": self.email, "external_id": self.external_id, "attributes": self.attributes}
        self.id = (await service.post("/v1/members", body)).json()["id"]
        issued = await services.password_resets.issue(self.id)
        assert (await anonymous.post("/v1/auth/reset", {"token": issued, "new_password": PASSWORD})).status_code == 200
        login = {"email": self.email, "password": PASSWORD}
        answer = await anonymous.post("/v1/auth/login", login, **{"user-agent": self.device})
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["access_token"]

    async def use(self, service: Caller, factory: Factory, other: str) -> str:
        """Use what there is to use; return the wallet."""
        wallet = await factory.wallet(500, member=self.id)
        await factory.campaign(audience="size(member.attributes) > 0 && int(member.external_id) > 0")
        await factory.campaign()
        for member in ({"external_id": self.external_id}, {"id": self.id}):
            assert (await service.post("/v1/events", factory.event(member=member))).status_code == 201
        await service.post("/v1/transfers", {"from": wallet, "to": other, "amount": 5})
        hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 9})).json()["id"]
        await service.post(f"/v1/holds/{hold}/capture", {"amount": 4})
        paid = (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 7, "reference": "order-1"})).json()["id"]
        await service.post(f"/v1/transactions/{paid}/reverse", {"amount": 2})
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 10**9})
        await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 20, "expires_at": "2099-01-01T00:00:00Z"})
        return wallet


async def everything_stored(database: Database) -> bytes:
    """Every collection, also those that nobody has told us of, as bytes."""
    names = await database.raw.list_collection_names()
    assert set(INDEXES) <= set(names)
    return b"".join([bson.encode(row) for name in names async for row in database.raw[name].find({})])


async def everything_opened(services: Services) -> bytes:
    """What whoever has the database and the master keys can read of people: their profiles, devices, and what is sealed for others."""
    members = await services.database.collection("members", Member).find({}, limit=1000)
    opened = [msgspec.json.encode(open_profile(each, await services.vault.get_key(each.id))) for each in members]
    for member in members:
        opened += [(device or "").encode() for _, device in await services.sessions.list_of(member.id)]
    for place in SEALED_FIELDS:
        async for row in services.database.raw[place.collection].find({place.field: {"$exists": True}}):
            opened.append(services.vault.master.open(row[place.field], place.context(row)))
    return b"".join(opened)


async def heads(database: Database) -> dict[str, tuple[int, bytes, int]]:
    return {row["_id"]: (row["seq"], row["head"], row["balance"]) async for row in database.raw["accounts"].find({})}


def found(marks: list[str], text: bytes) -> set[str]:
    return {mark for mark in marks if mark.encode() in text}


# --- erasure ------------------------------------------------------------------------------------------------------------


async def test_erasure_leaves_no_personal_marker_in_the_database(
    service: Caller, anonymous: Caller, services: Services, factory: Factory, log: Log
) -> None:
    """GDPR-1."""
    ada, bob = Subject("ada"), Subject("bob")
    for each in (ada, bob):
        await each.join(service, anonymous, services)
    wallet = await ada.use(service, factory, await factory.wallet(10, member=bob.id))
    await anonymous.post("/v1/auth/forgot", {"email": ada.email})
    await services.password_resets.process_requests()
    await anonymous.post("/v1/auth/forgot", {"email": ada.email})
    assert (await service.get(f"/v1/members/{ada.id}")).json()["attributes"] == ada.attributes
    assert len(found(ada.marks, await everything_opened(services))) >= 40
    assert found(ada.marks + bob.marks, await everything_stored(services.database)) == set(), "it is sealed from the beginning"
    await factory.assert_books_balance()
    before = await heads(services.database)

    certificate = (await service.post(f"/v1/members/{ada.id}/erase")).json()

    assert certificate["destroyed"] == {
        "profile": 1, "key": 1, "password": 1, "address_claims": 1,
        "sessions": 1, "second_factors": 0, "outbox": 1, "outbox_by_address": 2, "resets": 1, "exports": 0, "segments": 0,
    }  # fmt: skip
    assert found(ada.marks, await everything_opened(services)) == set()
    assert len(found(bob.marks, await everything_opened(services))) >= 40, "and nobody else is forgotten"
    assert found(ada.marks + bob.marks, await everything_stored(services.database)) == set()
    assert found(ada.marks, log.getvalue().encode()) == set()
    assert await heads(services.database) == before
    assert [each["head_before"] == each["head_after"] == before[wallet][1].hex() for each in certificate["wallets"]] == [True]
    exported = await service.get(f"/v1/members/{ada.id}/export")
    assert found(ada.marks, exported.content) == set()
    assert exported.json()["wallets"][0]["wallet"]["balance"] == before[wallet][2]
    await factory.assert_books_balance()
    assert list(find_faults([record async for record in services.audit_log.read()])) == []


async def test_erased_member_keeps_only_the_id(
    service: Caller, anonymous: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    wallet = await factory.wallet(100, member=ada.id)
    me = anonymous.with_token(ada.token)
    certificate = (await service.post(f"/v1/members/{ada.id}/erase")).json()
    nobody = {
        "id": ada.id,
        "external_id": None,
        "email": None,
        "role": "member",
        "attributes": {},
        "status": "erased",
        "segments": [],
    }
    shown = (await service.get(f"/v1/members/{ada.id}")).json()
    assert shown == {**nobody, "created_at": shown["created_at"]}
    assert (await service.get("/v1/members", external_id=ada.external_id)).json()["items"] == [shown]
    problem(await me.get("/v1/me"), 401, "unauthenticated")
    problem(await anonymous.post("/v1/auth/login", {"email": ada.email, "password": PASSWORD}), 401, "unauthenticated")
    assert (await services.password_resets.process_requests()) == 0
    for path, body in (("enable", None), ("disable", None)):
        refused = problem(await service.post(f"/v1/members/{ada.id}/{path}", body), 409, "invalid-state")
        assert refused["status_now"] == "erased"
    problem(await service.put(f"/v1/members/{ada.id}/role", {"role": "admin"}), 409, "invalid-state")
    assert await factory.balance(wallet) == 100, "what is on the books stays there"
    for again in (service.post(f"/v1/members/{ada.id}/erase"), service.get(f"/v1/members/{ada.id}/erasure")):
        assert (await again).json() == certificate
    # The address is free for somebody new; the external id is not, as long as late events may come.
    assert (await anonymous.post("/v1/auth/register", {"email": ada.email, "password": PASSWORD})).status_code == 201
    problem(await service.post("/v1/members", {"external_id": ada.external_id}), 409, "already-exists")
    [claim] = [row async for row in services.database.raw["claims"].find({"member": ada.id})]
    assert abs(claim["expires_at"].timestamp() - clock.now_ms() / 1000 - 400 * 86_400) < 60
    assert certificate["external_id_until"][:16] == claim["expires_at"].isoformat()[:16]


async def test_erasure_certificate_matches_the_audit_log(service: Caller, services: Services, factory: Factory) -> None:
    member = await factory.member()
    certificate = (await service.post(f"/v1/members/{member}/erase")).json()
    said = {name: value for name, value in certificate.items() if name != "sha256"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert sha256(text.encode()).hexdigest() == certificate["sha256"]
    records = [record async for record in services.audit_log.read()]
    assert [(record.phase, record.action, record.subject) for record in records] == [
        ("asked", "eraseMember", {"member_id": member}),
        ("answered", "memberErased", {"member_id": member}),
        ("answered", "eraseMember", {"member_id": member}),
    ]
    assert records[1].facts == {"certificate": certificate["sha256"]}
    assert {record.request_id for record in records} == {certificate["request_id"]}
    assert list(find_faults(records)) == []


async def test_late_events_of_an_erased_member_create_no_member(
    service: Caller, anonymous: Caller, services: Services, factory: Factory
) -> None:
    """GDPR-4, the second half: by external id and by our id, with campaigns that ask who it is."""
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    await factory.campaign()
    await factory.campaign(audience="member.external_id == '' && size(member.attributes) == 0")
    await service.post("/v1/events", factory.event(member={"external_id": ada.external_id}))
    await service.post(f"/v1/members/{ada.id}/erase")
    rows = {name: await services.database.raw[name].count_documents({}) for name in ("members", "person_keys", "claims")}
    for member in ({"external_id": ada.external_id}, {"id": ada.id}):
        recorded = await service.post("/v1/events", factory.event(member=member))
        assert recorded.status_code == 201, recorded.text
        assert recorded.json()["member_id"] == ada.id
        assert [each["outcome"] for each in recorded.json()["decisions"]] == ["awarded", "awarded"]
    assert await factory.balance(f"{ada.id}:PTS") == 139 * 5
    assert rows == {name: await services.database.raw[name].count_documents({}) for name in rows}
    assert (await service.get(f"/v1/members/{ada.id}")).json()["status"] == "erased"
    await factory.assert_books_balance()


async def test_events_that_race_with_an_erasure_are_all_booked(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    first = (await service.post("/v1/events", factory.event(member={"external_id": "racer"}))).json()
    events = [factory.event(member={"external_id": "racer"}) for _ in range(30)]
    answers = await asyncio.gather(
        *(service.post("/v1/events", event) for event in events[:15]),
        service.post(f"/v1/members/{first['member_id']}/erase"),
        *(service.post("/v1/events", event) for event in events[15:]),
    )
    assert sorted({answer.status_code for answer in answers}) == [200, 201]
    assert await factory.balance(f"{first['member_id']}:PTS") == 139 * 31
    assert await database.raw["members"].count_documents({}) == 1
    await factory.assert_books_balance()


async def test_own_erasure_requires_the_current_password(service: Caller, anonymous: Caller, services: Services) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    me = anonymous.with_token(ada.token)
    wrong = await me.post("/v1/me/erase", {"current_password": "wrong horse"})
    assert problem(wrong, 422, "validation")["errors"][0]["pointer"] == "/current_password"
    assert (await me.get("/v1/me")).json()["email"] == ada.email
    certificate = (await me.post("/v1/me/erase", {"current_password": PASSWORD})).json()
    assert certificate["asked_by"] == certificate["member_id"] == ada.id
    problem(await me.post("/v1/me/erase", {"current_password": PASSWORD}), 401, "unauthenticated")
    assert (await service.get(f"/v1/members/{ada.id}/erasure")).json() == certificate


async def test_staff_cannot_be_erased(service: Caller, anonymous: Caller, services: Services, database: Database) -> None:
    support = await services.members.create_operator("support@example.com", PASSWORD, "support")
    assert problem(await service.post(f"/v1/members/{support.id}/erase"), 409, "invalid-state")["status_now"] == "support"
    login = await anonymous.post("/v1/auth/login", {"email": "support@example.com", "password": PASSWORD})
    me = anonymous.with_token(login.json()["access_token"])
    problem(await me.post("/v1/me/erase", {"current_password": PASSWORD}), 409, "invalid-state")
    assert await database.raw[ERASING].count_documents({}) == 0
    await service.put(f"/v1/members/{support.id}/role", {"role": "member"})
    assert (await me.post("/v1/me/erase", {"current_password": PASSWORD})).status_code == 200
    for unknown in ("mem_" + "0" * 32, "mem_1"):
        problem(await service.post(f"/v1/members/{unknown}/erase"), 404, "not-found")
        problem(await service.get(f"/v1/members/{unknown}/erasure"), 404, "not-found")


class Interrupter(monitoring.CommandListener):
    """Cancels the task whose command of a given number has just been answered, as if its process had died right then."""

    def __init__(self) -> None:
        self.victim: asyncio.Task[Any] | None = None
        self.left = 0

    def started(self, event: monitoring.CommandStartedEvent) -> None: ...

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if self.victim is None or asyncio.current_task() is not self.victim:
            return
        self.left -= 1
        if self.left == 0:
            self.victim.cancel()

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


_interrupter = Interrupter()
monitoring.register(_interrupter)


async def test_interrupted_erasure_is_completed_by_a_worker(
    service: Caller, services: Services, other_services: Services, factory: Factory
) -> None:
    """GDPR-4, the first half, at every third command; every single one, and the kill of a real process, are in tests/trust."""
    assert await cut_off_erasures(service, services, other_services, every=3) >= 5
    await factory.assert_books_balance()


async def cut_off_erasures(service: Caller, services: Services, other_services: Services, *, every: int) -> int:
    """Cut an erasure off after its first command, another one some commands later, until one is over before that; return how many."""
    factory = Factory(service, services)
    cut = ended_by_worker = 0
    for number in range(1, 60, every):
        who = Subject(f"n{number}")
        who.id = (await service.post("/v1/members", {"email": who.email, "external_id": who.external_id})).json()["id"]
        await factory.wallet(5, member=who.id)
        task = asyncio.create_task(services.erasures.erase(who.id, ADMIN, f"req_{number:08}"))
        _interrupter.victim, _interrupter.left = task, number
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        _interrupter.victim = None
        if not isinstance(outcome, asyncio.CancelledError):
            break
        cut += 1
        # What was under way on the connection may still arrive, and a transaction be left open: a job comes again.
        for _ in range(5):
            with suppress(DatabaseUnavailable):
                ended_by_worker += await other_services.erasures.finish_begun()
                break
        certificate = (await service.post(f"/v1/members/{who.id}/erase")).json()
        assert (certificate["destroyed"]["profile"], certificate["destroyed"]["key"]) == (1, 1)
        assert found([who.email, who.external_id], await everything_opened(services)) == set()
        assert await services.database.raw["person_keys"].count_documents({"_id": who.id}) == 0
        assert (await service.get(f"/v1/members/{who.id}")).json()["status"] == "erased"
    assert ended_by_worker >= cut / 2
    assert await services.database.raw[ERASING].count_documents({}) == 0
    said = [record.subject["member_id"] async for record in services.audit_log.read() if record.action == "memberErased"]
    assert len(said) == len(set(said)) == cut + 1, "one record each"
    return cut


async def test_concurrent_erasure_requests_get_one_certificate(
    services: Services, other_services: Services, factory: Factory
) -> None:
    member = await factory.member()
    tasks = [each.erasures.erase(member, ADMIN, f"req_{n:08}") for n in range(10) for each in (services, other_services)]
    certificates = await asyncio.gather(*tasks)
    assert all(each == certificates[0] for each in certificates)
    records = [record async for record in services.audit_log.read() if record.action == "memberErased"]
    assert len(records) == 1
    assert list(find_faults([record async for record in services.audit_log.read()])) == []


# --- restored backups ---------------------------------------------------------------------------------------------------


async def dump(database: Database, *, without: str = "") -> dict[str, list[Document]]:
    names = set(await database.raw.list_collection_names()) - {without}
    return {name: [copy.deepcopy(row) async for row in database.raw[name].find({})] for name in sorted(names)}


async def restore(database: Database, dumped: dict[str, list[Document]]) -> None:
    for name in await database.raw.list_collection_names():
        await database.raw[name].delete_many({})
        if dumped.get(name):
            await database.raw[name].insert_many(dumped[name])


@pytest.mark.parametrize("without", ["person_keys", ""], ids=["without keys", "with keys"])
async def test_erasure_log_is_reapplied_to_a_restored_backup(
    service: Caller, anonymous: Caller, services: Services, without: str
) -> None:
    """GDPR-2. The second case is the worst one: the keys were in the backup as well."""
    ada, bob = Subject("ada"), Subject("bob")
    for each in (ada, bob):
        await each.join(service, anonymous, services)
    yesterday, keys = await dump(services.database, without=without), await dump(services.database)
    certificate = (await service.post(f"/v1/members/{ada.id}/erase")).json()
    log = stored_certificate(msgspec.convert(certificate, CertificateView))

    await restore(services.database, yesterday)
    brought_back = found(ada.marks, await everything_opened(services))
    assert len(brought_back) >= 40 if without == "" else brought_back == set(), "the search can fail"
    assert (await service.get("/v1/members", external_id=ada.external_id)).json()["items"][0]["status"] == "active"
    assert await services.erasures.reapply(log)

    if without:
        # The keys have a backup of their own, which is younger than the erasure.
        living = [row for row in keys["person_keys"] if row["_id"] != ada.id]
        await services.database.raw["person_keys"].insert_many(living)
    assert found(ada.marks, await everything_opened(services)) == set()
    assert len(found(bob.marks, await everything_opened(services))) >= 40
    assert found(ada.marks, await everything_stored(services.database)) == set()
    assert (await service.get(f"/v1/members/{ada.id}")).json()["status"] == "erased"
    assert (await service.get(f"/v1/members/{ada.id}/erasure")).json() == certificate
    assert await services.erasures.find_contradictions(log) == []
    problem(await anonymous.post("/v1/auth/login", {"email": ada.email, "password": PASSWORD}), 401, "unauthenticated")
    problem(await service.post("/v1/members", {"external_id": ada.external_id}), 409, "already-exists")
    rows = await dump(services.database)
    assert not await services.erasures.reapply(log), "there is nothing left to do"
    assert await dump(services.database) == rows


async def test_a_certificate_that_was_changed_is_refused(service: Caller, factory: Factory) -> None:
    gone, living = await factory.member(), await factory.member()
    written = (await service.post(f"/v1/members/{gone}/erase")).json()
    for change in ({"member_id": living}, {"asked_by": living}, {"destroyed": {}}, {"sha256": "0" * 64}):
        with pytest.raises(Validation, match="does not match its digest"):
            stored_certificate(msgspec.convert({**written, **change}, CertificateView))
    assert view_certificate(stored_certificate(msgspec.convert(written, CertificateView))).sha256 == written["sha256"]


# --- export -------------------------------------------------------------------------------------------------------------


async def test_export_is_complete_and_contains_no_other_member(
    service: Caller, anonymous: Caller, services: Services, factory: Factory
) -> None:
    """GDPR-3."""
    ada, bob = Subject("ada"), Subject("bob")
    for each in (ada, bob):
        await each.join(service, anonymous, services)
    tiers = [{"code": "base", "name": "Base", "points": 0}]
    await service.put("/v1/tiers", {"asset": "PTS", "window": {"type": "calendar_year"}, "tiers": tiers})
    theirs = await bob.use(service, factory, await factory.wallet(10, member=ada.id))
    wallet = await ada.use(service, factory, theirs)
    for number in range(BATCH + 5):
        await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1, "reference": f"r-{number}"})
    await service.post(f"/v1/wallets/{wallet}/freeze")
    offer = await factory.offer()
    await factory.voucher(offer, ada.id)
    await factory.voucher(offer, bob.id)
    whole = (await anonymous.with_token(ada.token).get("/v1/me/export")).json()

    text = json.dumps(whole).encode()
    unseen = {ada.marks[3]}
    assert found(ada.marks, text) == set(ada.marks) - unseen, "every mark but the one that was never given"
    assert found(bob.marks, text) == set()
    assert set(whole) == {
        "format", "exported_at", "member", "second_factor", "tier", "sessions", "standing", "segments", "wallets", "holds", "events", "refunds",
        "counters", "tier_changes", "vouchers", "audit", "complete",
    }  # fmt: skip
    assert whole["complete"] is True
    [told] = whole["wallets"]
    assert told["wallet"] == (await service.get(f"/v1/wallets/{wallet}")).json()
    assert told["lots"] == (await service.get(f"/v1/wallets/{wallet}/lots")).json()["items"]
    assert told["entries"] == await listed(service, f"/v1/wallets/{wallet}/entries")
    assert len(told["entries"]) > BATCH
    assert [each["id"] for each in whole["holds"]] == [
        row["_id"] async for row in services.database.raw["holds"].find({"owner": ada.id})
    ]
    for event in whole["events"]:
        shown = (await service.get(f"/v1/events/{event['id']}")).json()
        assert {name: event[name] for name in shown} == shown
    assert len(whole["events"]) == 2
    assert whole["tier"] == (await service.get(f"/v1/members/{ada.id}/tier")).json()
    assert whole["tier_changes"] == await listed(service, f"/v1/members/{ada.id}/tier/changes")
    assert len(whole["tier_changes"]) == 1
    assert [each["voucher"] for each in whole["vouchers"]] == await listed(service, f"/v1/members/{ada.id}/vouchers")
    assert [[step["step"] for step in each["steps"]] for each in whole["vouchers"]] == [["issue"]]
    assert [each["action"] for each in whole["audit"]] == ["freezeWallet", "freezeWallet"], "a service froze a wallet of hers"
    for words in ("password_hash", "sha256", "family", "sealed", "wrapped"):
        assert words.encode() not in text


async def listed(service: Caller, path: str) -> list[dict[str, Any]]:
    """A whole list, oldest first."""
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await service.get(path, limit=100, **cursor)).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items[::-1]
        cursor = {"cursor": page["next_cursor"]}


async def test_a_member_exports_once_a_day(service: Caller, anonymous: Caller, services: Services, clock: ManualClock) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    me = anonymous.with_token(ada.token)
    assert (await me.get("/v1/me/export")).json()["complete"]
    refused = await me.get("/v1/me/export")
    assert problem(refused, 429, "too-many-requests")["violated-policies"] == ["export"]
    assert 86_300 < int(refused.headers["retry-after"]) <= 86_400
    clock.advance(days=1)
    login = await anonymous.post("/v1/auth/login", {"email": ada.email, "password": PASSWORD})
    me = anonymous.with_token(login.json()["access_token"])
    answers = await asyncio.gather(*(me.get("/v1/me/export") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429, 429]


async def test_interrupted_export_may_be_repeated_the_same_day(
    service: Caller, anonymous: Caller, services: Services, clock: ManualClock
) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    actor = Actor(ada.id, "member")
    pieces = await services.exports.export_own(actor)
    assert b'"format":"guerdon-export-1"' in await anext(pieces)
    await pieces.aclose()
    refused = await anonymous.with_token(ada.token).get("/v1/me/export")
    problem(refused, 429, "too-many-requests")
    assert int(refused.headers["retry-after"]) <= 600
    clock.advance(seconds=601)
    assert (await anonymous.with_token(ada.token).get("/v1/me/export")).json()["complete"]


async def test_an_operators_export_goes_to_the_audit_log(
    service: Caller, anonymous: Caller, services: Services, factory: Factory
) -> None:
    await services.members.create_operator("operator@example.com", PASSWORD, "operator")
    login = await anonymous.post("/v1/auth/login", {"email": "operator@example.com", "password": PASSWORD})
    operator = anonymous.with_token(login.json()["access_token"])
    member = await factory.member()
    for _ in range(2):
        assert (await operator.get(f"/v1/members/{member}/export")).json()["member"]["id"] == member
    records = [(record.phase, record.action, record.subject) async for record in services.audit_log.read()]
    assert records == [(phase, "exportMember", {"member_id": member}) for phase in ("asked", "answered")] * 2
    told = (await service.get(f"/v1/members/{member}/export")).json()["audit"]
    assert [(each["phase"], each["action"]) for each in told] == [("asked", "exportMember"), ("answered", "exportMember")] * 3
    problem(await operator.post(f"/v1/members/{member}/erase"), 403, "forbidden")
