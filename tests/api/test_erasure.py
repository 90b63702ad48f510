"""What collections say of people is exported and erased as declared, and who was erased has left no door open."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import bson
import pytest
from tools.personal_data import PEOPLE

from guerdon.database import Database, Document
from guerdon.wiring.services import Services
from tests.api.test_privacy import PASSWORD, Subject, everything_opened, found
from tests.clients import Caller, problem
from tests.factories import Factory
from tests.tier_fixtures import set_tiers
from tests.views.build import build_views

Rows = dict[str, dict[Any, bytes]]
COUNTS = re.compile(r":(ever|[0-9])[^:]*\Z")
"""Ends the id of an account that holds no value: `counters` has its sum, and the awards of `events` its steps."""
FREED = {"sealed", "claims", "password_hash"}


async def naming(database: Database, member: str) -> Rows:
    """The rows of each collection in which a member's id stands anywhere, as bytes."""
    rows: Rows = {}
    for name in await database.raw.list_collection_names():
        every = {row["_id"]: bson.encode(row) async for row in database.raw[name].find({})}
        rows[name] = {place: raw for place, raw in every.items() if member.encode() in raw}
    return rows


def is_own(row: Document, member: str) -> bool:
    """Of the rows that name a member, those about the member: the other side of a transfer is in somebody else's history."""
    return member in (row.get("owner"), row.get("member")) or str(row["_id"]).startswith((member, f"hld_{member}", f"txn_{member}"))


async def test_personal_data_is_exported_and_erased_as_declared(
    service: Caller, anonymous: Caller, services: Services, factory: Factory
) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    await set_tiers(service, tiers=[{"code": "base", "name": "Base", "points": 0}])
    wallet = await ada.use(service, factory, await factory.wallet(10))
    await factory.campaign(caps=[{"scope": "member", "period": "day", "limit": 50}])
    for more in ({}, {"type": "refund", "refund_of": "order-never-seen"}):
        assert (await service.post("/v1/events", factory.event(member={"id": ada.id}, **more))).status_code == 201
    mistaken = factory.event(member={"id": ada.id}, type="visit", amount=0, currency=None)
    assert (await service.post("/v1/events", mistaken)).status_code == 201
    assert (await service.post(f"/v1/events/{mistaken['id']}/void", {"reason": "twice"}, key=None)).status_code == 200
    await factory.voucher(await factory.offer(), ada.id)
    foreign = await factory.offer(kind="external_code", value=None, stock=None)
    await factory.pool(foreign, ["THEIRS-1"])
    await factory.voucher(foreign, ada.id)
    await services.members._members.raw.update_one({"_id": ada.id}, {"$set": {"role": "support"}})
    me = anonymous.with_token(ada.token)
    assert (await me.post("/v1/me/totp", {"current_password": PASSWORD})).status_code == 201
    await services.members._members.raw.update_one({"_id": ada.id}, {"$set": {"role": "member"}})
    await services.segment_runner.work()
    await build_views(services)
    await anonymous.post("/v1/auth/forgot", {"email": ada.email})
    await services.password_resets.process_requests()
    assert (await me.get("/v1/me/export")).status_code == 200
    await service.get(f"/v1/members/{ada.id}/export")
    exported = (await service.get(f"/v1/members/{ada.id}/export")).json()
    before = await naming(services.database, ada.id)

    undeclared = {name for name, rows in before.items() if rows and PEOPLE.get(name) is None}
    assert undeclared == set(), "say in tools/personal_data.py what becomes of these when somebody is exported or erased"
    unmet = {name for name, kept in PEOPLE.items() if kept and not before[name]}
    made = {
        "campaigns",
        "campaign_versions",
        "tier_sets",
        "tier_set_versions",
        "offers",
        "offer_versions",
        "voucher_batches",
        "rates",
        "rate_versions",
        "segments",
        "segment_versions",
        "segment_runs",
        "report_settings",
        "closings",
    }
    tried = {"simulations", "simulated_members", "simulated_purchases"}  # tests/api/test_simulations.py erases people of these
    sums = {"expired_lots"}  # tests/api/test_refunds_after_expiry.py makes these
    files = {"export_jobs", "export_chunks"}  # tests/api/test_exports.py erases members of these
    assert unmet <= {"erasing", "erasures", "turns", *files, *made, *tried, *sums}, f"this test has not looked at {unmet}"
    for name, kept in PEOPLE.items():
        if kept is not None and kept.exported:
            assert_shown([exported[part] for part in kept.exported], name, before[name], ada.id)

    certificate = (await service.post(f"/v1/members/{ada.id}/erase")).json()
    assert certificate["destroyed"]["second_factors"] == 1
    after = await naming(services.database, ada.id)
    for name, kept in PEOPLE.items():
        if kept is not None and kept.fate == "deleted":
            assert after[name] == {}, name
        if kept is not None and kept.fate == "kept":
            assert before[name].items() <= after[name].items(), f"{name} was changed"
    left = bson.decode(after["members"][ada.id])
    assert FREED.isdisjoint(left)
    assert found(ada.marks, await everything_opened(services)) == set()
    assert await factory.balance(wallet) > 0
    await factory.assert_books_balance()


