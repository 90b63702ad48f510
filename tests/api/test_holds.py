"""Holds over HTTP: value set aside counts in every funds check, is captured in parts, voided, or ends at its millisecond."""

import asyncio
from typing import Any

import pytest

from guerdon.ledger.jobs import sweep
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory

NOBODY = "hld_mem_" + "0" * 32 + ":PTS:1"


async def make_hold(service: Caller, wallet: str, amount: int, **more: Any) -> dict[str, Any]:
    answer = await service.post("/v1/holds", {"wallet": wallet, "amount": amount, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def numbers(service: Caller, wallet: str) -> tuple[int, int, int]:
    """(balance, held, available)"""
    read = (await service.get(f"/v1/wallets/{wallet}")).json()
    return read["balance"], read["held"], read["available"]


async def test_a_hold_is_set_aside_and_counts_in_every_funds_check(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(100), await factory.wallet(1)
    hold = await make_hold(service, wallet, 60, reference="order-1", metadata={"till": "4"})
    assert hold["id"].startswith("hld_")
    assert (hold["status"], hold["amount"], hold["captured"], hold["left"]) == ("held", 60, 0, 60)
    assert (hold["balance"], hold["held"], hold["available"]) == (100, 60, 40)
    assert await numbers(service, wallet) == (100, 60, 40)
    needs = problem(await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 41}), 409, "insufficient-funds")
    assert (needs["available"], needs["needed"]) == (40, 41)
    problem(await service.post("/v1/transfers", {"from": wallet, "to": other, "amount": 41}), 409, "insufficient-funds")
    problem(await service.post("/v1/holds", {"wallet": wallet, "amount": 41}), 409, "insufficient-funds")
    assert (await service.get(f"/v1/holds/{hold['id']}")).json()["metadata"] == {"till": "4"}
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 40})).status_code == 201
    await factory.assert_books_balance()


async def test_hold_is_captured_in_parts_up_to_its_amount(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    hold = await make_hold(service, wallet, 60)
    first = (await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 20})).json()
    assert (first["kind"], first["amount"], first["balance"]) == ("capture", 20, 80)
    assert first["hold"] == {"id": hold["id"], "status": "held", "amount": 60, "captured": 20, "left": 40}
    refused = problem(await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 41}), 409, "capture-limit")
    assert (refused["left"], refused["needed"]) == (40, 41)
    last = (await service.post(f"/v1/holds/{hold['id']}/capture")).json()
    assert last["amount"] == 40
    assert last["hold"]["status"] == "captured"
    ended = problem(await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 1}), 409, "invalid-state")
    assert ended["status_now"] == "captured"
    problem(await service.post(f"/v1/holds/{hold['id']}/void"), 409, "invalid-state")
    assert await numbers(service, wallet) == (40, 0, 40)
    await factory.assert_books_balance()


async def test_a_final_capture_releases_the_rest(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    hold = await make_hold(service, wallet, 60)
    answer = (await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 20, "final": True})).json()
    assert answer["hold"] == {"id": hold["id"], "status": "captured", "amount": 60, "captured": 20, "left": 0}
    assert await numbers(service, wallet) == (80, 0, 80)
    entries = (await service.get(f"/v1/wallets/{wallet}/entries")).json()["items"]
    assert [(entry["kind"], entry["amount"]) for entry in entries] == [("void", 0), ("capture", -20), ("hold", 0), ("credit", 100)]
    assert entries[0]["transaction_id"] == entries[1]["transaction_id"] == answer["id"]
    await factory.assert_books_balance()


async def test_a_voided_hold_returns_what_is_left(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    hold = await make_hold(service, wallet, 60)
    assert (await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 10})).status_code == 201
    voided = await service.post(f"/v1/holds/{hold['id']}/void", {"reason": "cancelled"})
    assert voided.status_code == 201
    assert (voided.json()["status"], voided.json()["captured"], voided.json()["available"]) == ("voided", 10, 90)
    assert await numbers(service, wallet) == (90, 0, 90)
    assert (await service.get(f"/v1/holds/{hold['id']}")).json()["status"] == "voided"
    await factory.assert_books_balance()


@pytest.mark.parametrize("swept", [False, True])
async def test_hold_expires_at_its_exact_millisecond(
    service: Caller, factory: Factory, services: Services, clock: ManualClock, swept: bool
) -> None:
    """Whether or not anybody has booked it."""
    clock.stop()
    wallet = await factory.wallet(100)
    hold = await make_hold(service, wallet, 60, expires_in_seconds=10)
    clock.advance(seconds=9.999)
    assert await numbers(service, wallet) == (100, 60, 40)
    clock.advance(seconds=0.001)
    if swept:
        assert await sweep(services.ledger, services.database, clock) == 1
        assert await sweep(services.ledger, services.database, clock) == 0
    assert await numbers(service, wallet) == (100, 0, 100)
    read = (await service.get(f"/v1/holds/{hold['id']}")).json()
    assert (read["status"], read["left"]) == ("expired", 0)
    ended = problem(await service.post(f"/v1/holds/{hold['id']}/capture", {"amount": 1}), 409, "invalid-state")
    assert ended["status_now"] == "expired"
    problem(await service.post(f"/v1/holds/{hold['id']}/void"), 409, "invalid-state")
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 100})).status_code == 201
    kinds = [entry["kind"] for entry in (await service.get(f"/v1/wallets/{wallet}/entries")).json()["items"]]
    assert kinds == ["debit", "hold_expiry", "hold", "credit"]
    await factory.assert_books_balance()


