"""Holds, captures, voids and reversals inside bulk requests: the same decisions as alone, in order, or all of them together."""

from typing import Any

from tests.api.test_bulk import Command, command, outcomes, run
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY


def on_hold(kind: str, hold: str, key: str, **more: Any) -> Command:
    return {"type": kind, "hold": hold, "key": key, **more}


def reverse(transaction: str, key: str, **more: Any) -> Command:
    return {"type": "reverse", "transaction": transaction, "key": key, **more}


async def test_hold_is_created_captured_and_voided_in_one_request(service: Caller, factory: Factory) -> None:
    """The id of a hold is known beforehand: the wallet and the number of its entry."""
    wallet = await factory.wallet(100)
    hold, other = f"hld_{wallet}:2", f"hld_{wallet}:5"
    results = await run(service, [
        command("hold", wallet, 60, "k1", expires_in_seconds=60, reference="order-1", metadata={"till": "4"}),
        on_hold("capture", hold, "k2", amount=20, reference="part-1"),
        on_hold("capture", hold, "k3", amount=50),
        on_hold("capture", hold, "k4", final=True, amount=10),
        command("hold", wallet, 30, "k5"),
        on_hold("void", f"hld_{wallet}:6", "k6", reason="order cancelled"),
        on_hold("void", hold, "k7"),
        on_hold("capture", other, "k8"),
    ])  # fmt: skip
    assert outcomes(results) == [
        (201, None), (201, None), (409, "capture-limit"), (201, None), (201, None), (201, None), (409, "invalid-state"), (404, "not-found"),
    ]  # fmt: skip
    made = results[0]["transaction"]
    assert (made["kind"], made["amount"], made["balance"], made["available"]) == ("hold", 0, 100, 40)
    assert made["hold"] == {"id": hold, "status": "held", "amount": 60, "captured": 0, "left": 60}
    assert (made["reference"], made["metadata"]) == ("order-1", {"till": "4"})
    assert (results[2]["problem"]["left"], results[2]["problem"]["needed"]) == (40, 50)
    ended = results[3]["transaction"]["hold"]
    assert (ended["status"], ended["captured"], ended["left"]) == ("captured", 30, 0)
    voided = results[5]["transaction"]
    assert (voided["kind"], voided["hold"]["status"], voided["reason"]) == ("void", "voided", "order cancelled")
    assert (await service.get(f"/v1/holds/{hold}")).json()["captured"] == 30
    state = (await service.get(f"/v1/wallets/{wallet}")).json()
    assert (state["balance"], state["held"], state["available"]) == (70, 0, 70)
    await factory.assert_books_balance()


async def test_transactions_are_reversed_in_part_and_whole(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(100), await factory.wallet(5)
    first = await run(service, [command("debit", wallet, 40, "k1"), command("transfer", wallet, 30, "k2", to=other)])
    debit, transfer = (result["transaction"]["id"] for result in first)
    results = await run(service, [
        reverse(debit, "r1", amount=10, reason="returned goods"),
        reverse(debit, "r2", amount=31),
        reverse(debit, "r3"),
        reverse(transfer, "r4"),
        reverse(transfer, "r5"),
        reverse(f"txn_{wallet}:3", "r6"),
        reverse(f"txn_{NOBODY}:PTS:1", "r7"),
        reverse("txn_nothing", "r8"),
        reverse(f"txn_{other}:2", "r9"),
    ])  # fmt: skip
    assert outcomes(results) == [
        (201, None), (409, "reversal-limit"), (201, None), (201, None), (409, "reversal-limit"), (409, "reversal-limit"),
        (404, "not-found"), (404, "not-found"), (404, "not-found"),
    ]  # fmt: skip
    assert [results[at]["transaction"]["amount"] for at in (0, 2, 3)] == [10, 30, 30]
    assert (results[0]["transaction"]["reverses"], results[0]["transaction"]["reason"]) == (debit, "returned goods")
    assert (await factory.balance(wallet), await factory.balance(other)) == (100, 5)
    await factory.assert_books_balance()


async def test_refused_reversals_are_told_as_alone(service: Caller, factory: Factory) -> None:
    """A transaction that moved no value, one of a voucher, spent value, and a transaction of the same request."""
    wallet = await factory.wallet(100)
    offer = await factory.offer(price={"asset": "PTS", "amount": 10})
    voucher = await factory.voucher(offer, wallet.partition(":")[0])
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 5})).json()
    commands = [
        reverse(hold["transaction_id"], "r1"),
        reverse(voucher["transaction_id"], "r2"),
        reverse(f"txn_{wallet}:1", "r3"),
        command("debit", wallet, 1, "d1"),
        reverse(f"txn_{wallet}:4", "r4"),
    ]
    assert outcomes(await run(service, commands)) == [
        (409, "not-reversible"), (409, "not-reversible"), (409, "insufficient-funds"), (201, None), (404, "not-found"),
    ]  # fmt: skip
    assert outcomes(await run(service, [reverse(f"txn_{wallet}:4", "r4")])) == [(201, None)], (
        "the request before did not use the key"
    )
    await factory.assert_books_balance()


