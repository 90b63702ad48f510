"""Rates and exchanges over HTTP: versions, exact rounding, one commit, the version in the entries, and who may do what."""

from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.clock import rfc3339
from guerdon.database import Database
from guerdon.errors import ExchangeLimit
from guerdon.exchanges.models import Rate
from guerdon.exchanges.rules import converted, smallest
from guerdon.ledger.models import EXCHANGE
from guerdon.money import AMOUNT_MAX, Rounding
from guerdon.verification.service import verify
from guerdon.wiring.services import Services
from tests.api.test_access import log_in
from tests.api.test_lots import later, lots
from tests.api.test_wallets import entries_of
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY

Body = dict[str, Any]


async def set_rate(service: Caller, pair: str = "PTS-GBP", **rate: Any) -> Body:
    answer = await service.put(f"/v1/rates/{pair}", {"from_amount": 100, "to_amount": 1, **rate})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def wanted(member: str, amount: int = 500, **more: Any) -> Body:
    return {"member_id": member, "from": "PTS", "to": "GBP", "from_amount": amount, **more}


async def exchange(service: Caller, body: Body) -> Body:
    answer = await service.post("/v1/exchanges", body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


# --- rates ----------------------------------------------------------------------------------------------------------


async def test_every_change_of_a_rate_is_a_version(service: Caller) -> None:
    problem(await service.get("/v1/rates/PTS-GBP"), 404, "not-found")
    first = await set_rate(service, minimum=500, maximum=None, rounding="floor")
    assert (first["id"], first["from"], first["to"], first["version"], first["minimum"]) == ("PTS-GBP", "PTS", "GBP", 1, 500)
    assert await set_rate(service, minimum=500) == first, "the same content makes no new version"
    second = await set_rate(service, to_amount=2, members=True)
    assert (second["version"], second["to_amount"], second["minimum"], second["members"]) == (2, 2, None, True)
    assert (await service.get("/v1/rates/PTS-GBP")).json() == second
    assert (await service.get("/v1/rates/PTS-GBP", version=1)).json() == first
    problem(await service.get("/v1/rates/PTS-GBP", version=3), 404, "not-found")
    assert (await set_rate(service, "GBP-PTS"))["version"] == 1
    page = (await service.get("/v1/rates", limit=1)).json()
    assert [rate["id"] for rate in page["items"]] == ["GBP-PTS"]
    rest = (await service.get("/v1/rates", limit=1, cursor=page["next_cursor"])).json()
    assert (rest["items"], rest["next_cursor"]) == ([second], None)


async def test_rate_is_checked(service: Caller) -> None:
    good: Body = {"from_amount": 100, "to_amount": 1}
    for pair in ("PTS-PTS", "PTS", "pts-gbp", "PTS-XYZ", "XYZ-PTS", "PTS-GBP-PTS"):
        problem(await service.put(f"/v1/rates/{pair}", good), 404, "not-found")
    cases: list[tuple[Body, str]] = [
        ({"to_amount": 0}, "/to_amount"),
        ({"from_amount": 1.5}, "/from_amount"),
        ({"minimum": 0}, "/minimum"),
        ({"minimum": 5, "maximum": 4}, "/maximum"),
        ({"rounding": "up"}, "/rounding"),
        ({"to_amount": AMOUNT_MAX + 1}, "/to_amount"),
    ]
    for change, pointer in cases:
        refused = problem(await service.put("/v1/rates/PTS-GBP", {**good, **change}), 422, "validation")
        assert [error["pointer"] for error in refused["errors"]] == [pointer]
    problem(await service.get("/v1/rates/PTS-GBP"), 404, "not-found")


async def test_changes_of_a_rate_are_audited(service: Caller, services: Services) -> None:
    await set_rate(service, to_amount=3)
    records, _ = await services.audit_log.list_records(10, None)
    answered = next(record for record in records if record.action == "setRate" and record.phase == "answered")
    assert (answered.subject, answered.facts) == ({"pair": "PTS-GBP"}, {"version": "1", "from_amount": "100", "to_amount": "3"})


# --- amounts --------------------------------------------------------------------------------------------------------


def rate_of(from_amount: int, to_amount: int, rounding: Rounding = "floor", **bounds: int | None) -> Rate:
    return Rate(
        id="PTS-GBP", source="PTS", target="GBP", from_amount=from_amount, to_amount=to_amount, rounding=rounding, members=False,
        version=1, created_at=0, created_by="", minimum=bounds.get("minimum"), maximum=bounds.get("maximum"),
    )  # fmt: skip


AMOUNTS = st.integers(1, 1000) | st.integers(1, AMOUNT_MAX)


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.sampled_from(["floor", "ceil", "half_even"]))
def test_amount_is_the_exact_fraction_rounded_once(from_amount: int, to_amount: int, amount: int, rounding: Any) -> None:
    rate = rate_of(from_amount, to_amount, rounding)
    exact = {"floor": floor, "ceil": ceil, "half_even": round}[rounding](Fraction(amount * to_amount, from_amount))
    if 1 <= exact <= AMOUNT_MAX:
        assert converted(rate, amount) == exact
        assert amount >= smallest(rate)
    else:
        with pytest.raises(ExchangeLimit) as refused:
            converted(rate, amount)
        bounds = refused.value.members
        if exact < 1:
            assert amount < bounds["minimum"] == smallest(rate)
            assert round(Fraction(smallest(rate) * to_amount, from_amount)) >= 1 or rounding != "half_even"
        else:
            assert amount > bounds["maximum"]
            assert bounds["maximum"] * to_amount // from_amount <= AMOUNT_MAX


