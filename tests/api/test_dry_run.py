"""Dry runs: every command that moves value is decided as in reality, and nothing is written."""

from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from falcon.asgi import App

from guerdon.database import Database
from guerdon.http.operation import Operation
from guerdon.wiring.services import Services
from tests.api.test_audit_log import colleague
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY, routes_of

MOVES_AND_IS_KEYED_BY_ITS_BODY = {"runBulk", "recordEvent", "recordEvents", "voidEvent"}
GBP = {"currency": "GBP"}
WHY = {"reason": "recorded twice"}
CARD = {"kind": "gift_card", "value": {"type": "fixed", "amount": 1000, **GBP}}
UNDO = {"unuse": {"allowed": True, "minutes": 60}, "cancellation": {"allowed": True, "days": 14}}
WRITTEN = {"id", "transaction_id", "seq", "dry_run"}
"""Fields that only the answer of the command has, or only that of the dry run."""


class Case(NamedTuple):
    """A command that succeeds, and one that is refused, of one operation."""

    operation: str
    path: str
    body: Any
    refused_path: str
    refused_body: Any
    code: str
    status: int = 201
    """Status of the success in reality."""
    raw: bytes | None = None


class Scene(NamedTuple):
    """Something to move."""

    wallet: str
    other: str
    hold: str
    transaction: str
    offer: str
    costly: str
    free: str
    external: str
    vouchers: dict[str, str]
    card: str
    used: str
    order: dict[str, Any]

    @property
    def member(self) -> str:
        return self.wallet.partition(":")[0]


async def done(answer: Any) -> dict[str, Any]:
    response = await answer
    assert response.is_success, response.text
    return dict(response.json())


@pytest.fixture
async def scene(service: Caller, clock: ManualClock, factory: Factory) -> Scene:
    clock.stop()
    wallet, other = await factory.wallet(1000), await factory.wallet(5)
    member = wallet.partition(":")[0]
    await factory.campaign()
    offer = await factory.offer(price={"asset": "PTS", "amount": 10}, **UNDO)
    costly = await factory.offer(price={"asset": "PTS", "amount": 100_000})
    vouchers = {step: (await factory.voucher(offer, member))["code"] for step in ("reserve", "use", "release", "unuse", "cancel")}
    card = (await factory.voucher(await factory.offer(**CARD), member))["code"]
    await done(service.post(f"/v1/vouchers/{vouchers['release']}/reserve", {"amount": 2000, **GBP}))
    await done(service.post(f"/v1/vouchers/{vouchers['unuse']}/use", {"amount": 2000, **GBP}))
    used = (await factory.voucher(offer, member))["code"]
    await done(service.post(f"/v1/vouchers/{used}/use", {"amount": 2000, **GBP}))
    await done(service.post(f"/v1/vouchers/{used}/unuse", {}))
    await done(service.post(f"/v1/vouchers/{used}/cancel", {}))
    hold = await done(service.post("/v1/holds", {"wallet": wallet, "amount": 50}))
    debit = await done(service.post(f"/v1/wallets/{wallet}/debit", {"amount": 20}))
    order = factory.event(member={"id": member})
    await done(service.post("/v1/events", order))
    external = await factory.offer(kind="external_code", value=None)
    await done(service.put("/v1/rates/PTS-GBP", {"from_amount": 100, "to_amount": 1}))
    return Scene(
        wallet, other, hold["id"], debit["id"], offer, costly, await factory.offer(), external, vouchers, card, used, order
    )


def cases_of(scene: Scene, factory: Factory) -> list[Case]:
    return [*wallet_cases(scene), *voucher_cases(scene), *code_cases(scene), *many_cases(scene, factory)]


