"""Every route and every job, used once and more, so that every query of the product is sent; see test_query_plans.py."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import argon2
import pyotp
import pytest
from falcon.asgi import App

from guerdon.access.token_keys import TokenKeys
from guerdon.campaigns.domain import ShopEvent
from guerdon.collections import SEALED_FIELDS
from guerdon.crypto.sealing import MasterKeys
from guerdon.exports.lists import LISTS
from guerdon.exports.models import EXPORT_JOBS
from guerdon.http.cursor import encode_cursor
from guerdon.ledger.contention import CONTENTION_LEASES, QUEUE_ID
from guerdon.ledger.jobs import sweep
from guerdon.ledger.models import entry_id
from guerdon.ledger.store import ENTRIES
from guerdon.members.models import MEMBERS
from guerdon.privacy.resealing import reseal
from guerdon.second_factor.rules import STEP_MS
from guerdon.sessions.service import SESSIONS_MAX
from guerdon.verification import service as proof
from guerdon.verification.checkpoints import CheckpointKeys, write_checkpoint
from guerdon.verification.service import verify, verify_account
from guerdon.wiring.services import Services
from guerdon.workers.leases import Leases
from guerdon.workers.models import Job
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.invariants.movements import ACTOR
from tests.invariants.test_mongodb_commands import Recorder
from tests.streaming import follow
from tests.views.build import build_views

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"


async def sent(response: Any, status: int = 200) -> dict[str, Any]:
    answer = await response
    assert answer.status_code == status, (str(answer.request.url), answer.text)
    return dict(answer.json()) if answer.headers.get("content-type", "").startswith("application/json") else {}


async def use_identity(anonymous: Caller, service: Caller, services: Services, factory: Factory, recorder: Recorder) -> None:
    await services.vault.open()
    ada = await sent(anonymous.post("/v1/auth/register", {"email": EMAIL, "password": PASSWORD}), 201)
    await sent(anonymous.post("/v1/auth/register", {"email": EMAIL, "password": PASSWORD}), 409)
    recorder.on = False
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    await services.database.raw[MEMBERS].update_one({"_id": ada["id"]}, {"$set": {"password_hash": weak}})
    recorder.on = True
    member = anonymous.with_token(
        (await sent(anonymous.post("/v1/auth/login", {"email": EMAIL, "password": PASSWORD})))["access_token"]
    )
    await use_sessions(anonymous, service)
    await sent(member.get("/v1/me"))
    await sent(member.get("/v1/me/wallets"))
    await sent(member.get("/v1/me/timeline"))
    await factory.member("known")
    await sent(service.get("/v1/members", external_id="known"))
    page = await sent(service.get("/v1/members", limit=1))
    await sent(service.get("/v1/members", limit=1, cursor=page["next_cursor"]))
    await sent(service.get(f"/v1/members/{page['items'][0]['id']}"))
    made = [await services.audit_log.append("asked", "terminal", "test", {}, request_id=f"cmd_{n}") for n in range(2)]
    log = await sent(service.get("/v1/audit", limit=1))
    await sent(service.get("/v1/audit", limit=1, cursor=log["next_cursor"]))
    assert [record async for record in services.audit_log.read(made[0].id)] == made[1:]
    assert await services.audit_log.get(made[0].id) == made[0]
    key = await services.access.create_key("to be revoked", ["wallets:read"])
    [listed] = [each for each in await services.access.list_keys() if each.id in key]
    await services.access.revoke_key(listed.id)
    made_key = await sent(service.post("/v1/keys", {"name": "till", "scopes": ["wallets:read"]}), 201)
    await sent(service.get("/v1/keys", limit=1))
    await sent(service.delete(f"/v1/keys/{made_key['id']}"))
    await services.access.write_last_uses()


async def use_sessions(anonymous: Caller, service: Caller) -> None:
    person = {"email": f"second-{EMAIL}", "password": PASSWORD}
    bob = await sent(anonymous.post("/v1/auth/register", person), 201)
    logs = [await sent(anonymous.post("/v1/auth/login", person)) for _ in range(SESSIONS_MAX + 1)]
    member = anonymous.with_token(logs[-1]["access_token"])
    next_one = await sent(anonymous.post("/v1/auth/refresh", {"refresh_token": logs[-2]["refresh_token"]}))
    await sent(anonymous.post("/v1/auth/logout", {"refresh_token": next_one["refresh_token"]}), 204)
    items = (await sent(member.get("/v1/me/sessions")))["items"]
    await sent(member.delete(f"/v1/me/sessions/{items[-1]['id']}"), 204)
    await sent(member.put("/v1/me/password", {"current_password": PASSWORD, "new_password": f"{PASSWORD}!"}), 204)
    await sent(service.put(f"/v1/members/{bob['id']}/role", {"role": "support"}))
    for step in ("disable", "enable"):
        await sent(service.post(f"/v1/members/{bob['id']}/{step}", key=None))
    await sent(member.delete("/v1/me/sessions"), 204)


async def use_factors(anonymous: Caller, services: Services, factory: Factory) -> None:
    """A second factor from the enrolment to the end, and each kind of code once; and what only a person may do."""
    person = {"email": f"olga-{EMAIL}", "password": PASSWORD}
    await services.members.create_operator(person["email"], PASSWORD, "operator")
    olga = anonymous.with_token((await sent(anonymous.post("/v1/auth/login", person)))["access_token"])
    await sent(olga.post(f"/v1/campaigns/{await factory.campaign(active=False)}/approve", {"version": 1}))
    secret = (await sent(olga.post("/v1/me/totp", {"current_password": PASSWORD}), 201))["secret"]
    step = services.clock.now_ms() // STEP_MS
    totp = pyotp.TOTP(secret)
    codes = (await sent(olga.post("/v1/me/totp/confirm", {"code": totp.generate_otp(step)})))["recovery_codes"]
    await sent(olga.get("/v1/me/totp"))
    await sent(anonymous.post("/v1/auth/login", {**person, "code": totp.generate_otp(step + 1)}))
    proof = {"current_password": PASSWORD, "code": codes[0]}
    codes = (await sent(olga.post("/v1/me/totp/recovery-codes", proof)))["recovery_codes"]
    await sent(olga.post("/v1/me/totp/remove", {**proof, "code": codes[0]}), 204)


async def use_recovery(anonymous: Caller, services: Services) -> None:
    """A token from the asking to the mail job's look at it, and another one used."""
    await sent(anonymous.post("/v1/auth/forgot", {"email": EMAIL}), 202)
    assert await services.password_resets.process_requests() == 1
    [event] = await services.outbox.take("mail", 10)
    assert await services.password_resets.find_message(event) is not None
    assert await services.outbox.mark_delivered(event)
    token = await services.password_resets.issue(event.owner)
    await sent(anonymous.post("/v1/auth/reset", {"token": token, "new_password": f"{PASSWORD}!"}), 200)


