"""A document that justified value is changed behind the ledger's back. `verify` names the law that it breaks, or the page says why not."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS, CampaignVersion
from guerdon.config import Settings
from guerdon.database import Document
from guerdon.erasable_data import ERASED, ERASURES
from guerdon.offers.models import OFFER_VERSIONS, OFFERS, OfferVersion
from guerdon.proofs import version_proof
from guerdon.tiers.models import PROGRAMME, TIER_CHANGES, TIER_SET_VERSIONS, TIER_SETS, TierSetVersion
from guerdon.verification.digests import digest_of
from guerdon.verification.service import verify
from guerdon.vouchers.models import VOUCHERS
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.invariants.tampering import Change, Copy
from tests.serving import serve
from tests.tier_fixtures import LADDER, set_tiers

PAGE = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
Manipulation = Callable[[Copy], list[Change]]
_saved: list[Copy] = []


@pytest_asyncio.fixture
async def copy(service: Caller, services: Services, factory: Factory) -> Copy:
    """A programme with all kinds of documents that justify value: built once, put back as it was for every other test."""
    if not _saved:
        await build(service, factory)
        _saved.append(await Copy.of(services.database))
    else:
        await _saved[0].write(services.database)
    return _saved[0]


async def build(service: Caller, factory: Factory) -> None:
    """Versions of everything; events with and without awards; a refund, voids, an achievement, a referral, a voucher and an erasure."""
    await set_tiers(service)
    await set_tiers(service, tiers=[{**tier, "points": tier["points"] + 10} for tier in LADDER["tiers"]])
    paid = await factory.campaign(event_types=["purchase", "refund"])
    body = {"name": "2 points", "asset": "PTS", "event_types": ["purchase", "refund"]}
    award = {"type": "per_amount", "points": 2, "per": 100, "rounding": "floor"}
    answer = await service.put(f"/v1/campaigns/{paid}", {**body, "award": award, "tier_multipliers": {"gold": "2"}})
    assert answer.status_code == 200, answer.text
    visits = {"events": 3, "within": {"type": "days", "days": 30}}
    await factory.campaign(event_types=["visit"], award={"type": "fixed", "amount": 5}, achievement=visits)
    await factory.campaign(name="never used", active=False)
    ann, bob = {"external_id": "ann"}, {"external_id": "bob"}
    items = [{"sku": "tea", "quantity": 2, "unit_price": 10_000}]

    async def record(event_id: str, **changes: Any) -> None:
        answer = await service.post("/v1/events", factory.event(id=event_id, **changes))
        assert answer.status_code == 201, answer.text

    await record("bought", member=ann, amount=20_000, items=items, attributes={"till": 4})
    await record("visited", member=ann, type="visit", amount=0, currency=None)
    await record("returned", member=ann, type="refund", amount=5_000, refund_of="bought")
    code = (await service.get(f"/v1/members/{await member_id(service, 'ann')}/referral")).json()["code"]
    await record("looked", member=bob, type="visit", amount=0, currency=None)
    answer = await service.post(f"/v1/members/{await member_id(service, 'bob')}/referral", {"code": code}, key=None)
    assert answer.status_code == 201, answer.text
    await record("bought-too", member=bob, amount=30_000)
    await record("came-back", member=bob, type="visit", amount=0, currency=None)
    await record("mistaken", member={"external_id": "cat"}, amount=10_000)
    await record("not-there", member={"external_id": "dan"}, type="visit", amount=0, currency=None)
    for event_id in ("mistaken", "not-there"):
        answer = await service.post(f"/v1/events/{event_id}/void", {"reason": "wrong"}, key=None)
        assert answer.status_code == 200, answer.text
    offer = await factory.offer(price={"asset": "PTS", "amount": 100})
    answer = await service.put(
        f"/v1/offers/{offer}",
        {
            "name": "5 pounds off",
            "kind": "discount",
            "value": {"type": "fixed", "amount": 500, "currency": "GBP"},
            "price": {"asset": "PTS", "amount": 90},
        },
    )
    assert answer.status_code == 200, answer.text
    voucher = await factory.voucher(offer, await member_id(service, "ann"))
    answer = await service.post(f"/v1/vouchers/{voucher['code']}/use", {"amount": 2_000, "currency": "GBP"})
    assert answer.status_code == 200, answer.text
    eve = await factory.wallet(7)
    await service.post(f"/v1/members/{eve.partition(':')[0]}/erase")
    await service.post("/v1/service-keys", {"name": "till", "scopes": ["events:write"]})


async def member_id(service: Caller, external_id: str) -> str:
    return str((await service.get("/v1/members", external_id=external_id)).json()["items"][0]["id"])


# --- manipulations --------------------------------------------------------------------------------------------------------


def one(copy: Copy, collection: str, row_id: Any = None) -> Document:
    """The document with this id, or the one of which `row_id` is a test, or the only one."""
    rows = list(copy.rows[collection].values())
    if callable(row_id):
        rows = [row for row in rows if row_id(row)]
    elif row_id is not None:
        rows = [copy.rows[collection][row_id]]
    return rows[0]


def changed(value: Any, path: str, new: Any) -> Any:
    """A copy of a document in which the value at a path is another one, or the result of `new`, or is missing (`...`)."""
    name, _, rest = path.partition("/")
    key: Any = int(name) if isinstance(value, list) else name
    made = list(value) if isinstance(value, list) else dict(value)
    if rest:
        made[key] = changed(value[key], rest, new)
    elif new is ...:
        del made[key]
    else:
        made[key] = new(made[key]) if callable(new) else new
    return made


def edit(collection: str, row_id: Any, path: str, new: Any) -> Manipulation:
    def manipulate(copy: Copy) -> list[Change]:
        row = one(copy, collection, row_id)
        return [(collection, row["_id"], changed(row, path, new))]

    return manipulate


def remove(collection: str, row_id: Any = None) -> Manipulation:
    return lambda copy: [(collection, one(copy, collection, row_id)["_id"], None)]


def forge(collection: str, row_id: Any, name: str, **fields: Any) -> Manipulation:
    def manipulate(copy: Copy) -> list[Change]:
        return [(collection, name, {**one(copy, collection, row_id), "_id": name, **fields})]

    return manipulate


def both(*parts: Manipulation) -> Manipulation:
    return lambda copy: [change for part in parts for change in part(copy)]


def swapped(collection: str, first: str, second: str) -> Manipulation:
    def manipulate(copy: Copy) -> list[Change]:
        one, two = copy.rows[collection][first], copy.rows[collection][second]
        return [(collection, first, {**two, "_id": first}), (collection, second, {**one, "_id": second})]

    return manipulate


def published(archive: str, kind: Any, current: str, path: str, new: Any) -> Manipulation:
    """Other content in every version of a definition and in the definition, with proofs that fit."""

    def manipulate(copy: Copy) -> list[Change]:
        newest = max(copy.rows[archive].values(), key=lambda row: row["proof"]["prev"] != "0" * 64)
        family = str(newest["_id"]).rpartition("/")[0]
        rows = [row for row in copy.rows[archive].values() if str(row["_id"]).rpartition("/")[0] == family]
        inner = next(name for name in ("campaign", "offer", "tiers") if name in newest)
        changes: list[Change] = []
        before = None
        for row in sorted(rows, key=lambda row: int(str(row["_id"]).rpartition("/")[2])):
            forged = changed(row, f"{inner}/{path}", new)
            version = msgspec.convert(forged, kind)
            proof = version_proof(version.definition, before)
            before = msgspec.structs.replace(version, proof=proof)
            changes.append((archive, row["_id"], {**forged, "proof": msgspec.to_builtins(proof)}))
        if current == TIER_SETS:
            sets = copy.rows[TIER_SETS][PROGRAMME]
            versions = [changed(each, path, new) for each in sets["versions"]]
            changes.append((TIER_SETS, PROGRAMME, {**sets, "versions": versions, "head": before.proof.hash}))
        else:
            changes.append((current, family, changed(copy.rows[current][family], path, new)))
        return changes

    return manipulate


def rewritten_chain(event: str, path: str, new: Any) -> Manipulation:
    """Another content of the newest event of a member, with a head of the member's chain that fits."""

    def manipulate(copy: Copy) -> list[Change]:
        forged = changed(copy.rows[EVENTS][event], path, new)
        state = {**copy.rows[MEMBER_STATES][forged["owner"]], "head": digest_of(forged)}
        return [(EVENTS, event, forged), (MEMBER_STATES, state["_id"], state)]

    return manipulate


