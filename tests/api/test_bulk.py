"""Bulk requests: each command its own outcome, or all of them together."""

from typing import Any

from tests.clients import Caller, problem
from tests.factories import Factory
from tests.serving import NOBODY

Command = dict[str, Any]


def command(kind: str, wallet: str, amount: int, key: str, **more: Any) -> Command:
    return {"type": kind, "wallet": wallet, "amount": amount, "key": key, **more}


async def run(service: Caller, commands: list[Command], *, atomic: bool = False) -> list[dict[str, Any]]:
    answer = await service.post("/v1/bulk", {"commands": commands, "atomic": atomic}, key=None)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    assert len(results) == len(commands)
    return results


def outcomes(results: list[dict[str, Any]]) -> list[tuple[int, str | None]]:
    """(status, code or None) of each result, each of them well-formed."""
    for result in results:
        problem_of = result.get("problem")
        assert (problem_of is None) == ("transaction" in result)
        if problem_of is not None:
            assert problem_of["status"] == result["status"]
            assert problem_of["type"] == f"/problems/{problem_of['code']}"
    return [(result["status"], result["problem"]["code"] if "problem" in result else None) for result in results]


async def test_every_command_has_its_own_outcome(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(10), await factory.wallet(5)
    results = await run(service, [
        command("debit", wallet, 4, "k1"),
        command("debit", wallet, 7, "k2"),
        command("transfer", wallet, 6, "k3", to=other),
        command("debit", f"{NOBODY}:PTS", 1, "k4"),
        command("credit", "nonsense", 1, "k5"),
        command("transfer", other, 1, "k6", to=other),
        command("credit", other, 1, "k7", reference="r", metadata={"a": "b"}),
    ])  # fmt: skip
    assert outcomes(results) == [
        (201, None), (409, "insufficient-funds"), (201, None), (404, "not-found"), (404, "not-found"), (422, "validation"), (201, None),
    ]  # fmt: skip
    assert (results[1]["problem"]["available"], results[1]["problem"]["needed"]) == (6, 7)
    assert (results[6]["transaction"]["reference"], results[6]["transaction"]["metadata"]) == ("r", {"a": "b"})
    assert (await factory.balance(wallet), await factory.balance(other)) == (0, 12)
    await factory.assert_books_balance()


async def test_commands_on_one_wallet_keep_their_order(service: Caller, factory: Factory) -> None:
    wallet = f"{await factory.member()}:PTS"
    results = await run(
        service, [command("credit", wallet, 10, "k1"), command("debit", wallet, 10, "k2"), command("debit", wallet, 1, "k3")]
    )
    assert outcomes(results) == [(201, None), (201, None), (409, "insufficient-funds")]
    assert [result["transaction"]["seq"] for result in results[:2]] == [1, 2]
    await factory.assert_books_balance()


async def test_a_debit_before_the_credit_that_opens_finds_no_wallet(service: Caller, factory: Factory) -> None:
    wallet = f"{await factory.member()}:PTS"
    results = await run(service, [command("debit", wallet, 1, "k1"), command("credit", wallet, 10, "k2")])
    assert outcomes(results) == [(404, "not-found"), (201, None)]
    await factory.assert_books_balance()


async def test_each_command_is_replayed_by_its_own_key(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    first = await run(service, [command("debit", wallet, 4, "k1"), command("debit", wallet, 100, "k2")])
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1000})
    again = await run(service, [
        command("debit", wallet, 100, "k2"), command("debit", wallet, 1, "k3"), command("debit", wallet, 4, "k1"),
    ])  # fmt: skip
    assert outcomes(again) == [(409, "insufficient-funds"), (201, None), (201, None)]
    assert [result.get("replayed", False) for result in again] == [True, False, True]
    assert again[2]["transaction"] == first[0]["transaction"]
    assert again[0]["problem"] == first[1]["problem"]
    assert await factory.balance(wallet) == 1005
    await factory.assert_books_balance()


async def test_a_key_with_other_content_is_refused_inside_its_result(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    await run(service, [command("debit", wallet, 4, "k1")])
    results = await run(
        service, [command("debit", wallet, 5, "k1"), command("credit", wallet, 4, "k1"), command("debit", wallet, 1, "k2")]
    )
    assert outcomes(results) == [(422, "idempotency-key-reused"), (422, "idempotency-key-reused"), (201, None)]
    assert await factory.balance(wallet) == 5
    await factory.assert_books_balance()


async def test_a_key_of_a_single_request_is_not_a_key_of_a_bulk_command(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 4}, key="k1")
    assert outcomes(await run(service, [command("debit", wallet, 4, "k1")])) == [(422, "idempotency-key-reused")]
    await factory.assert_books_balance()