async def test_limits_and_lots_apply_as_alone(service: Caller, clock: ManualClock, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    until = "2998-01-01T00:00:00Z"
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 50, "expires_at": until})
    await service.put(f"/v1/wallets/{wallet}/terms", {"day_limit": 60})
    results = await run(service, [
        command("hold", wallet, 50, "k1"),
        command("hold", wallet, 11, "k2"),
        on_hold("void", f"hld_{wallet}:4", "k3"),
        command("hold", wallet, 11, "k4"),
    ])  # fmt: skip
    assert outcomes(results) == [(201, None), (409, "limit-reached"), (201, None), (201, None)]
    assert [lot["expires_at"] for lot in results[0]["transaction"]["lots"]] == ["2998-01-01T00:00:00.000Z"]
    clock.advance(seconds=901)
    assert outcomes(await run(service, [on_hold("capture", f"hld_{wallet}:6", "k5")])) == [(409, "invalid-state")]
    await factory.assert_books_balance()


async def test_each_kind_is_replayed_by_its_own_key(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    commands = [
        command("hold", wallet, 60, "k1"),
        on_hold("capture", f"hld_{wallet}:2", "k2", amount=20),
        on_hold("void", f"hld_{wallet}:2", "k3"),
        reverse(f"txn_{wallet}:1", "k4", amount=1),
        on_hold("capture", f"hld_{wallet}:2", "k5"),
    ]
    first = await run(service, commands)
    assert outcomes(first) == [(201, None)] * 4 + [(409, "invalid-state")]
    again = await run(service, commands)
    assert [{**result, "replayed": True} for result in first] == again
    changed = [{**each, "reason": "another one"} for each in commands]
    assert outcomes(await run(service, changed)) == [(422, "idempotency-key-reused")] * 5
    reference = [command("hold", wallet, 1, "k6", reference="r"), command("hold", wallet, 1, "k7", reference="r")]
    assert outcomes(await run(service, reference)) == [(201, None), (409, "reference-reused")]
    await factory.assert_books_balance()


async def test_atomic_request_of_every_kind_is_applied_whole(service: Caller, factory: Factory) -> None:
    """Each command sees those before it: two captures and a void of one hold, two reversals of one transaction, a wallet just opened."""
    wallet, fresh = await factory.wallet(100), f"{await factory.member()}:PTS"
    commands = [
        command("hold", wallet, 60, "k1"),
        on_hold("capture", f"hld_{wallet}:2", "k2", amount=20),
        on_hold("capture", f"hld_{wallet}:2", "k3", amount=15, final=True),
        command("transfer", wallet, 5, "k4", to=fresh),
        command("hold", fresh, 5, "k5"),
        on_hold("void", f"hld_{fresh}:2", "k6"),
        reverse(f"txn_{wallet}:1", "k7", amount=10),
        reverse(f"txn_{wallet}:1", "k8", amount=20),
        command("debit", wallet, 30, "k9"),
    ]
    results = await run(service, commands, atomic=True)
    assert outcomes(results) == [(201, None)] * 9
    assert [result["transaction"]["kind"] for result in results] == [
        "hold", "capture", "capture", "transfer", "hold", "void", "reversal", "reversal", "debit",
    ]  # fmt: skip
    assert (await factory.balance(wallet), await factory.balance(fresh)) == (0, 5)
    again = await run(service, commands, atomic=True)
    assert [{**result, "replayed": True} for result in results] == again
    reversed_ = (await service.get(f"/v1/transactions/txn_{wallet}:1")).json()
    assert (reversed_["reversed"], reversed_["left"]) == (30, 70)
    await factory.assert_books_balance()


async def test_refused_command_leaves_an_atomic_request_undone(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 50})).json()["id"]
    good = [on_hold("capture", hold, "k1", amount=30), command("hold", wallet, 10, "k2")]
    for last, code in (
        (on_hold("capture", hold, "k3", amount=21), "capture-limit"),
        (command("hold", wallet, 41, "k3"), "insufficient-funds"),
        (reverse(f"txn_{wallet}:1", "k3"), "insufficient-funds"),
        (reverse("txn_nothing", "k3"), "not-found"),
        (on_hold("void", "hld_nothing", "k3"), "not-found"),
        (on_hold("void", hold, "k1"), "idempotency-key-reused"),
        ({**command("hold", wallet, 1, "k3"), "reference": "once"}, None),
    ):
        if code is None:
            twice = [{**good[1], "reference": "once"}, last]
            assert [each for _, each in outcomes(await run(service, twice, atomic=True))] == ["not-applied", "reference-reused"]
        else:
            results = outcomes(await run(service, [*good, last], atomic=True))
            assert [each for _, each in results] == ["not-applied", "not-applied", code]
    state = (await service.get(f"/v1/wallets/{wallet}")).json()
    assert (state["balance"], state["held"], state["seq"]) == (100, 50, 2)
    assert (await service.get(f"/v1/holds/{hold}")).json()["captured"] == 0
    assert outcomes(await run(service, good, atomic=True)) == [(201, None)] * 2, "no key was used"
    await factory.assert_books_balance()