# --- exchanges ------------------------------------------------------------------------------------------------------


async def test_exchange_is_one_commit_with_the_version_in_both_entries(
    service: Caller, factory: Factory, clock: ManualClock
) -> None:
    clock.stop()
    member = await factory.member()
    points, money = f"{member}:PTS", f"{member}:GBP"
    soon = later(clock, days=3)
    for amount, date in ((400, soon), (400, None)):
        await service.post(f"/v1/wallets/{points}/credit", {"amount": amount, "expires_at": date})
    await set_rate(service)
    await set_rate(service, from_amount=30)
    quote = (await service.post("/v1/exchanges/quote", wanted(member))).json()
    assert (quote["from_amount"], quote["to_amount"], quote["available"], quote["rate"]["version"]) == (500, 16, 800, 2)
    without = (await service.post("/v1/exchanges/quote", {"from": "PTS", "to": "GBP", "from_amount": 500})).json()
    assert {**quote, "available": None} == without
    tried = await service.post("/v1/exchanges?dry_run=true", wanted(member))
    assert (tried.status_code, tried.json()["to_amount"], tried.json()["dry_run"]) == (200, 16, True)
    body = wanted(member, reference="order-1", metadata={"till": "4"}, rate_version=2)
    answer = await service.post("/v1/exchanges", body, key="k")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["postings"] == [
        {"wallet": points, "asset": "PTS", "amount": -500, "balance": 300, "available": 300, "seq": 3},
        {"wallet": money, "asset": "GBP", "amount": 16, "balance": 16, "available": 16, "seq": 1},
    ]
    assert [(each["account"], each["asset"], each["amount"]) for each in made["accounts"]] == [
        (EXCHANGE, "PTS", 500),
        (EXCHANGE, "GBP", -16),
    ]
    assert (made["kind"], made["member_id"], made["from"], made["to"], made["from_amount"], made["to_amount"], made["rate"]) == (
        "exchange", member, "PTS", "GBP", 500, 16, {"id": "PTS-GBP", "version": 2},
    )  # fmt: skip
    assert await lots(service, points) == [(300, "paid", None, None)], "what expires first is given first"
    for wallet in (points, money):
        entry = (await entries_of(service, wallet))[0]
        assert (entry["kind"], entry["rate"], entry["transaction_id"]) == ("exchange", "PTS-GBP/2", made["id"])
    await set_rate(service, to_amount=7)
    again = await service.post("/v1/exchanges", body, key="k")
    assert (again.status_code, again.content, again.headers["idempotency-replayed"]) == (201, answer.content, "true")
    problem(await service.post("/v1/exchanges", wanted(member, 501), key="k"), 422, "idempotency-key-reused")
    problem(await service.post("/v1/exchanges", wanted(member, reference="order-1")), 409, "reference-reused")
    path = f"/v1/transactions/{made['id']}/reverse"
    problem(await service.post(path, {"amount": 100}), 409, "not-reversible")
    reversal = (await service.post(path)).json()
    assert [each["balance"] for each in reversal["postings"]] == [800, 0]
    assert await lots(service, points) == [(400, "paid", None, soon), (400, "paid", None, None)]
    problem(await service.post(path), 409, "reversal-limit")
    await factory.assert_books_balance()