def assert_shown(told: Any, name: str, rows: dict[Any, bytes], member: str) -> None:
    """Each row of a collection is in the part of the export that is said to show it."""
    text, looked_at = json.dumps(told), 0
    for place, raw in rows.items():
        row = bson.decode(raw)
        if str(place).startswith("refusal#") or not (name == "audit" or is_own(row, member)):
            continue
        if name == "accounts":
            assert json.dumps(place.rpartition(":uses.")[2]) in text, "that of a voucher is shown as the voucher"
        elif name == "factors":
            assert told[0]["status"] != "none"
        elif name == "standings":
            assert told[0]["purchases"] == row["purchases"] > 0
            assert (told[0]["qualifying"], told[1]["tier"]) == (row["qualifying"], "base")
        elif name == "member_segments":
            assert [each["segments"] for each in told[0]] == [["new"]] == [row["segments"]]
        elif name == "tier_changes":
            assert [each["to"] for each in told[0]] == ["base"]
        elif name == "refunds":
            waits = {each["event_id"]: each["early"] for each in told[0] if each["voided"] is None}
            assert (waits, len(told[0])) == ({"order-never-seen": {"GBP": 13912}}, 2)
        elif name == "event_voids":
            assert [(each["event_id"], each["voided"]["reason"]) for each in told[0] if each["voided"]] == [
                (row["event"], row["reason"])
            ]
        elif name == "audit":
            # The request by which the export was asked for is answered, and written down, when it has been sent.
            assert place in [each["seq"] for each in told[0]] or place == max(rows)
        elif name == "entries":
            wallet, _, seq = place.partition("#")
            if ":uses." in wallet:
                assert place in [step["id"] for each in told[1] for step in each["steps"]], "what has happened to a voucher"
            elif not COUNTS.search(wallet):
                assert int(seq) in [entry["seq"] for each in told[0] if each["wallet"]["id"] == wallet for entry in each["entries"]]
        elif name == "events":
            shown = next(each for each in told[0] if each["id"] == place)
            assert ("person" in row["inputs"]) == (shown["person"] is not None), "what was known of the person then is theirs too"
            looked_at += shown["person"] is not None
        else:
            assert json.dumps(place) in text, (name, place)
    assert looked_at or name != "events", "no campaign has looked at the person"


async def test_erased_member_has_no_access_and_a_successor_no_history(
    service: Caller, anonymous: Caller, services: Services, factory: Factory
) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    await factory.wallet(70, member=ada.id)
    login = {"email": ada.email, "password": PASSWORD}
    old = (await anonymous.post("/v1/auth/login", login)).json()
    reset = await services.password_resets.issue(ada.id)
    key = services.vault.email_claim(ada.email)
    await service.post(f"/v1/members/{ada.id}/erase")

    problem(await anonymous.post("/v1/auth/refresh", {"refresh_token": old["refresh_token"]}), 401, "unauthenticated")
    problem(await anonymous.post("/v1/auth/reset", {"token": reset, "new_password": PASSWORD}), 401, "unauthenticated")
    for token in (ada.token, old["access_token"]):
        problem(await anonymous.with_token(token).get("/v1/me"), 401, "unauthenticated")
    problem(await anonymous.post("/v1/auth/login", login), 401, "unauthenticated")
    assert await services.members.find_by_email(ada.email) is None

    made = (await anonymous.post("/v1/auth/register", login)).json()
    assert made["id"] != ada.id
    me = anonymous.with_token((await anonymous.post("/v1/auth/login", login)).json()["access_token"])
    told = (await me.get("/v1/me/export")).json()
    assert (told["wallets"], told["holds"], told["events"], told["audit"], len(told["sessions"])) == ([], [], [], [], 1)
    assert ada.id not in json.dumps(told)
    assert await naming_both(services.database, ada.id, made["id"]) == []
    assert (await services.database.raw["claims"].find_one({"_id": key}) or {})["member"] == made["id"]
    async with services.sessions._guard.attempt(ada.email, "192.0.2.1", old["device_token"]) as attempt:
        assert attempt.device is None, "the device of the one who had the address before is a stranger's"
    problem(await anonymous.post("/v1/auth/refresh", {"refresh_token": old["refresh_token"]}), 401, "unauthenticated")
    problem(await anonymous.post("/v1/auth/reset", {"token": reset, "new_password": "another horse"}), 401, "unauthenticated")


async def naming_both(database: Database, *members: str) -> list[tuple[str, Any]]:
    """The rows in which all of these members stand."""
    found_in = [await naming(database, member) for member in members]
    return [(name, place) for name in found_in[0] for place in found_in[0][name] if all(place in each[name] for each in found_in)]