def wallet_cases(scene: Scene) -> list[Case]:
    wallet, other, nobody = scene.wallet, scene.other, f"{NOBODY}:PTS"
    return [
        Case("creditWallet", f"/v1/wallets/{wallet}/credit", {"amount": 5}, f"/v1/wallets/{nobody}/credit", {"amount": 5}, "not-found"),
        Case(
            "debitWallet", f"/v1/wallets/{wallet}/debit", {"amount": 5},
            f"/v1/wallets/{wallet}/debit", {"amount": 10**9}, "insufficient-funds",
        ),
        Case(
            "createTransfer", "/v1/transfers", {"from": wallet, "to": other, "amount": 5},
            "/v1/transfers", {"from": other, "to": wallet, "amount": 10**9}, "insufficient-funds",
        ),
        Case(
            "createHold", "/v1/holds", {"wallet": wallet, "amount": 5},
            "/v1/holds", {"wallet": wallet, "amount": 10**9}, "insufficient-funds",
        ),
        Case(
            "captureHold", f"/v1/holds/{scene.hold}/capture", {"amount": 20},
            f"/v1/holds/{scene.hold}/capture", {"amount": 51}, "capture-limit",
        ),
        Case("voidHold", f"/v1/holds/{scene.hold}/void", {}, f"/v1/holds/hld_{wallet}:1/void", {}, "not-found"),
        Case(
            "reverseTransaction", f"/v1/transactions/{scene.transaction}/reverse", {"amount": 5},
            f"/v1/transactions/{scene.transaction}/reverse", {"amount": 21}, "reversal-limit",
        ),
        Case(
            "createTransaction", "/v1/transactions", {"kind": "payment", "postings": [{"wallet": wallet, "amount": -5}, {"wallet": other, "amount": 5}]},
            "/v1/transactions", {"kind": "payment", "postings": [{"wallet": wallet, "amount": -(10**9)}, {"wallet": other, "amount": 10**9}]},
            "insufficient-funds",
        ),
        Case(
            "createExchange", "/v1/exchanges", {"member_id": scene.member, "from": "PTS", "to": "GBP", "from_amount": 100},
            "/v1/exchanges", {"member_id": scene.member, "from": "PTS", "to": "GBP", "from_amount": 10**9}, "insufficient-funds",
        ),
    ]  # fmt: skip


def voucher_cases(scene: Scene) -> list[Case]:
    voucher, used, member = "/v1/vouchers/{}/{}".format, f"/v1/vouchers/{scene.used}", scene.member
    basket = {"amount": 2000, **GBP}
    return [
        Case(
            "redeemOffer", f"/v1/offers/{scene.offer}/redeem", {"member_id": member},
            f"/v1/offers/{scene.costly}/redeem", {"member_id": member}, "insufficient-funds",
        ),
        Case("reserveVoucher", voucher(scene.vouchers["reserve"], "reserve"), basket, f"{used}/reserve", basket, "invalid-state", 200),
        Case("useVoucher", voucher(scene.vouchers["use"], "use"), basket, f"{used}/use", basket, "invalid-state", 200),
        Case("releaseVoucher", voucher(scene.vouchers["release"], "release"), {}, f"{used}/release", {}, "invalid-state", 200),
        Case("unuseVoucher", voucher(scene.vouchers["unuse"], "unuse"), {}, f"{used}/unuse", {}, "invalid-state", 200),
        Case("cancelVoucher", voucher(scene.vouchers["cancel"], "cancel"), {}, f"{used}/cancel", {}, "invalid-state", 200),
        Case(
            "loadGiftCard", voucher(scene.card, "load"), {"member_id": member, "amount": 300},
            voucher(scene.card, "load"), {"member_id": member, "amount": 10**6}, "insufficient-funds", 200,
        ),
    ]  # fmt: skip


def code_cases(scene: Scene) -> list[Case]:
    codes = f"/v1/offers/{scene.free}/codes"
    return [
        Case("generateCodes", codes, {"count": 3}, "/v1/offers/off_none/codes", {"count": 3}, "not-found", 202),
        Case(
            "shareCode", f"{codes}/shared", {"code": "WELCOME-10", "uses": 5},
            "/v1/offers/off_none/codes/shared", {"code": "WELCOME-11", "uses": 5}, "not-found",
        ),
        Case("importCodes", f"/v1/offers/{scene.external}/codes/import", None, "/v1/offers/off_none/codes/import", None, "not-found", 202, b"code\nFILM-7Q4X-91\n"),
    ]  # fmt: skip