async def use_wallets(service: Caller, services: Services, factory: Factory) -> str:
    """Return a wallet with some history."""
    await sent(service.post("/v1/assets", {"code": "STARS", "scale": 0}), 201)
    await sent(service.get("/v1/assets"))
    wallet, other = await factory.wallet(500), await factory.wallet(50)
    owner = wallet.partition(":")[0]
    await sent(service.post(f"/v1/wallets/{owner}:NONE/credit", {"amount": 1}), 404)
    await sent(service.get(f"/v1/wallets/{wallet}"))
    await sent(service.get(f"/v1/members/{owner}/wallets"))
    paid = await sent(service.post(f"/v1/wallets/{wallet}/debit", {"amount": 7, "reference": "order-1"}), 201)
    await sent(service.post(f"/v1/wallets/{wallet}/debit", {"amount": 10**9}), 409)
    await sent(service.post("/v1/transfers", {"from": wallet, "to": other, "amount": 5}), 201)
    await sent(service.post("/v1/bulk", {"commands": [{"type": "debit", "wallet": wallet, "amount": 1, "key": "bulk-1"}]}))
    dated = {"amount": 20, "expires_at": "2099-01-01T00:00:00Z"}
    await sent(service.post(f"/v1/wallets/{wallet}/credit", dated), 201)
    await sent(service.get(f"/v1/wallets/{wallet}/lots"))
    await sent(service.put(f"/v1/wallets/{wallet}/terms", {"day_limit": 10**6}))
    for step in ("freeze", "unfreeze"):
        await sent(service.post(f"/v1/wallets/{wallet}/{step}"))
    credit = {"amount": 1, "reference": "twice"}
    await sent(service.post(f"/v1/wallets/{wallet}/credit", credit), 201)
    await sent(service.post(f"/v1/wallets/{wallet}/credit", credit), 409)
    empty = await factory.wallet(0)
    await sent(service.post(f"/v1/wallets/{empty}/close"))
    held = [await sent(service.post("/v1/holds", {"wallet": wallet, "amount": 9}), 201) for _ in range(3)]
    await sent(service.post(f"/v1/holds/{held[0]['id']}/capture"), 201)
    await sent(service.post(f"/v1/holds/{held[1]['id']}/void"), 201)
    await sent(service.get(f"/v1/holds/{held[2]['id']}"))
    await sent(service.post(f"/v1/transactions/{paid['id']}/reverse", {"amount": 2}), 201)
    for version, to_amount in ((1, 1), (2, 2)):
        await sent(service.put("/v1/rates/PTS-GBP", {"from_amount": 10, "to_amount": to_amount}))
        await sent(service.get("/v1/rates/PTS-GBP", version=version))
    await sent(service.get("/v1/rates/PTS-GBP"))
    await sent(service.get("/v1/rates"))
    await sent(service.get("/v1/rates", cursor=encode_cursor("AA-AB")))
    rated = {"member_id": owner, "from": "PTS", "to": "GBP", "from_amount": 10}
    await sent(service.post("/v1/exchanges/quote", rated))
    await sent(service.post("/v1/exchanges", rated), 201)
    split = {"postings": [{"wallet": wallet, "amount": -1}, {"wallet": other, "amount": 1}]}
    several = await sent(service.post("/v1/transactions", split), 201)
    await sent(service.get(f"/v1/transactions/{several['id']}"))
    await sent(service.get(f"/v1/transactions/{paid['id']}"))
    services.database.sharded = True
    await sent(service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 201)
    services.database.sharded = False
    turns = services.ledger._committer._leases
    turns.mark_contended([wallet])  # As if another process had moved it before us.
    until = datetime.fromtimestamp(services.clock.now_ms() / 1000 + 0.1, UTC)
    ahead = {"process": "other", "number": 1, "accounts": [wallet], "until": until}
    await services.database.raw[CONTENTION_LEASES].insert_one({"_id": QUEUE_ID, "line": [ahead], "took_ms": 1})
    await sent(service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 201)
    assert turns.task is not None
    await asyncio.wait([turns.task])
    return wallet