def of_member(event: str) -> Callable[[Copy], str]:
    return lambda copy: str(copy.rows[EVENTS][event]["owner"])


def edit_state(event: str, path: str, new: Any) -> Manipulation:
    return lambda copy: edit(MEMBER_STATES, of_member(event)(copy), path, new)(copy)


def used(row: Document) -> bool:
    return "2 points" in str(row)


def about(event: str) -> Callable[[Document], bool]:
    """A test of rows whose id ends with an event."""
    return lambda row: str(row["_id"]).endswith(f"/{event}")


def void_with_chain(copy: Copy) -> list[Change]:
    """Another reason of a void, with a head of the member's chain that fits."""
    forged = {**one(copy, EVENT_VOIDS, about("mistaken")), "reason": "as agreed"}
    state = {**copy.rows[MEMBER_STATES][forged["owner"]], "head": digest_of(forged)}
    return [(EVENT_VOIDS, forged["_id"], forged), (MEMBER_STATES, state["_id"], state)]


def voucher_and_offer(copy: Copy) -> list[Change]:
    """A voucher and the version of its offer are worth more, with a proof of the version that fits."""
    voucher = edit(VOUCHERS, None, "value/amount", 5_000)(copy)
    return [*voucher, *published(OFFER_VERSIONS, OfferVersion, OFFERS, "value/amount", 5_000)(copy)]