def many_cases(scene: Scene, factory: Factory) -> list[Case]:
    """Commands that are keyed by their bodies."""
    event = factory.event(member={"id": scene.member})
    commands = [
        {"type": "debit", "wallet": scene.wallet, "amount": 7, "key": "b1"},
        {"type": "debit", "wallet": scene.wallet, "amount": 10**9, "key": "b2"},
    ]
    return [
        Case("runBulk", "/v1/bulk", {"commands": commands}, "/v1/bulk", {"commands": []}, "validation", 200),
        Case("recordEvent", "/v1/events", event, "/v1/events", {**scene.order, "amount": 1}, "event-id-reused"),
        Case("voidEvent", f"/v1/events/{scene.order['id']}/void", WHY, "/v1/events/none/void", WHY, "not-found", 200),
        Case(
            "recordEvents", "/v1/events/bulk", {"events": [factory.event(), factory.event()]},
            "/v1/events/bulk", {"events": []}, "validation", 200,
        ),
    ]  # fmt: skip


async def send(caller: Caller, case: Case, *, dry: bool, refused: bool = False, key: str = "") -> httpx.Response:
    path = (case.refused_path if refused else case.path) + ("?dry_run=true" if dry else "")
    if case.raw is not None:
        return await caller.send("POST", path, case.raw, key=key, content_type="text/csv")
    return await caller.post(path, case.refused_body if refused else case.body, key=key)


async def everything(database: Database) -> dict[str, list[Any]]:
    """Every document of the database."""
    names = sorted(await database.raw.list_collection_names())
    return {name: await database.raw[name].find({}).sort("_id", 1).to_list() for name in names}


def constant(node: Any) -> Any:
    """The answer without what the command has written, and without the statuses of a bulk request."""
    if isinstance(node, list):
        return [constant(each) for each in node]
    if isinstance(node, dict):
        return {
            name: constant(each) for name, each in node.items() if name not in WRITTEN and each not in (200, 201, "paid", "preview")
        }
    return node


def operations(app: App[Any, Any]) -> dict[str, Operation]:
    return {route.operation.operation_id: route.operation for route in routes_of(app)}


async def test_every_command_that_moves_value_has_a_dry_run(app: App[Any, Any], scene: Scene, factory: Factory) -> None:
    covered = {case.operation for case in cases_of(scene, factory)}
    declared = operations(app)
    assert covered == {name for name, each in declared.items() if each.dry_run is not None}
    assert covered == {name for name, each in declared.items() if each.idempotent} | MOVES_AND_IS_KEYED_BY_ITS_BODY


async def test_dry_run_writes_nothing_and_answers_like_the_command(
    app: App[Any, Any], service: Caller, services: Services, database: Database, *, factory: Factory, scene: Scene
) -> None:
    declared = operations(app)
    for number, case in enumerate(cases_of(scene, factory)):
        key, before = f"dry-{number}", await everything(database)
        first = await send(service, case, dry=True, key=key)
        assert first.status_code == 200, (case.operation, first.text)
        dry = first.json()
        assert dry["dry_run"] is True
        assert "idempotency-replayed" not in first.headers
        answer_struct = declared[case.operation].dry_run
        assert answer_struct is not None
        assert msgspec.to_builtins(msgspec.convert(dry, answer_struct)) == dry, "the answer is the declared one"
        again = await send(service, case, dry=True, key=key)
        assert again.json() == dry, case.operation
        assert await everything(database) == before, case.operation
        real = await send(service, case, dry=False, key=key)
        assert real.status_code == case.status, (case.operation, real.text)
        assert without_written(case, real.json()) == without_written(case, dry), case.operation
        replay = await send(service, case, dry=True, key=key)
        if case.operation not in {"runBulk", "recordEvents"}:
            assert replay.headers["idempotency-replayed"] == "true", case.operation
        assert (replay.status_code, replay.json()["dry_run"]) == (200, True)
    await services.code_generation.generate_open()
    await factory.assert_books_balance()