async def use_history(app: App[Any, Any], service: Caller, clock: ManualClock, wallet: str) -> None:
    path = f"/v1/wallets/{wallet}"
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    page = await sent(service.get(f"{path}/entries", limit=2))
    await sent(service.get(f"{path}/entries", limit=2, cursor=page["next_cursor"]))
    await sent(service.get(f"{path}/entries", kind="debit"))
    await sent(service.get(f"{path}/entries", effective_from="2026-01-31T12:00:00Z"))
    await sent(service.get(f"{path}/entries", kind="debit", effective_to="2026-01-31T12:00:00Z"))
    await sent(service.get(f"{path}/entries", reference="order-1"))
    await sent(service.get(f"{path}/entries", **{"from": "2020-01-01T00:00:00Z"}))
    await sent(service.get(f"{path}/balance", at="2020-01-01T00:00:00Z"))
    await sent(service.get(f"{path}/balance"))
    await sent(service.get(f"{path}/statements/{now:%Y-%m}"))
    async with follow(app, f"{path}/stream", service.token, last_event_id=0) as stream:
        assert stream.status == 200
        await stream.take(2)
        await asyncio.sleep(0.1)  # The feed opens its change stream beside the first read.


async def use_rewards(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    campaigns = [await factory.campaign() for _ in range(3)]
    path = f"/v1/campaigns/{campaigns[0]}"
    body = {"name": "2 points", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 2}}
    await sent(service.put(path, body))
    await sent(service.get(path))
    await sent(service.get(f"{path}/usage"))
    for more in ({}, {"status": "active"}):
        page = await sent(service.get("/v1/campaigns", limit=1, **more))
        await sent(service.get("/v1/campaigns", limit=1, cursor=page["next_cursor"], **more))
    event = factory.event()
    await sent(service.post("/v1/events/preview", event))
    await sent(service.post("/v1/events", event), 201)
    await sent(service.get(f"/v1/events/{event['id']}"))
    await sent(service.post(f"/v1/events/{event['id']}/replay", key=None))
    await sent(service.post("/v1/events", factory.event(type="refund", refund_of=event["id"], member=event["member"])), 201)
    await sent(service.post("/v1/events/bulk", {"events": [factory.event()]}))
    await sent(service.post("/v1/events", mistaken := factory.event()), 201)
    await sent(service.post(f"/v1/events/{mistaken['id']}/void", {"reason": "the till's clock was wrong"}, key=None))
    short = await factory.campaign(event_types=["purchase"], expiry={"type": "after_days", "days": 1})
    event = factory.event()
    await sent(service.post("/v1/events", event), 201)
    clock.advance(days=3)
    for _ in range(2):
        # The first refund books the expiry.
        back = factory.event(type="refund", refund_of=event["id"], member=event["member"], amount=6000)
        await sent(service.post("/v1/events", back), 201)
    await sent(service.post(f"/v1/campaigns/{short}/end"))
    await sent(service.post(f"{path}/pause"))
    await sent(service.post(f"{path}/end"))
    imported = ShopEvent(id="imported", type="purchase", occurred_at=0, amount=1, currency="GBP", external_id="from-a-file")
    await services.events.record_all(ACTOR, [imported], await services.campaigns.list_live())


