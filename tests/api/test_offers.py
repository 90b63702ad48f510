"""Offers: what they can say, how they change while they are sold, and what redeeming one does and refuses."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve

FIXED = {"type": "fixed", "amount": 500, "currency": "GBP"}
PRICE = {"asset": "PTS", "amount": 300}
PASSWORD = "correct horse battery"


async def redeem(service: Caller, offer: str, member: str, **more: Any) -> dict[str, Any]:
    answer = await service.post(f"/v1/offers/{offer}/redeem", {"member_id": member, **more})
    assert answer.status_code == 201, answer.text
    redeemed: dict[str, Any] = answer.json()
    return redeemed


async def refused(service: Caller, offer: str, member: str, code: str, status: int = 409) -> dict[str, Any]:
    return problem(await service.post(f"/v1/offers/{offer}/redeem", {"member_id": member}), status, code)


async def log_in(anonymous: Caller, email: str) -> tuple[str, Caller]:
    person = {"email": email, "password": PASSWORD}
    assert (await anonymous.post("/v1/auth/register", person)).status_code == 201
    tokens = (await anonymous.post("/v1/auth/login", person)).json()
    return tokens["member_id"], anonymous.with_token(tokens["access_token"])


# --- what an offer can say --------------------------------------------------------------------------------------------

SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"value": None}, "/value"),
    ({"value": {"type": "item", "sku": "A"}}, "/value"),
    ({"kind": "item"}, "/value"),
    ({"kind": "gift_card", "value": {"type": "percent", "percent": "10"}}, "/value"),
    ({"kind": "gift_card", "value": {**FIXED, "currency": "XXX"}}, "/value/currency"),
    ({"kind": "external_code"}, "/value"),
    ({"kind": "external_code", "value": None, "stock": 3}, "/stock"),
    ({"value": {"type": "percent", "percent": "100.1"}}, "/value/percent"),
    ({"value": {"type": "percent", "percent": "10", "maximum": 5}}, "/value/currency"),
    ({"value": {**FIXED, "amount": 0}}, "/value/amount"),
    ({"price": {"asset": "XXX", "amount": 1}}, "/price/asset"),
    ({"price": {"asset": "PTS", "amount": 0}}, "/price/amount"),
    ({"stock": -1}, "/stock"),
    ({"per_member_limit": 0}, "/per_member_limit"),
    ({"eligibility": "event.amount > 0"}, "/eligibility"),
    ({"eligibility": "member.shoe_size == 42"}, "/eligibility"),
    ({"eligibility": "member.tier"}, "/eligibility"),
    ({"eligibility": "member.external_id.matches('(a+)+')"}, "/eligibility"),
    ({"tiers": ["Gold"]}, "/tiers/0"),
    ({"starts_at": "2027-01-02T00:00:00Z", "ends_at": "2027-01-01T00:00:00Z"}, "/ends_at"),
    ({"voucher_valid_days": 0}, "/voucher_valid_days"),
    ({"code_pattern": "SUMMER-####"}, "/code_pattern"),
    ({"minimum_basket": {"amount": 1, "currency": "EUR"}}, "/minimum_basket/currency"),
    (
        {"kind": "item", "value": {"type": "item", "sku": "A"}, "minimum_basket": {"amount": 1, "currency": "GBP"}},
        "/minimum_basket",
    ),
    ({"images": ["http://1.1.1.1/a.png"]}, "/images/0"),
    ({"images": ["https://1.1.1.1/a.png", "https://169.254.169.254/latest"]}, "/images/1"),
    ({"images": ["https://[::ffff:127.0.0.1]/"]}, "/images/0"),
]


@pytest.mark.parametrize(("changes", "pointer"), SENSELESS)
async def test_invalid_definition_is_refused_with_its_pointer(
    service: Caller, database: Database, changes: dict[str, Any], pointer: str
) -> None:
    body = {"name": "n", "kind": "discount", "value": FIXED, **changes}
    told = problem(await service.post("/v1/offers", body), 422, "validation")
    assert told["errors"][0]["pointer"].startswith(pointer)
    assert await database.raw["offers"].count_documents({}) == 0


async def test_offer_moves_from_draft_to_ended_and_never_back(service: Caller, factory: Factory) -> None:
    offer, member = await factory.offer(active=False), await factory.member()
    told = await refused(service, offer, member, "offer-unavailable")
    assert told["status_now"] == "draft"
    assert problem(await service.post(f"/v1/offers/{offer}/pause"), 409, "invalid-state")["status_now"] == "draft"
    for step, status in (
        ("activate", "active"),
        ("pause", "paused"),
        ("pause", "paused"),
        ("activate", "active"),
        ("end", "ended"),
    ):
        assert (await service.post(f"/v1/offers/{offer}/{step}")).json()["status"] == status
        if status == "active":
            await redeem(service, offer, member)
        else:
            assert (await refused(service, offer, member, "offer-unavailable"))["status_now"] == status
    for step in ("activate", "pause"):
        problem(await service.post(f"/v1/offers/{offer}/{step}"), 409, "invalid-state")
    problem(await service.put(f"/v1/offers/{offer}", {"name": "n", "kind": "discount", "value": FIXED}), 409, "invalid-state")
    assert (await service.get(f"/v1/offers/{offer}")).json()["issued"] == 2
    await factory.assert_books_balance()


async def test_stock_changes_but_not_below_the_issued_vouchers(service: Caller, factory: Factory) -> None:
    offer, body = await factory.offer(stock=2), {"name": "5 pounds off", "kind": "discount", "value": FIXED}
    for _ in range(2):
        await redeem(service, offer, await factory.member())
    assert (await refused(service, offer, await factory.member(), "sold-out"))["stock"] == 2
    told = problem(await service.put(f"/v1/offers/{offer}", {**body, "stock": 1}), 409, "stock-below-issued")
    assert (told["issued"], told["stock"]) == (2, 1)
    raised = (await service.put(f"/v1/offers/{offer}", {**body, "stock": 3})).json()
    assert (raised["version"], raised["stock"], raised["left"], raised["status"]) == (2, 3, 1, "active")
    assert (await redeem(service, offer, await factory.member()))["voucher"]["offer_version"] == 2
    lowered = (await service.put(f"/v1/offers/{offer}", {**body, "stock": 3})).json()
    assert (lowered["left"], lowered["issued"]) == (0, 3)
    endless = (await service.put(f"/v1/offers/{offer}", body)).json()
    assert (endless["stock"], endless["left"]) == (None, None)
    await redeem(service, offer, await factory.member())
    problem(await service.put(f"/v1/offers/{offer}", {**body, "kind": "item"}), 422, "validation")
    await factory.assert_books_balance()


async def test_vouchers_keep_the_version_that_issued_them(service: Caller, factory: Factory) -> None:
    offer, member = await factory.offer(), await factory.member()
    first = (await redeem(service, offer, member))["voucher"]
    cheaper = {"name": "less off", "kind": "discount", "value": {**FIXED, "amount": 100}, "voucher_valid_days": 1}
    assert (await service.put(f"/v1/offers/{offer}", cheaper)).status_code == 200
    second = (await redeem(service, offer, member))["voucher"]
    assert [(each["name"], each["value"]["amount"], each["offer_version"]) for each in (first, second)] == [
        ("5 pounds off", 500, 1),
        ("less off", 100, 2),
    ]
    assert (await service.get(f"/v1/vouchers/{first['code']}")).json() == first


# --- redeeming --------------------------------------------------------------------------------------------------------


async def test_a_voucher_costs_its_price_and_counts_against_stock_and_limit(service: Caller, factory: Factory) -> None:
    offer = await factory.offer(stock=2, per_member_limit=1, price=PRICE, voucher_valid_days=90)
    wallet = await factory.wallet(1000)
    member = wallet.partition(":")[0]
    redeemed = await redeem(service, offer, member)
    voucher, transaction = redeemed["voucher"], redeemed["transaction"]
    assert (voucher["status"], voucher["uses_left"], voucher["price"]) == ("issued", 1, PRICE)
    assert (transaction["kind"], transaction["amount"], transaction["balance"]) == ("redeem", 300, 700)
    assert voucher["transaction_id"] == transaction["id"]
    assert await factory.balance(wallet) == 700
    limited = await refused(service, offer, member, "limit-reached")
    assert (limited["period"], limited["limit"], limited["redeemed"], limited["resets_at"]) == ("ever", 1, 1, None)
    assert await factory.balance(wallet) == 700
    shown = (await service.get(f"/v1/vouchers/{voucher['code'].lower().replace('-', ' ')}")).json()
    assert shown == voucher
    assert (await service.get(f"/v1/members/{member}/vouchers")).json()["items"] == [shown]
    seen = (await service.get(f"/v1/offers/{offer}")).json()
    assert (seen["stock"], seen["issued"], seen["left"]) == (2, 1, 1)
    told = problem(await service.post(f"/v1/transactions/{transaction['id']}/reverse"), 409, "not-reversible")
    assert "voucher" in told["detail"]
    await factory.assert_books_balance()


async def test_refusals_are_checked_in_order_and_take_nothing(service: Caller, factory: Factory) -> None:
    """Everything is in the way of the same redemption, and is put out of it one after another."""
    wallet = await factory.wallet(10)
    member = wallet.partition(":")[0]
    body = {"name": "n", "kind": "discount", "value": FIXED, "price": PRICE, "per_member_limit": 1}
    ended = {
        **body,
        "ends_at": "2020-01-01T00:00:00Z",
        "stock": 1,
        "eligibility": "member.first_purchase && now < timestamp('2020-01-01T00:00:00Z')",
    }
    offer = str((await service.post("/v1/offers", {**body, "stock": 1, "price": None})).json()["id"])
    assert (await service.post(f"/v1/offers/{offer}/activate")).status_code == 200
    await redeem(service, offer, member)
    await service.put(f"/v1/offers/{offer}", ended)
    assert (await refused(service, offer, member, "offer-unavailable"))["ends_at"] == "2020-01-01T00:00:00.000Z"
    await service.put(f"/v1/offers/{offer}", {**ended, "ends_at": None, "tiers": ["gold"]})
    told = await refused(service, offer, member, "not-eligible")
    assert (told["which"], told["tiers"], told["tier"]) == ("tier", ["gold"], None)
    await service.put(f"/v1/offers/{offer}", {**ended, "ends_at": None})
    assert (await refused(service, offer, member, "not-eligible"))["which"] == "eligibility"
    await service.put(f"/v1/offers/{offer}", {**body, "stock": 1})
    await refused(service, offer, member, "limit-reached")
    await service.put(f"/v1/offers/{offer}", {**body, "stock": 1, "per_member_limit": 2})
    await refused(service, offer, member, "sold-out")
    await service.put(f"/v1/offers/{offer}", {**body, "per_member_limit": 2})
    told = await refused(service, offer, member, "insufficient-funds")
    assert (told["asset"], told["available"], told["needed"]) == ("PTS", 10, 300)
    told = await refused(service, offer, await factory.member(), "insufficient-funds")
    assert (told["available"], told["needed"]) == (0, 300)
    assert await factory.balance(wallet) == 10
    assert (await service.get(f"/v1/offers/{offer}")).json()["issued"] == 1
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 290})
    await redeem(service, offer, member)
    assert await factory.balance(wallet) == 0
    await factory.assert_books_balance()


async def test_repeated_redemption_returns_the_first_response(service: Caller, factory: Factory) -> None:
    offer, wallet = await factory.offer(stock=5, price=PRICE), await factory.wallet(1000)
    member = wallet.partition(":")[0]
    path, body = f"/v1/offers/{offer}/redeem", {"member_id": member, "reference": "basket-1"}
    first = await service.post(path, body, key="once")
    await service.put(f"/v1/offers/{offer}", {"name": "other", "kind": "discount", "value": FIXED, "stock": 1})
    again = await service.post(path, body, key="once")
    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    problem(await service.post(path, {"member_id": member}, key="once"), 422, "idempotency-key-reused")
    reused = problem(await service.post(path, body, key="twice"), 409, "reference-reused")
    assert reused["transaction_id"] == first.json()["transaction"]["id"]
    other = {"member_id": await factory.member()}
    told = problem(await service.post(path, other, key="late"), 409, "sold-out")
    await service.put(f"/v1/offers/{offer}", {"name": "other", "kind": "discount", "value": FIXED})
    replayed = await service.post(path, other, key="late")
    assert problem(replayed, 409, "sold-out")["stock"] == told["stock"], "a late retry does not succeed by surprise"
    assert replayed.headers["idempotency-replayed"] == "true"
    assert await factory.balance(wallet) == 700
    await factory.assert_books_balance()


async def test_free_voucher_has_no_transaction_and_is_issued_once(service: Caller, factory: Factory) -> None:
    offer, member = await factory.offer(), await factory.member()
    answers = [await service.post(f"/v1/offers/{offer}/redeem", {"member_id": member}, key="once") for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[0].json()["transaction"] is None
    assert len((await service.get(f"/v1/members/{member}/vouchers")).json()["items"]) == 1
    await factory.assert_books_balance()


async def test_member_redeems_for_themselves_only(service: Caller, anonymous: Caller, factory: Factory) -> None:
    offer, other = await factory.offer(), await factory.member()
    mine, member = await log_in(anonymous, "ada@example.com")
    answer = await member.post(f"/v1/offers/{offer}/redeem")
    assert answer.json()["voucher"]["member_id"] == mine
    assert (await redeem(member, offer, mine))["voucher"]["member_id"] == mine
    problem(await member.post(f"/v1/offers/{offer}/redeem", {"member_id": other}), 404, "not-found")
    assert problem(await service.post(f"/v1/offers/{offer}/redeem"), 422, "validation")["errors"][0]["pointer"] == "/member_id"
    await refused(service, offer, "mem_" + "0" * 32, "not-found", 404)
    await refused(service, "off_" + "0" * 32, other, "not-found", 404)
    theirs = (await redeem(service, offer, other))["voucher"]
    problem(await member.get(f"/v1/vouchers/{theirs['code']}"), 404, "not-found")
    problem(await member.get("/v1/vouchers/NOTHING"), 404, "not-found")
    assert len((await member.get("/v1/me/vouchers")).json()["items"]) == 2
    problem(await member.get(f"/v1/members/{other}/vouchers"), 404, "not-found")
    await factory.assert_books_balance()


async def test_daily_and_monthly_limits_reset(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    clock.advance(seconds=-clock.now_ms() / 1000 + 1_798_761_600 - 3600)  # An hour before 2027.
    offer = await factory.offer(per_member_day_limit=1, per_member_month_limit=2, per_member_limit=3)
    member = await factory.member()
    await redeem(service, offer, member)
    told = await refused(service, offer, member, "limit-reached")
    assert (told["period"], told["limit"], told["redeemed"], told["resets_at"]) == ("day", 1, 1, "2027-01-01T00:00:00.000Z")
    for _ in range(2):
        clock.advance(seconds=86_400)
        await redeem(service, offer, member)
    clock.advance(seconds=86_400)
    assert (await refused(service, offer, member, "limit-reached"))["period"] == "ever"
    body = {"name": "n", "kind": "discount", "value": FIXED, "per_member_month_limit": 2}
    await service.put(f"/v1/offers/{offer}", body)
    told = await refused(service, offer, member, "limit-reached")
    assert (told["period"], told["resets_at"]) == ("month", "2027-02-01T00:00:00.000Z")
    clock.advance(days=31)
    await redeem(service, offer, member)
    await factory.assert_books_balance()


async def test_new_limit_counts_earlier_redemptions(service: Caller, factory: Factory) -> None:
    offer, member = await factory.offer(), await factory.member()
    await redeem(service, offer, member)
    limited = {"name": "n", "kind": "discount", "value": FIXED, "per_member_limit": 1}
    await service.put(f"/v1/offers/{offer}", limited)
    assert (await refused(service, offer, member, "limit-reached"))["redeemed"] == 1


async def test_eligibility_sees_the_member_as_campaigns_do(service: Caller, factory: Factory) -> None:
    body = {"external_id": "vip", "email": None, "attributes": {"country": "GB"}}
    vip, other = str((await service.post("/v1/members", body)).json()["id"]), await factory.member()
    wanted = [
        "member.attributes.country == 'GB'",
        "member.external_id == 'vip'",
        "member.id != '' && member.attributes['country'] in ['GB']",
    ]
    for eligibility in wanted:
        offer = await factory.offer(eligibility=eligibility)
        await redeem(service, offer, vip)
        told = await refused(service, offer, other, "not-eligible")
        assert "GB" not in told["detail"]
    await factory.campaign(award={"type": "fixed", "amount": 50})
    await service.put(
        "/v1/tiers",
        {"asset": "PTS", "window": {"type": "rolling", "months": 12}, "tiers": [{"code": "gold", "name": "Gold", "points": 50}]},
    )
    gated, fresh = (
        await factory.offer(tiers=["gold"]),
        await factory.offer(eligibility="member.first_purchase && member.days_since_last == -1"),
    )
    await refused(service, gated, vip, "not-eligible")
    await redeem(service, fresh, vip)
    assert (await service.post("/v1/events", factory.event(member={"id": vip}))).status_code == 201
    await redeem(service, gated, vip)
    await refused(service, fresh, vip, "not-eligible")
    await factory.assert_books_balance()


async def test_external_codes_are_issued_in_order_and_once(service: Caller, factory: Factory) -> None:
    offer = await factory.offer(kind="external_code", value=None)
    await refused(service, offer, await factory.member(), "sold-out")
    await factory.pool(offer, ["HOUSE-1", "HOUSE-2"])
    dealt = [(await redeem(service, offer, await factory.member()))["voucher"] for _ in range(2)]
    assert [each["code"] for each in dealt] == ["HOUSE-1", "HOUSE-2"]
    assert (await refused(service, offer, await factory.member(), "sold-out"))["stock"] == 2
    assert (await service.get("/v1/vouchers/house 2")).json() == dealt[1]
    await factory.assert_books_balance()


async def test_gift_card_has_its_balance_on_its_own_account(service: Caller, services: Services, factory: Factory) -> None:
    offer = await factory.offer(kind="gift_card", price={"asset": "GBP", "amount": 2500}, value={**FIXED, "amount": 2500})
    wallet = await factory.wallet(2500, asset="GBP")
    card = (await redeem(service, offer, wallet.partition(":")[0]))["voucher"]
    assert (card["balance"], card["uses_left"]) == (2500, 1)
    account = await services.ledger.get_account(f"{card['id']}:GBP", card["id"])
    assert account is not None
    assert (account.balance, account.kind) == (2500, "gift_card")
    assert await factory.balance(wallet) == 0
    await factory.assert_books_balance()


# --- what a member sees -----------------------------------------------------------------------------------------------


async def test_catalog_states_the_rejection_reason_of_each_offer(
    service: Caller, anonymous: Caller, factory: Factory, clock: ManualClock
) -> None:
    member_id, member = await log_in(anonymous, "ada@example.com")
    await factory.wallet(100, member=member_id)
    wanted = {
        await factory.offer(price={"asset": "PTS", "amount": 100}, stock=7, per_member_limit=2): (True, True, True, None, 7, 2),
        await factory.offer(price={"asset": "PTS", "amount": 101}): (False, True, False, "insufficient-funds", None, None),
        await factory.offer(price={"asset": "GBP", "amount": 1}): (False, True, False, "insufficient-funds", None, None),
        await factory.offer(stock=0): (True, True, False, "sold-out", 0, None),
        await factory.offer(tiers=["gold"]): (True, False, False, "not-eligible", None, None),
        await factory.offer(eligibility="member.attributes.country == 'GB'"): (True, False, False, "not-eligible", None, None),
        await factory.offer(starts_at="2098-01-01T00:00:00Z"): (True, True, False, "offer-unavailable", None, None),
    }
    await factory.offer(active=False)
    await factory.offer(ends_at="2020-01-01T00:00:00Z")
    limited = await factory.offer(per_member_day_limit=1, per_member_limit=5)
    await redeem(service, limited, member_id)
    clock.advance(seconds=2)
    items = (await member.get("/v1/me/offers")).json()["items"]
    names = ("affordable", "eligible", "available", "why_not", "left", "left_for_you")
    seen = {each["id"]: tuple(each[name] for name in names) for each in items}
    assert seen == {**wanted, limited: (True, True, False, "limit-reached", None, 0)}
    assert [each["id"] for each in items] == sorted(seen, reverse=True)
    for offer, (_, _, available, why_not, _, _) in seen.items():
        answer = await member.post(f"/v1/offers/{offer}/redeem")
        assert (answer.status_code == 201) == available
        assert available or answer.json()["code"] == why_not
    await factory.assert_books_balance()


async def test_vouchers_are_listed_by_status_offer_and_kind_in_pages(service: Caller, factory: Factory, clock: ManualClock) -> None:
    member = await factory.member()
    lasting, short = (
        await factory.offer(),
        await factory.offer(kind="item", value={"type": "item", "sku": "CUP"}, voucher_valid_days=1),
    )
    made = [(await redeem(service, offer, member))["voucher"]["id"] for offer in (lasting, short, lasting, short, lasting)]
    path = f"/v1/members/{member}/vouchers"

    async def listed(**query: Any) -> list[str]:
        found, cursor = [], None
        while True:
            page = (await service.get(path, **query, **({} if cursor is None else {"cursor": cursor}))).json()
            assert len(page["items"]) <= query.get("limit", 50)
            found += [each["id"] for each in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    assert await listed(limit=2) == made[::-1]
    assert await listed(offer=lasting, limit=1) == made[::-2]
    assert await listed(kind="item") == [made[3], made[1]]
    assert await listed(status="expired") == []
    clock.advance(days=3)
    assert await listed(status="expired") == [made[3], made[1]]
    assert await listed(status="issued", limit=2) == made[::-2]
    assert [each["uses_left"] for each in (await service.get(path)).json()["items"]] == [1, 0, 1, 0, 1]
    problem(await service.get(path, cursor="bm90aGluZw"), 422, "validation")
    await factory.assert_books_balance()


@pytest_asyncio.fixture
async def elsewhere(service: Caller, other_services: Services, settings: Settings, clock: ManualClock) -> AsyncIterator[Caller]:
    """The same caller, of another process."""
    async with serve(other_services, settings, clock) as stranger:
        yield stranger.with_token(service.token or "")


async def test_paused_offer_is_refused_immediately_in_other_processes(service: Caller, elsewhere: Caller, factory: Factory) -> None:
    offer, member = await factory.offer(), await factory.member()
    await redeem(elsewhere, offer, member)
    assert (await service.post(f"/v1/offers/{offer}/pause")).status_code == 200
    await refused(elsewhere, offer, member, "offer-unavailable")
    assert (await elsewhere.post(f"/v1/offers/{offer}/activate")).status_code == 200
    await redeem(service, offer, member)
    await factory.assert_books_balance()