def without_written(case: Case, answer: dict[str, Any]) -> Any:
    """The answer without the ids and codes of what the command has written."""
    found = constant(answer)
    if case.operation == "redeemOffer":
        found["voucher"].pop("code", None)
        found["transaction"]["metadata"].pop("voucher", None)
    elif case.operation == "reserveVoucher":
        found.pop("reservation")
    elif case.operation in {"generateCodes", "shareCode", "importCodes"}:
        found.pop("voucher", None)
    elif case.operation == "recordEvents":
        for result in found["results"]:
            result["event"].pop("member_id")  # The members are new, and a dry run creates none.
            result["event"]["inputs"].pop("used")
    return found


async def test_refusal_of_a_dry_run_is_that_of_the_command_and_is_not_remembered(
    service: Caller, services: Services, database: Database, factory: Factory, scene: Scene
) -> None:
    def comparable(response: httpx.Response) -> dict[str, Any]:
        return {name: each for name, each in response.json().items() if name != "request_id"}

    for number, case in enumerate(cases_of(scene, factory)):
        key, before = f"refused-{number}", await everything(database)
        dry = await send(service, case, dry=True, refused=True, key=key)
        assert dry.json()["code"] == case.code, (case.operation, dry.text)
        assert await everything(database) == before, case.operation
        real = await send(service, case, dry=False, refused=True, key=key)
        assert "idempotency-replayed" not in real.headers, "the dry run has left no refusal under the key"
        assert (comparable(real), real.status_code) == (comparable(dry), dry.status_code), case.operation
    await factory.assert_books_balance()