async def use_tiers(service: Caller, factory: Factory) -> None:
    tiers = [{"code": "silver", "name": "Silver", "points": 1}]
    body = {"asset": "PTS", "window": {"type": "rolling", "months": 12}, "tiers": tiers}
    for _ in range(2):
        await sent(service.put("/v1/tiers", body))
    await sent(service.get("/v1/tiers"))
    event = await sent(service.post("/v1/events", factory.event()), 201)
    path = f"/v1/members/{event['member_id']}/tier"
    await sent(service.get(path))
    await sent(service.get(f"{path}/changes"))
    await sent(service.post("/v1/events", factory.event(member={"id": event["member_id"]})), 201)
    timeline, cursor = f"/v1/members/{event['member_id']}/timeline", {}
    while cursor is not None:
        page = await sent(service.get(timeline, limit=1, **cursor))
        cursor = None if page["next_cursor"] is None else {"cursor": page["next_cursor"]}
    referral = await sent(service.get(f"/v1/members/{event['member_id']}/referral"))
    friend = await factory.member()
    for status in (201, 200):
        await sent(service.post(f"/v1/members/{friend}/referral", {"code": referral["code"]}, key=None), status)
    await factory.campaign(pays="referrer", event_types=["purchase"], caps=[{"scope": "member", "period": "day", "limit": 5}])
    await sent(service.post("/v1/events/bulk", {"events": [factory.event(member={"id": friend}) for _ in range(2)]}, key=None))