async def test_the_same_key_twice_in_one_request_applies_once(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    results = await run(
        service, [command("debit", wallet, 4, "k1"), command("debit", wallet, 4, "k1"), command("debit", wallet, 3, "k1")]
    )
    assert outcomes(results) == [(201, None), (201, None), (422, "idempotency-key-reused")]
    assert results[1]["transaction"] == results[0]["transaction"]
    assert results[1]["replayed"]
    assert await factory.balance(wallet) == 6
    await factory.assert_books_balance()


async def test_a_thousand_commands_are_accepted_and_one_more_is_not(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1000)
    commands = [command("debit", wallet, 1, f"k{n}") for n in range(1001)]
    refused = problem(await service.post("/v1/bulk", {"commands": commands}), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/commands"
    assert await factory.balance(wallet) == 1000
    results = await run(service, commands[:1000])
    assert outcomes(results) == [(201, None)] * 1000
    assert [result["transaction"]["balance"] for result in results] == list(range(999, -1, -1))
    await factory.assert_books_balance()


async def test_no_commands_and_unknown_kinds_are_refused(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    refused = problem(await service.post("/v1/bulk", {"commands": []}), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/commands"
    refused = problem(await service.post("/v1/bulk", {"commands": [command("mint", wallet, 1, "k")]}), 422, "validation")
    assert refused["errors"][0]["pointer"].startswith("/commands/0")
    refused = problem(
        await service.post("/v1/bulk", {"commands": [command("debit", wallet, 1, "k", to=wallet)]}), 422, "validation"
    )
    assert refused["errors"][0]["pointer"] == "/commands/0/to"
    await factory.assert_books_balance()


async def test_bulk_body_above_the_default_limit_is_accepted(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1000)
    notes = {f"note-{n}": "x" * 200 for n in range(5)}
    commands = [command("debit", wallet, 1, f"k{n}", metadata=notes) for n in range(1000)]
    assert outcomes(await run(service, commands)) == [(201, None)] * 1000
    assert await factory.balance(wallet) == 0
    await factory.assert_books_balance()


async def test_a_body_above_two_mebibytes_is_refused(service: Caller) -> None:
    refused = problem(await service.send("POST", "/v1/bulk", b" " * (2 * 1024 * 1024 + 1)), 413, "body-too-large")
    assert refused["limit_bytes"] == 2 * 1024 * 1024


async def test_atomic_bulk_applies_all_commands(service: Caller, factory: Factory) -> None:
    wallet, other = f"{await factory.member()}:PTS", f"{await factory.member()}:PTS"
    commands = [
        command("credit", wallet, 10, "k1"),
        command("transfer", wallet, 7, "k2", to=other),
        command("debit", other, 7, "k3"),
    ]
    results = await run(service, commands, atomic=True)
    assert outcomes(results) == [(201, None)] * 3
    assert [result["transaction"]["kind"] for result in results] == ["credit", "transfer", "debit"]
    assert (await factory.balance(wallet), await factory.balance(other)) == (3, 0)
    again = await run(service, commands, atomic=True)
    assert [result["transaction"] for result in again] == [result["transaction"] for result in results]
    assert all(result["replayed"] for result in again)
    assert (await factory.balance(wallet), await factory.balance(other)) == (3, 0)
    await factory.assert_books_balance()


async def test_atomic_bulk_applies_nothing_and_names_the_refused_command(service: Caller, factory: Factory) -> None:
    wallet, other = await factory.wallet(10), f"{await factory.member()}:PTS"
    commands = [command("credit", other, 5, "k1"), command("debit", wallet, 11, "k2"), command("debit", wallet, 1, "k3")]
    results = await run(service, commands, atomic=True)
    assert outcomes(results) == [(409, "not-applied"), (409, "insufficient-funds"), (409, "not-applied")]
    assert results[1]["problem"]["needed"] == 11
    problem(await service.get(f"/v1/wallets/{other}"), 404, "not-found")
    assert await factory.balance(wallet) == 10
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 2})
    assert outcomes(await run(service, commands, atomic=True)) == [(201, None)] * 3
    assert (await factory.balance(wallet), await factory.balance(other)) == (0, 5)
    await factory.assert_books_balance()


async def test_atomic_bulk_names_a_missing_wallet_and_an_invalid_command(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    good = command("debit", wallet, 1, "k1")
    missing = await run(service, [good, command("debit", f"{NOBODY}:PTS", 1, "k2")], atomic=True)
    assert outcomes(missing) == [(409, "not-applied"), (404, "not-found")]
    itself = await run(service, [command("transfer", wallet, 1, "k2", to=wallet), good], atomic=True)
    assert outcomes(itself) == [(422, "validation"), (409, "not-applied")]
    assert await factory.balance(wallet) == 10
    await factory.assert_books_balance()


async def test_atomic_bulk_refuses_repeated_and_partly_used_keys(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    twice = await run(service, [command("debit", wallet, 1, "k1"), command("debit", wallet, 1, "k1")], atomic=True)
    assert outcomes(twice) == [(409, "not-applied"), (422, "idempotency-key-reused")]
    await run(service, [command("debit", wallet, 1, "k1")])
    mixed = await run(service, [command("debit", wallet, 1, "k2"), command("debit", wallet, 1, "k1")], atomic=True)
    assert outcomes(mixed) == [(409, "not-applied"), (422, "idempotency-key-reused")]
    assert await factory.balance(wallet) == 9
    await factory.assert_books_balance()


async def test_atomic_bulk_refuses_a_repeated_reference(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(10)
    commands = [command("debit", wallet, 1, "k1", reference="r"), command("debit", wallet, 1, "k2", reference="r")]
    assert outcomes(await run(service, commands, atomic=True)) == [(409, "not-applied"), (409, "reference-reused")]
    assert outcomes(await run(service, commands)) == [(201, None), (409, "reference-reused")]
    assert await factory.balance(wallet) == 9
    await factory.assert_books_balance()