async def test_login_concurrent_with_an_erasure_gives_no_access(
    service: Caller, anonymous: Caller, services: Services, factory: Factory
) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    login = {"email": ada.email, "password": PASSWORD}

    async def erase() -> Any:
        await asyncio.sleep(0.05)
        return await service.post(f"/v1/members/{ada.id}/erase")

    *answers, erased = await asyncio.gather(*(anonymous.post("/v1/auth/login", login) for _ in range(6)), erase())
    assert erased.status_code == 200
    assert {answer.status_code for answer in answers} <= {200, 401}
    for answer in answers:
        if answer.status_code == 200:
            problem(await anonymous.with_token(answer.json()["access_token"]).get("/v1/me"), 401, "unauthenticated")
            refresh = {"refresh_token": answer.json()["refresh_token"]}
            problem(await anonymous.post("/v1/auth/refresh", refresh), 401, "unauthenticated")
    assert found(ada.marks, await everything_opened(services)) == set()


async def test_member_who_becomes_staff_during_an_erasure_is_not_erased(
    service: Caller, anonymous: Caller, services: Services, database: Database
) -> None:
    ada = Subject("ada")
    await ada.join(service, anonymous, services)
    await services.erasures._begin(ada.id, ada.id, "req_00000001")
    await service.put(f"/v1/members/{ada.id}/role", {"role": "support"})
    assert await services.erasures.finish_begun() == 1
    assert await database.raw["erasing"].count_documents({}) == await database.raw["erasures"].count_documents({}) == 0
    shown = (await service.get(f"/v1/members/{ada.id}")).json()
    assert (shown["status"], shown["email"], shown["role"]) == ("active", ada.email, "support")
    assert (await anonymous.post("/v1/auth/login", {"email": ada.email, "password": PASSWORD})).status_code == 200


Spoil = Callable[[Database, str], Awaitable[Any]]
SPOILT: dict[str, Spoil] = {
    "it differs from the stored certificate": lambda database, member: database.raw["erasures"].update_one(
        {"_id": member}, {"$set": {"asked_by": "key_1"}}
    ),
    "the audit log does not contain its digest": lambda database, member: database.raw["audit"].delete_one(
        {"action": "memberErased"}
    ),
    "the member's key exists": lambda database, member: database.raw["person_keys"].insert_one(
        {"_id": member, "wrapped": b"x", "created_at": 1}
    ),
    "the member is not erased": lambda database, member: database.raw["members"].update_one(
        {"_id": member}, {"$set": {"sealed": b"x"}}
    ),
    "entry 1 of": lambda database, member: database.raw["entries"].update_many({"owner": member}, {"$set": {"hash": bytes(32)}}),
}


@pytest.mark.parametrize("doubt", SPOILT)
async def test_erasure_certificate_is_checked_against_the_stored_data(
    service: Caller, services: Services, factory: Factory, doubt: str
) -> None:
    member = await factory.member()
    await factory.wallet(5, member=member)
    await service.post(f"/v1/members/{member}/erase")
    certificate = await services.erasures.get_certificate(member)
    assert await services.erasures.find_contradictions(certificate) == []
    await factory.wallet(5, member=member)
    assert await services.erasures.find_contradictions(certificate) == [], "later entries change nothing about it"
    await SPOILT[doubt](services.database, member)
    assert {each[: len(doubt)] for each in await services.erasures.find_contradictions(certificate)} == {doubt}


@pytest.mark.parametrize("after_ms", [0, 15, 40])
async def test_ledger_balances_when_an_erasure_races_with_requests(
    service: Caller, services: Services, factory: Factory, after_ms: int
) -> None:
    member = await factory.member()
    wallet, other = await factory.wallet(10_000, member=member), await factory.wallet(1000)
    await factory.campaign()

    async def erase() -> Any:
        await asyncio.sleep(after_ms / 1000)
        return await service.post(f"/v1/members/{member}/erase")

    plan = [
        (f"/v1/wallets/{wallet}/debit", {"amount": 7}, -7),
        (f"/v1/wallets/{wallet}/credit", {"amount": 11}, 11),
        ("/v1/transfers", {"from": wallet, "to": other, "amount": 3}, -3),
        ("/v1/transfers", {"from": other, "to": wallet, "amount": 2}, 2),
    ] * 12
    events = [factory.event(member={"id": member}) for _ in range(12)]
    *answers, erased = await asyncio.gather(
        *(service.post(path, body) for path, body, _ in plan), *(service.post("/v1/events", event) for event in events), erase()
    )
    assert {answer.status_code for answer in answers} == {201}, "the books take no notice of who is erased"
    assert erased.status_code == 200
    assert await factory.balance(wallet) == 10_000 + sum(change for *_, change in plan) + 139 * len(events)
    assert (await service.get(f"/v1/members/{member}")).json()["status"] == "erased"
    await factory.assert_books_balance()