async def use_vouchers(service: Caller, factory: Factory) -> None:
    offers = [await factory.offer(stock=5, price={"asset": "PTS", "amount": 1}) for _ in range(3)]
    path = f"/v1/offers/{offers[0]}"
    value = {"type": "percent", "percent": "10"}
    await sent(service.put(path, {"name": "10 per cent", "kind": "discount", "value": value, "eligibility": "member.tier == ''"}))
    await sent(service.get(path))
    for more in ({}, {"status": "active"}):
        page = await sent(service.get("/v1/offers", limit=1, **more))
        await sent(service.get("/v1/offers", limit=1, cursor=page["next_cursor"], **more))
    member = (await factory.wallet(100)).partition(":")[0]
    redeemed = [await sent(service.post(f"{path}/redeem", {"member_id": member}, key="redeem-once"), 201) for _ in range(2)]
    for _ in range(2):
        await sent(service.post(f"/v1/offers/{offers[1]}/redeem", {"member_id": member}), 201)
    await sent(service.get(f"/v1/vouchers/{redeemed[0]['voucher']['code']}"))
    page = await sent(service.get(f"/v1/members/{member}/vouchers", limit=1))
    await sent(service.get(f"/v1/members/{member}/vouchers", limit=1, cursor=page["next_cursor"]))
    pool = await factory.offer(kind="external_code", value=None)
    await factory.pool(pool, ["HOUSE-1"])
    await sent(service.post(f"/v1/offers/{pool}/redeem", {"member_id": member}), 201)
    await sent(service.get("/v1/vouchers/HOUSE1"))
    for step in ("pause", "end"):
        await sent(service.post(f"{path}/{step}"))


async def use_simulations(service: Caller, services: Services, factory: Factory) -> None:
    """Of a draft, on a history in which a purchase with tiers is refunded."""
    draft = await factory.campaign(active=False)
    simulation = await sent(service.post(f"/v1/campaigns/{draft}/simulate", {}, key=None), 202)
    path = f"/v1/simulations/{simulation['id']}"
    assert await services.simulator.work(1) > 3
    assert (await sent(service.get(path)))["status"] == "done"
    await sent(service.post(f"{path}/cancel", key=None))