async def test_refused_exchange_changes_nothing(service: Caller, factory: Factory) -> None:
    member = await factory.member()
    points = await factory.wallet(600, member=member)
    problem(await service.post("/v1/exchanges", wanted(member)), 404, "not-found")
    problem(await service.post("/v1/exchanges/quote", wanted(member)), 404, "not-found")
    await set_rate(service, minimum=200, maximum=900)
    for amount in (199, 901):
        refused = problem(await service.post("/v1/exchanges", wanted(member, amount)), 409, "exchange-limit")
        assert (refused["asset"], refused["minimum"], refused["maximum"], refused["amount"]) == ("PTS", 200, 900, amount)
        problem(await service.post("/v1/exchanges/quote", wanted(member, amount)), 409, "exchange-limit")
    refused = problem(await service.post("/v1/exchanges", wanted(member, 601)), 409, "insufficient-funds")
    assert (refused["available"], refused["needed"]) == (600, 601)
    refused = problem(await service.post("/v1/exchanges", wanted(member, rate_version=2)), 409, "rate-changed")
    assert (refused["rate"], refused["version"]) == ("PTS-GBP", 1)
    problem(await service.post("/v1/exchanges", wanted(NOBODY)), 404, "not-found")
    problem(await service.post("/v1/exchanges", {**wanted(member), "from": "GBP", "to": "PTS"}), 404, "not-found")
    problem(await service.post("/v1/exchanges", {**wanted(member), "to": "PTS"}), 404, "not-found")
    await set_rate(service, minimum=None)
    refused = problem(await service.post("/v1/exchanges", wanted(member, 99)), 409, "exchange-limit")
    assert (refused["minimum"], refused["maximum"]) == (100, None), "less would give nothing"
    await service.put(f"/v1/wallets/{points}/terms", {"day_limit": 450})
    problem(await service.post("/v1/exchanges", wanted(member)), 409, "limit-reached")
    await service.post(f"/v1/wallets/{points}/freeze")
    problem(await service.post("/v1/exchanges", wanted(member, 100)), 409, "wallet-frozen")
    assert await factory.balance(points) == 600
    problem(await service.get(f"/v1/wallets/{member}:GBP"), 404, "not-found")
    await factory.assert_books_balance()


async def test_members_exchange_their_own_value_where_the_rate_allows_it(
    service: Caller, factory: Factory, anonymous: Caller
) -> None:
    ada, bob = [await log_in(anonymous, f"{name}@example.com") for name in ("ada", "bob")]
    member = (await ada.get("/v1/me")).json()["id"]
    await service.post(f"/v1/wallets/{member}:PTS/credit", {"amount": 1000})
    await set_rate(service)
    for path in ("/v1/exchanges", "/v1/exchanges/quote"):
        problem(await ada.post(path, wanted(member)), 403, "forbidden")
        problem(await bob.post(path, wanted(member)), 404, "not-found")
    problem(await ada.put("/v1/rates/PTS-GBP", {"from_amount": 1, "to_amount": 1}), 403, "forbidden")
    rate = await set_rate(service, members=True)
    assert (await ada.get("/v1/rates/PTS-GBP")).json() == rate
    assert (await ada.post("/v1/exchanges/quote", wanted(member))).json()["to_amount"] == 5
    problem(await bob.post("/v1/exchanges", wanted(member)), 404, "not-found")
    answer = await ada.post("/v1/exchanges", wanted(member))
    assert (answer.status_code, answer.json()["to_amount"]) == (201, 5)
    assert await factory.balance(f"{member}:GBP") == 5
    backdated = wanted(member, effective_at="2026-11-01T00:00:00Z")
    assert "members cannot state effective_at" in problem(await ada.post("/v1/exchanges", backdated), 403, "forbidden")["detail"]
    await factory.assert_books_balance()