def whole_campaign(copy: Copy) -> list[Change]:
    family = one(copy, CAMPAIGNS, used)["_id"]
    versions = [row["_id"] for row in copy.rows[CAMPAIGN_VERSIONS].values() if row["_id"].startswith(family)]
    return [(CAMPAIGNS, family, None), *((CAMPAIGN_VERSIONS, name, None) for name in versions)]


def certificate_record(row: Document) -> bool:
    return row["action"] == ERASED


CAUGHT: dict[str, tuple[str, Manipulation]] = {
    # Events with entries.
    "amount of a purchase raised": ("L12", edit(EVENTS, "bought", "amount", 2_000_000)),
    "currency of a purchase": ("L12", edit(EVENTS, "bought", "currency", "EUR")),
    "time of a purchase": ("L12", edit(EVENTS, "bought", "occurred_at", lambda at: at - 1)),
    "price of an item": ("L12", edit(EVENTS, "bought", "items/0/unit_price", 1)),
    "attribute of a purchase": ("L12", edit(EVENTS, "bought", "attributes/till", 5)),
    "caller of a purchase": ("L12", edit(EVENTS, "bought", "recorded_by", "key_other")),
    "reasons of a decision": ("L12", edit(EVENTS, "bought", "decisions/0/reasons", ["as agreed"])),
    "tier in the inputs of a decision": ("L12", edit(EVENTS, "bought", "inputs/tier", "gold")),
    "refund rule of an award": ("L12", edit(EVENTS, "bought", "awards/0/clawback", "spare")),
    "award removed from its event": ("L12", edit(EVENTS, "bought", "awards", [])),
    "amount of a refund": ("L12", edit(EVENTS, "returned", "amount", 1)),
    "refund of another purchase": ("L12", edit(EVENTS, "returned", "refund_of", "bought-too")),
    "paid event removed": ("L12", remove(EVENTS, "bought")),
    "events exchanged": ("L12", swapped(EVENTS, "bought", "returned")),
    "proof of a paid event removed": ("L12", edit(EVENTS, "bought", "proof", ...)),
    # Events without entries.
    "event without an entry changed": ("L13", edit(EVENTS, "visited", "amount", 100)),
    "event without an entry removed": ("L13", remove(EVENTS, "visited")),
    "event without an entry given to another member": ("L13", lambda copy: edit(EVENTS, "visited", "owner", of_member("looked")(copy))(copy)),
    "event invented with a number": ("L13", forge(EVENTS, "came-back", "invented")),
    "event invented without a number": ("L13", forge(EVENTS, "came-back", "invented", proof=None)),
    "event before a paid one, with a chain that fits": ("L12", rewritten_chain("bought-too", "attributes", {"till": 9})),
    # What events leave.
    "purchases of a member": ("L13", edit_state("bought", "purchases", 9)),
    "qualifying points of a member": ("L13", edit_state("bought", "qualifying/PTS", lambda months: dict.fromkeys(months, 9_999))),
    "achievement of a member": ("L13", edit_state("bought", "achieved", {"cmp_1": {"times": 3}})),
    "tier of a member": ("L13", edit_state("bought", "tier", "platinum")),
    "referrer of a member": ("L13", edit_state("bought-too", "referrer", "mem_" + "0" * 32)),
    "head of a member's chain": ("L13", edit_state("bought", "head", "0" * 64)),
    "state of a member removed": ("L13", lambda copy: remove(MEMBER_STATES, of_member("bought")(copy))(copy)),
    "tier change": ("L13", edit(TIER_CHANGES, None, "after", "platinum")),
    "tier change removed": ("L13", remove(TIER_CHANGES)),
    "refunded amount lowered": ("L13", edit(REFUNDS, None, "amount", 1)),
    "amount taken back lowered": ("L13", edit(REFUNDS, None, "taken", {})),
    "refunds removed": ("L13", remove(REFUNDS)),
    "refunds invented": ("L13", lambda copy: forge(REFUNDS, None, f"{of_member('bought-too')(copy)}/bought-too", owner=of_member("bought-too")(copy))(copy)),
    # Voids.
    "reason of a void": ("L12", edit(EVENT_VOIDS, about("mistaken"), "reason", "as agreed")),
    "reason of a void, with a chain that fits": ("L12", void_with_chain),
    "void removed": ("L12", remove(EVENT_VOIDS, about("mistaken"))),
    "voided event changed": ("L12", edit(EVENTS, "mistaken", "amount", 1)),
    "void without an entry changed": ("L13", edit(EVENT_VOIDS, about("not-there"), "recorded_by", "key_other")),
    "void without an entry removed": ("L13", remove(EVENT_VOIDS, about("not-there"))),
    "void invented without a number": ("L13", forge(EVENT_VOIDS, about("mistaken"), "mem_0/invented", proof=None)),
    "amounts that a void took back": ("L13", edit(REFUNDS, about("mistaken"), "voided/awards", [])),
    "void removed from the refunds": ("L13", edit(REFUNDS, about("mistaken"), "voided", ...)),
    "purchase counted again after its void": ("L13", edit_state("mistaken", "purchases", 1)),
    # Published versions.
    "award of a published campaign": ("L14", edit(CAMPAIGN_VERSIONS, used, "campaign/award/points", 200)),
    "condition of a campaign in force": ("L14", edit(CAMPAIGNS, used, "condition", "false")),
    "campaign and its versions, with proofs that fit": ("L12", published(CAMPAIGN_VERSIONS, CampaignVersion, CAMPAIGNS, "award/points", 200)),
    "version of a campaign removed": ("L14", lambda copy: remove(CAMPAIGN_VERSIONS, one(copy, CAMPAIGNS, used)["_id"] + "/1")(copy)),
    "used campaign removed with its versions": ("L12", whole_campaign),
    "price of an offer in force": ("L14", edit(OFFERS, None, "price/amount", 1)),
    "published value of an offer": ("L14", edit(OFFER_VERSIONS, None, "offer/value/amount", 5_000)),
    "offer removed": ("L14", remove(OFFERS)),
    "points of a published tier": ("L14", edit(TIER_SET_VERSIONS, 1, "tiers/tiers/0/points", 1)),
    "points of a tier in force": ("L14", edit(TIER_SETS, PROGRAMME, "versions/1/tiers/0/points", 1)),
    "tiers and their versions, with proofs that fit": ("L12", published(TIER_SET_VERSIONS, TierSetVersion, TIER_SETS, "grace_months", 3)),
    # Vouchers.
    "value of a voucher and its offer, with proofs that fit": ("L12", voucher_and_offer),
    "time of the issue of a voucher": ("L12", edit(VOUCHERS, None, "issued_at", 1)),
    "counters of a voucher": ("L12", edit(VOUCHERS, None, "counted", [])),
    "voucher moved to another version": ("L12", edit(VOUCHERS, None, "offer_version", 1)),
    "voucher removed": ("L12", remove(VOUCHERS)),
    "use of a voucher": ("L11", edit(VOUCHERS, None, "last_use", None)),
    # Erasures and the audit log.
    "certificate changed": ("L15", edit(ERASURES, None, "completed_at", lambda at: at + 1)),
    "certificate removed": ("L15", remove(ERASURES)),
    "entry in a certificate": ("L15", edit(ERASURES, None, "after/0/head", bytes(32))),
    "certificate in the audit log": ("L15", edit(AUDIT, certificate_record, "facts/certificate", "0" * 64)),
    "member in the audit log": ("L15", edit(AUDIT, certificate_record, "actor", "mem_" + "0" * 32)),
}  # fmt: skip
"""Manipulation, and the law that it breaks."""