async def use_exports(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    """Of every list and a report, with and without each filter; one is withdrawn, one deleted, one expires, and one stays."""
    wallet = await factory.wallet(5)
    offer = await factory.offer()
    filters: list[dict[str, Any]] = [
        {"list": "entries", "query": {"wallet": wallet}}, {"list": "wallets", "query": {"asset": "PTS"}},
        {"list": "events", "query": {"type": "purchase"}}, {"list": "vouchers", "query": {"offer": offer}},
        {"list": "campaigns", "query": {"status": "draft"}}, {"report": "roll-forward", "query": {"asset": "PTS"}},
    ]  # fmt: skip
    bodies = [{"list": name} for name in LISTS] + filters
    made: list[str] = []
    for body in bodies:
        made.append((await sent(service.post("/v1/exports", body, key=None), 202))["id"])
        await services.exporter.work(1)
    await sent(service.get(f"/v1/exports/{made[0]}/file"))
    page = await sent(service.get("/v1/exports", limit=1))
    await sent(service.get("/v1/exports", limit=1, cursor=page["next_cursor"]))
    await sent(service.get(f"/v1/exports/{made[0]}"))
    await sent(service.delete(f"/v1/exports/{made[0]}"))
    await sent(service.post(f"/v1/members/{await factory.member()}/erase", key=None))
    clock.advance(days=1)
    left = (await sent(service.post("/v1/exports", {"list": "wallets"}, key=None), 202))["id"]
    await services.exporter.work(1)
    jobs = services.database.raw[EXPORT_JOBS]
    await jobs.update_one({"_id": made[1]}, {"$set": {"status": "deleted"}})
    assert await services.exporter.remove_due() == len(made) - 1
    assert (await sent(service.get(f"/v1/exports/{left}")))["status"] == "done"
    await jobs.update_one({"_id": left}, {"$set": {"epoch": 2}, "$unset": {"ended_at": ""}})


async def use_segments(service: Caller, services: Services, factory: Factory) -> None:
    """Of members with refunded purchases and attributes."""
    member = await factory.member()
    order = await sent(service.post("/v1/events", factory.event(member={"id": member}), key=None), 201)
    refund = factory.event(member={"id": member}, type="refund", refund_of=order["id"], amount=100)
    await sent(service.post("/v1/events", refund, key=None), 201)
    path = "/v1/segments/british"
    for condition in ("true", "member.attributes.country == 'GB'"):
        await sent(service.put(path, {"condition": condition}))
    for _ in range(2):
        run = await sent(service.post(f"{path}/refresh", key=None), 202)
        await services.segment_runner.work()
    assert (await sent(service.get(f"/v1/segment-runs/{run['id']}")))["status"] == "done"
    for listed in ("/v1/segments", "/v1/segment-runs"):
        page = await sent(service.get(listed, limit=1))
        await sent(service.get(listed, limit=1, cursor=page["next_cursor"]))
    await sent(service.get(path))
    await sent(service.get("/v1/segments/new/members"))
    await sent(service.get(f"/v1/members/{member}"))
    await sent(service.delete(path), 204)


async def use_finance(service: Caller, services: Services) -> None:
    """Close two months: the second contains the digest of the first, and its figures begin with those of the first."""
    await build_views(services)
    settings = {"currency": "GBP", "value_per_point": "1", "cost_per_point": "0.5"}
    path = "/v1/report-settings/PTS"
    await sent(service.put(path, {**settings, "valid_from": "2020-01"}))
    for read in (path, f"{path}/versions", "/v1/reports"):
        await sent(service.get(read))
    for report in ("breakage", "deferred-revenue", "liability"):
        await sent(service.get(f"/v1/reports/{report}", asset="PTS"))
    for month in ("2026-01", "2026-02"):
        await sent(service.post("/v1/closings", {"month": month}, key=None), 201)
    page = await sent(service.get("/v1/closings", limit=1))
    await sent(service.get("/v1/closings", limit=1, cursor=page["next_cursor"]))
    await sent(service.get("/v1/closings/2026-02"))


async def use_reports(service: Caller, services: Services, factory: Factory) -> None:
    """Every report on value, in each of its ranges."""
    for _ in range(2):
        wallet = await factory.wallet(5)
        body = {"amount": 5, "source": "promotional", "expires_in_days": 3}
        await sent(service.post(f"/v1/wallets/{wallet}/credit", body), 201)
    await build_views(services)
    spent = await sent(service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 201)
    await sent(service.get(f"/v1/transactions/{spent['id']}/sources"))
    reports = "/v1/reports"
    await sent(service.get("/v1/views"))
    await sent(service.post("/v1/views/books/rebuild", key=None), 202)
    await sent(service.get(reports))
    await sent(service.get("/docs/reports"))
    await sent(service.get(f"{reports}/roll-forward", asset="PTS"))
    for at in ({}, {"at": "2020-01-01"}):
        await sent(service.get(f"{reports}/liability", asset="PTS", **at))
        await sent(service.get("/v1/books/trial-balance", asset="PTS", **at))
        await sent(service.get("/v1/books/accounts/system:issuer", asset="PTS", **at))
    page = await sent(service.get(f"{reports}/expiring", asset="PTS", limit=1))
    await sent(service.get(f"{reports}/expiring", asset="PTS", cursor=page["next_cursor"]))
    for by in ("earned", "spent"):
        await sent(service.get(f"{reports}/leaderboard", asset="PTS", by=by))
    campaign, offer = await factory.campaign(), await factory.offer(stock=0)
    await sent(service.post(f"/v1/offers/{offer}/redeem", {"member_id": wallet.partition(":")[0]}), 409)
    await services.refusals.write()
    for name in ("campaigns", f"campaigns/{campaign}", "offers", f"offers/{offer}", "members"):
        await sent(service.get(f"{reports}/{name}"))


async def use_operations(anonymous: Caller, service: Caller, services: Services) -> None:
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/start.js", "/problems", "/problems/not-found"):
        await sent(anonymous.get(path))
    for path in ("/health/live", "/health/ready"):
        assert (await anonymous.client.head(path)).status_code == 200
    await sent(anonymous.get("/.well-known/jwks.json"))
    await sent(service.get("/metrics"))
    await sent(service.post("/v1/test/clock/advance", {"seconds": 1}))
    assert services.clock_control is not None
    await services.clock_control.follow()


async def run_jobs(services: Services, clock: ManualClock, wallet: str) -> None:
    keys = CheckpointKeys(TokenKeys.generate())
    for _ in range(2):
        assert await write_checkpoint(services.database, clock, keys, None) == 1
        clock.advance(seconds=1)
    clock.advance(days=1)
    assert await sweep(services.ledger, services.database, clock) == 1, f"the third hold on {wallet} has ended"
    assert await services.tiers.review_due() > 0, "the tiers were changed"

    async def nothing() -> int:
        return 0

    job = Job("a job", 1000, nothing)
    leases = Leases(services.database, "wrk_tests", 30_000)
    assert (await leases.take(job)).granted
    await leases.release(job, pause_ms=0, failures=0)


async def use_privacy(anonymous: Caller, service: Caller, services: Services, factory: Factory) -> None:
    person = {"email": f"forgotten-{EMAIL}", "password": PASSWORD}
    ida = await sent(anonymous.post("/v1/auth/register", person), 201)
    member = anonymous.with_token((await sent(anonymous.post("/v1/auth/login", person)))["access_token"])
    wallet = await factory.wallet(9, member=ida["id"])
    await sent(service.post("/v1/holds", {"wallet": wallet, "amount": 3, "expires_in_seconds": 30 * 86_400}), 201)
    await sent(service.post("/v1/events", factory.event(member={"id": ida["id"]})), 201)
    await sent(member.get("/v1/me/tier"))
    await sent(member.get("/v1/me/referral"))
    await sent(member.get("/v1/me/tier/changes"))
    await factory.voucher(await factory.offer(), ida["id"])
    for path in ("/v1/me/offers", "/v1/me/vouchers"):
        assert (await sent(member.get(path)))["items"]
    assert (await sent(member.get("/v1/me/export")))["complete"]
    assert (await member.get("/v1/me/export")).status_code == 429
    assert (await sent(service.get(f"/v1/members/{ida['id']}/export")))["complete"]
    await sent(member.post("/v1/me/erase", {"current_password": PASSWORD}))
    known = await factory.member()
    await asyncio.gather(*(services.erasures._begin(known, "mem_1", f"req_{number}") for number in range(2)))
    await sent(service.post(f"/v1/members/{known}/erase"))
    await sent(service.get(f"/v1/members/{known}/erasure"))
    await services.erasures.finish_begun()
    for certificate in await services.erasures.list_certificates("", 10):
        assert await services.erasures.find_contradictions(certificate) == []
        await services.erasures.reapply(certificate)


async def rotate_master_keys(services: Services, old: str) -> None:
    """Afterwards the service, which has only the old key, opens nothing any more."""
    await services.password_resets.request(EMAIL)
    both = json.dumps({"keys": json.loads(MasterKeys.generate(beside=old))["keys"][::-1]})
    done = await reseal(services.database, MasterKeys(both), SEALED_FIELDS, lambda *_: None)
    assert all(each.resealed for each in done)


async def run_proofs(services: Services, monkeypatch: pytest.MonkeyPatch, recorder: Recorder, wallet: str) -> None:
    """In pages of two accounts, so that there are several; and with an entry that no account knows."""
    monkeypatch.setattr(proof, "PAGE_ACCOUNTS", 2)
    report = await verify(services.database)
    assert report.violations == 0, report.first
    assert (await verify_account(services.database, wallet)).violations == 0
    recorder.on = False
    entry = await services.database.raw[ENTRIES].find_one({"_id": entry_id(wallet, 1)})
    assert entry is not None
    await services.database.raw[ENTRIES].insert_one({**entry, "_id": entry_id(wallet, 10**6), "once": [b"stray"]})
    recorder.on = True
    assert (await verify(services.database)).violations > 0