async def test_exchange_may_state_when_it_happened(
    service: Caller, factory: Factory, database: Database, clock: ManualClock
) -> None:
    """Stored, hashed and shown on both sides; the rate is the present one; a repeat returns the first answer also when the time is too long ago."""
    clock.stop()
    wallet = await factory.wallet(2000)
    member = wallet.partition(":")[0]
    await set_rate(service, to_amount=9)
    clock.advance(days=30)
    await set_rate(service)
    then = later(clock, days=-20)
    body = wanted(member, effective_at=then, reference="old-1")
    dry = await service.post("/v1/exchanges?dry_run=true", body)
    assert (dry.status_code, dry.json()["effective_at"], dry.json()["to_amount"]) == (200, then, 5)
    made = await service.post("/v1/exchanges", body, key="x-1")
    assert made.status_code == 201, made.text
    view = made.json()
    assert (view["effective_at"], view["created_at"], view["to_amount"]) == (then, rfc3339(clock.now_ms()), 5)
    read = (await service.get(f"/v1/transactions/{view['id']}")).json()
    assert read["transaction"]["effective_at"] == then
    for side in (wallet, f"{member}:GBP"):
        newest = (await entries_of(service, side))[0]
        assert (newest["kind"], newest["effective_at"]) == ("exchange", then)
    clock.advance(days=1)
    again = await service.post("/v1/exchanges", body, key="x-1")
    assert (again.content, again.headers["idempotency-replayed"]) == (made.content, "true")
    assert "effective_at" not in await exchange(service, wanted(member))
    await factory.assert_books_balance()
    await database.raw["entries"].update_one({"_id": f"{member}:GBP#000000000001"}, {"$inc": {"effective_at": 1}})
    report = await verify(database)
    assert report.violations > 0, "the time is hashed, and equal on both sides"


async def test_effective_time_of_an_exchange_is_checked(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    wallet = await factory.wallet(1000)
    member = wallet.partition(":")[0]
    await set_rate(service)
    for moment in (later(clock, milliseconds=1), later(clock, days=-3660), "2026-11-01T00:00:00", "9999-12-31T23:59:59Z", 5, ""):
        refused = problem(await service.post("/v1/exchanges", wanted(member, effective_at=moment)), 422, "validation")
        assert [error["pointer"] for error in refused["errors"]] == ["/effective_at"], moment
    quoted = problem(await service.post("/v1/exchanges/quote", {**wanted(member), "effective_at": later(clock)}), 422, "validation")
    assert [error["pointer"] for error in quoted["errors"]] == ["/effective_at"], "a quote is for now"
    assert await factory.balance(wallet) == 1000


async def test_verification_compares_each_exchange_with_its_rate(service: Caller, factory: Factory, database: Database) -> None:
    """A version that is changed or removed behind the service is named."""

    member = await factory.member()
    await factory.wallet(600, member=member)
    await set_rate(service)
    await exchange(service, wanted(member))
    versions = database.raw["rate_versions"]
    row = await versions.find_one({})
    assert row is not None
    for changed in ({**row, "to_amount": 2}, {**row, "rounding": "up"}, {**row, "source": "GBP"}, None):
        await versions.delete_many({})
        if changed is not None:
            await versions.insert_one(changed)
        report = await verify(database)
        assert set(report.first) == {"L5"}, changed
    await versions.insert_one(row)
    await factory.assert_books_balance()