async def test_dry_run_checks_the_key_like_the_command(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    debit = f"/v1/wallets/{wallet}/debit"
    problem(await service.post(f"{debit}?dry_run=true", {"amount": 5}, key=None), 400, "idempotency-key-missing")
    first = await done(service.post(debit, {"amount": 5}, key="k1"))
    problem(await service.post(f"{debit}?dry_run=true", {"amount": 6}, key="k1"), 422, "idempotency-key-reused")
    replay = await service.post(f"{debit}?dry_run=true", {"amount": 5}, key="k1")
    assert replay.headers["idempotency-replayed"] == "true"
    left = {name: each for name, each in first.items() if name not in {"id", "seq"}}
    assert replay.json() == {**left, "dry_run": True}
    for wrong in ("dry_run=1", "dry_run=True", "dry_run=", "dry_run=true&dry_run=true", "dry-run=true"):
        problem(await service.post(f"{debit}?{wrong}", {"amount": 5}), 422, "validation")
    assert (await service.post(f"{debit}?dry_run=false", {"amount": 5})).status_code == 201
    problem(await service.post("/v1/vouchers/nothing/validate?dry_run=true", {}), 422, "validation")
    assert await factory.balance(wallet) == 90
    await factory.assert_books_balance()


async def test_dry_run_needs_the_same_permission(
    anonymous: Caller, service: Caller, services: Services, factory: Factory, scene: Scene
) -> None:
    reader = anonymous.with_token(await services.access.create_key("reader", ["wallets:read", "events:read", "vouchers:read"]))
    for case in cases_of(scene, factory):
        problem(await send(reader, case, dry=True), 403, "forbidden")
        problem(await send(anonymous, case, dry=True), 401, "unauthenticated")
    await factory.assert_books_balance()


async def test_dry_run_by_staff_is_not_an_entry_of_the_audit_log(
    anonymous: Caller, services: Services, database: Database, factory: Factory
) -> None:
    wallet = await factory.wallet(100)
    _, operator = await colleague(anonymous, services, "operator")
    before = await everything(database)
    assert (await operator.post(f"/v1/wallets/{wallet}/debit?dry_run=true", {"amount": 5})).status_code == 200
    problem(await operator.post(f"/v1/wallets/{wallet}/debit?dry_run=true", {"amount": 500}), 409, "insufficient-funds")
    after = await everything(database)
    assert after["entries"] == before["entries"]
    assert after["audit"] == before["audit"]
    # A parameter that another spelling hides from the log is recorded, whether or not it was a dry run.
    assert (await operator.post(f"/v1/wallets/{wallet}/debit?dry%5Frun=true", {"amount": 5})).status_code == 200
    assert len((await everything(database))["audit"]) == len(before["audit"]) + 2


async def test_commands_of_a_dry_bulk_request_see_those_before_them(service: Caller, database: Database, factory: Factory) -> None:
    wallet, fresh = await factory.wallet(10), f"{await factory.member()}:PTS"
    commands = [
        {"type": "debit", "wallet": wallet, "amount": 6, "key": "k1"},
        {"type": "debit", "wallet": wallet, "amount": 6, "key": "k2"},
        {"type": "transfer", "wallet": wallet, "to": fresh, "amount": 4, "key": "k3"},
        {"type": "debit", "wallet": fresh, "amount": 4, "key": "k4"},
        {"type": "debit", "wallet": wallet, "amount": 6, "key": "k1"},
    ]
    for atomic, wanted in ((False, [200, 409, 200, 200, 200]), (True, [422] * 5)):
        before = await everything(database)
        answer = await done(service.post("/v1/bulk?dry_run=true", {"commands": commands, "atomic": atomic}, key=None))
        assert answer["dry_run"] is True
        statuses = [result["status"] for result in answer["results"]]
        assert statuses == wanted or (atomic and set(statuses) <= {409, 422}), statuses
        assert await everything(database) == before
    real = await done(service.post("/v1/bulk", {"commands": commands}, key=None))
    assert [result["status"] for result in real["results"]] == [201, 409, 201, 201, 201]
    await factory.assert_books_balance()


async def test_events_of_a_dry_bulk_request_see_those_before_them(service: Caller, database: Database, factory: Factory) -> None:
    """A refund of a purchase in the same request, a second purchase under a cap, a repetition, and a new member with two events."""
    cap = {"scope": "member", "period": "month", "limit": 200}
    await factory.campaign(caps=[cap])
    new = {"external_id": "new-shopper"}
    first, second, third = (factory.event(member=new) for _ in range(3))
    refund = factory.event(type="refund", member=new, amount=first["amount"], refund_of=first["id"])
    events = [refund, first, second, third, first]
    before = await everything(database)
    dry = await done(service.post("/v1/events/bulk?dry_run=true", {"events": events}, key=None))
    assert await everything(database) == before
    assert [result["event"]["member_id"] for result in dry["results"]] == [None] * 5
    real = await done(service.post("/v1/events/bulk", {"events": events}, key=None))

    def paid(answer: dict[str, Any]) -> list[list[int]]:
        return [[award["amount"] for award in result["event"]["awards"]] for result in answer["results"]]

    assert paid(dry) == paid(real) == [[-139], [139], [61], [], [139]]
    assert [result.get("replayed", False) for result in dry["results"]] == [False] * 4 + [True]
    await factory.assert_books_balance()


async def test_dry_run_is_decided_on_the_present_state(service: Caller, clock: ManualClock, factory: Factory) -> None:
    """Expired value is not available to a dry run either, and the real command comes to the same decision later."""
    wallet = f"{await factory.member()}:PTS"
    until = "2999-01-01T00:00:00Z"
    await done(service.post(f"/v1/wallets/{wallet}/credit", {"amount": 10, "expires_at": until}))
    path = f"/v1/wallets/{wallet}/debit"
    assert (await done(service.post(f"{path}?dry_run=true", {"amount": 10})))["available"] == 0
    clock.advance(days=366 * 1000)
    refused = problem(await service.post(f"{path}?dry_run=true", {"amount": 10}), 409, "insufficient-funds")
    assert problem(await service.post(path, {"amount": 10}), 409, "insufficient-funds")["available"] == refused["available"] == 0
    await factory.assert_books_balance()