NOT_PROVED: dict[str, tuple[str, Manipulation]] = {
    "status of a campaign": ("The status of a campaign or an offer", edit(CAMPAIGNS, used, "status", "paused")),
    "unused definition removed": (
        "Definitions that were never used",
        both(remove(CAMPAIGNS, lambda row: row["name"] == "never used"), remove(CAMPAIGN_VERSIONS, lambda row: row["campaign"]["name"] == "never used")),
    ),
    "newest event without an entry, with a chain that fits": (
        "The newest events of a member that have no entry",
        rewritten_chain("came-back", "attributes", {"till": 9}),
    ),
    "newest record of the audit log removed": (
        "The newest records of the audit log",
        lambda copy: remove(AUDIT, max(copy.rows[AUDIT]))(copy),
    ),
}  # fmt: skip
"""Manipulation that `verify` cannot see, and the words of docs/verify.md that give the reason."""


async def test_unchanged_documents_break_no_law(services: Services, copy: Copy) -> None:
    report = await verify(services.database)
    assert (report.violations, report.first) == (0, {})


@pytest.mark.parametrize("name", CAUGHT)
async def test_changed_document_is_named(services: Services, copy: Copy, name: str) -> None:
    law, manipulate = CAUGHT[name]
    await copy.put(services.database, manipulate(copy))
    report = await verify(services.database)
    assert law in report.first, report.first