async def test_every_step_replays_its_first_answer(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    body = {"wallet": wallet, "amount": 60}
    first = await service.post("/v1/holds", body, key="hold-1")
    hold = first.json()["id"]
    paths = [
        ("/v1/holds", body, "hold-1"),
        (f"/v1/holds/{hold}/capture", {"amount": 20}, "cap-1"),
        (f"/v1/holds/{hold}/void", {}, "v-1"),
    ]
    answers = [first] + [await service.post(path, sent, key=key) for path, sent, key in paths[1:]]
    for (path, sent, key), original in zip(paths, answers, strict=True):
        again = await service.post(path, sent, key=key)
        assert (again.status_code, again.content) == (201, original.content)
        assert again.headers["idempotency-replayed"] == "true"
    problem(await service.post(f"/v1/holds/{hold}/capture", {"amount": 21}, key="cap-1"), 422, "idempotency-key-reused")
    problem(await service.post("/v1/holds", {**body, "amount": 61}, key="hold-1"), 422, "idempotency-key-reused")
    assert await numbers(service, wallet) == (80, 0, 80)
    await factory.assert_books_balance()


async def test_unknown_hold_is_not_found(service: Caller, factory: Factory, anonymous: Caller) -> None:
    wallet = await factory.wallet(10)
    for name in (NOBODY, "hld_x", "nothing", f"txn_{wallet}:1", f"hld_{wallet}:1", f"hld_{wallet}:99"):
        problem(await service.get(f"/v1/holds/{name}"), 404, "not-found")
        problem(await service.post(f"/v1/holds/{name}/capture", {"amount": 1}), 404, "not-found")
        problem(await service.post(f"/v1/holds/{name}/void"), 404, "not-found")
    missing = "mem_" + "0" * 32 + ":PTS"
    problem(await service.post("/v1/holds", {"wallet": missing, "amount": 1}), 404, "not-found")
    problem(await anonymous.post("/v1/holds", {"wallet": wallet, "amount": 1}), 401, "unauthenticated")
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0}, {"amount": -1}, {"amount": 1.0}, {"amount": "5"}, {"amount": True}, {"amount": 10**15 + 1}, {"amount": None},
        {"expires_in_seconds": 0}, {"expires_in_seconds": 90 * 86_400 + 1}, {"expires_in_seconds": None}, {"captured": 0},
        {"status": "held"}, {"wallet": 5},
    ],
)  # fmt: skip
async def test_bad_holds_are_refused(service: Caller, factory: Factory, change: dict[str, Any]) -> None:
    wallet = await factory.wallet(100)
    problem(await service.post("/v1/holds", {"wallet": wallet, "amount": 1, **change}), 422, "validation")
    assert await numbers(service, wallet) == (100, 0, 100)
    await factory.assert_books_balance()


async def test_a_wallet_has_a_bounded_number_of_holds(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1000)
    for _ in range(100):
        await make_hold(service, wallet, 1)
    problem(await service.post("/v1/holds", {"wallet": wallet, "amount": 1}), 409, "limit-reached")
    assert await numbers(service, wallet) == (1000, 100, 900)
    await factory.assert_books_balance()


async def test_concurrent_steps_on_one_hold_have_one_history(service: Caller, factory: Factory) -> None:
    """Fifty captures of 10 out of 100, with voids between them: never more than 100, and nothing after the end."""
    wallet = await factory.wallet(200)
    hold = (await make_hold(service, wallet, 100))["id"]
    asked = [service.post(f"/v1/holds/{hold}/capture", {"amount": 10}) for _ in range(50)]
    answers = await asyncio.gather(*asked)
    done = [answer for answer in answers if answer.status_code == 201]
    assert len(done) == 10
    assert {answer.json()["code"] for answer in answers if answer.status_code != 201} <= {"capture-limit", "invalid-state"}
    assert await numbers(service, wallet) == (100, 0, 100)
    second = (await make_hold(service, wallet, 50))["id"]
    voids = await asyncio.gather(*(service.post(f"/v1/holds/{second}/void") for _ in range(20)))
    assert sorted(answer.status_code for answer in voids) == [201] + [409] * 19
    assert await numbers(service, wallet) == (100, 0, 100)
    await factory.assert_books_balance()