async def test_wrong_fields_name_their_command(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    for wrong, pointer in (
        ({"type": "capture", "wallet": wallet, "key": "k"}, "/commands/1/hold"),
        ({"type": "void", "hold": "nothing", "key": "k"}, "/commands/1/hold"),
        ({"type": "reverse", "transaction": f"hld_{wallet}:1", "key": "k"}, "/commands/1/transaction"),
        ({"type": "hold", "wallet": wallet, "amount": 0, "key": "k"}, "/commands/1/amount"),
        ({"type": "hold", "wallet": wallet, "amount": 1, "expires_in_seconds": 0, "key": "k"}, "/commands/1/expires_in_seconds"),
        ({"type": "void", "hold": f"hld_{wallet}:1"}, "/commands/1/key"),
        ({"type": "release", "hold": f"hld_{wallet}:1", "key": "k"}, "/commands/1/type"),
    ):
        refused = problem(
            await service.post("/v1/bulk", {"commands": [command("debit", wallet, 1, "d"), wrong]}), 422, "validation"
        )
        assert pointer in [error["pointer"] for error in refused["errors"]], refused
    assert await factory.balance(wallet) == 100
    await factory.assert_books_balance()


async def test_dry_run_of_every_kind_sees_the_commands_before(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    commands = [
        command("hold", wallet, 60, "k1"),
        on_hold("capture", f"hld_{wallet}:2", "k2", amount=20),
        on_hold("void", f"hld_{wallet}:2", "k3"),
        reverse(f"txn_{wallet}:1", "k4", amount=81),
        reverse(f"txn_{wallet}:1", "k5"),
    ]
    for atomic, wanted in ((False, [200, 200, 200, 409, 409]), (True, [409, 409, 409, 409, 409])):
        answer = await service.post("/v1/bulk?dry_run=true", {"commands": commands, "atomic": atomic}, key=None)
        results = answer.json()["results"]
        assert [result["status"] for result in results] == wanted
        if not atomic:
            assert results[0]["transaction"]["hold"] == {"status": "held", "amount": 60, "captured": 0, "left": 60}
            assert results[2]["transaction"]["balance"] == 80
    assert (await service.get(f"/v1/wallets/{wallet}")).json()["seq"] == 1
    await factory.assert_books_balance()