@pytest.mark.parametrize("name", NOT_PROVED)
async def test_page_lists_what_is_not_proved(services: Services, copy: Copy, name: str) -> None:
    words, manipulate = NOT_PROVED[name]
    assert words in PAGE.partition("## What is not proved")[2]
    await copy.put(services.database, manipulate(copy))
    report = await verify(services.database)
    assert report.violations == 0, f"it is caught now: move it to CAUGHT. {report.first}"


async def test_purchase_that_was_changed_for_a_time_leaves_a_trace(service: Caller, services: Services, factory: Factory) -> None:
    """The amount is raised, a refund takes back too little, and the amount is put back."""
    await factory.campaign()
    purchase = factory.event(amount=10_000)
    assert (await service.post("/v1/events", purchase)).status_code == 201
    events = services.database.raw[EVENTS]
    await events.update_one({"_id": purchase["id"]}, {"$set": {"amount": 1_000_000}})
    answer = await service.post("/v1/events", {**purchase, "id": "returned", "type": "refund", "refund_of": purchase["id"]})
    assert [award["amount"] for award in answer.json()["awards"]] == [-1]
    await events.update_one({"_id": purchase["id"]}, {"$set": {"amount": 10_000}})
    report = await verify(services.database)
    assert set(report.first) == {"L12"}, report.first


async def test_campaign_that_was_changed_for_a_time_leaves_a_trace(service: Caller, services: Services, factory: Factory) -> None:
    """The campaign in force pays more for a while than its published version."""
    campaign = await factory.campaign()
    campaigns = services.database.raw[CAMPAIGNS]
    await campaigns.update_one({"_id": campaign}, {"$set": {"award.points": 100}})
    answer = await service.post("/v1/events", factory.event(amount=1_000))
    assert [award["amount"] for award in answer.json()["awards"]] == [1_000]
    await campaigns.update_one({"_id": campaign}, {"$set": {"award.points": 1}})
    report = await verify(services.database)
    assert set(report.first) == {"L12"}, report.first


async def test_events_and_redemptions_during_a_verification_are_no_violations(
    service: Caller, services: Services, other_services: Services, factory: Factory, settings: Settings, *, clock: ManualClock
) -> None:
    """Two processes record events of the same members, most of which have no entry; every chain is whole at any time."""
    await set_tiers(service)
    await factory.campaign()
    offer = await factory.offer()
    members = [await factory.member() for _ in range(3)]
    recording = True

    async def record(caller: Caller, number: int) -> None:
        member = members[number % 3]
        if number % 5 == 4:
            assert (await caller.post(f"/v1/offers/{offer}/redeem", {"member_id": member})).status_code == 201
            return
        changes = {} if number % 2 else {"type": "visit", "amount": 0, "currency": None}
        answer = await caller.post("/v1/events", factory.event(member={"id": member}, **changes))
        assert answer.status_code == 201, answer.text

    async def look() -> int:
        looks = 0
        while recording:
            report = await verify(services.database)
            assert report.violations == 0, report.first
            looks += 1
        return looks

    async with serve(other_services, settings, clock) as other:
        looking = asyncio.create_task(look())
        assert service.token is not None
        callers = (service, other.with_token(service.token))
        await asyncio.gather(*(record(callers[number % 2], number) for number in range(60)))
        recording = False
        assert await looking >= 1
    states = [row async for row in services.database.raw[MEMBER_STATES].find({})]
    assert sum(row["links"] for row in states) >= 48
    await factory.assert_books_balance()
