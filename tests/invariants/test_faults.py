"""TXN-1 and TXN-2: whatever the server or the wire does to one command, a key ends as one entry and the books stay clean."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from guerdon.clock import SystemClock
from guerdon.config import Settings, load
from guerdon.ledger.store import ENTRIES
from guerdon.logs import make_logger
from guerdon.verification.service import verify
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, Log, problem
from tests.invariants.balance_model import Answer, Spec
from tests.invariants.conftest import DEADLINE_MS
from tests.invariants.faults import FailPoints, lossy_wire
from tests.invariants.movements import IS_ENTRY, answer, fresh_key, open_wallets

COMMANDS = ("aggregate", "insert", "update", "commitTransaction")
FAULTS: dict[str, dict[str, Any]] = {
    "write-conflict": {"errorCode": 112},
    "shutdown": {"errorCode": 91},
    "not-primary": {"errorCode": 10107},
    "stepped-down": {"errorCode": 11602},
    "closed": {"closeConnection": True},
    "blocked": {"blockConnection": True, "blockTimeMS": 1000},
}
MAY_ANSWER = {None, "outcome-unknown", "database-unavailable", "overloaded"}
NOTHING_DONE = {"database-unavailable", "overloaded"}
GRACE_SECONDS = 8.0
"""A busy machine answers late; without a deadline of its own an answer would take the 20 s of the driver or longer."""


async def assert_clean(services: Services) -> None:
    report = await verify(services.database)
    assert report.violations == 0, report.first


async def entries_of(services: Services, spec: Spec) -> int:
    owner, _, _ = spec.wallet.partition(":")
    return await services.database.raw[ENTRIES].count_documents({"owner": owner, "key": spec.key, **IS_ENTRY})


async def ask_in_time(services: Services, spec: Spec) -> Answer:
    """An answer, which must come within the deadline and be a success or an honest problem."""
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE_MS / 1000 + GRACE_SECONDS):
        got = await answer(services, spec)
    assert time.monotonic() - began < DEADLINE_MS / 1000 + GRACE_SECONDS
    assert got.code in MAY_ANSWER
    return got


async def ask_until_done(services: Services, spec: Spec) -> Answer:
    """What a well-behaved client does: the same key again until the answer is definite."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        got = await answer(services, spec)
        if got.code not in NOTHING_DONE | {"outcome-unknown"}:
            return got
    raise AssertionError("the fault is over, but no definite answer comes")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
async def test_key_takes_effect_once_despite_a_fault_in_one_command(
    faulty: Services, points: FailPoints, command: str, fault: str
) -> None:
    """TXN-2: once and twice in a row; the wallet pays exactly once for each key."""
    [wallet] = await open_wallets(faulty, 1, 100)
    for place, times in enumerate((1, 2), start=1):
        spec = Spec("debit", wallet, 10, fresh_key())
        if command == "aggregate" or times > 1:
            faulty.ledger._committer._kept.drop([wallet])  # A kept account is not read.
        await points.fail(command, times=times, **FAULTS[fault])
        got = await ask_in_time(faulty, spec)
        assert 1 <= await points.stop() <= times
        if got.code in NOTHING_DONE:
            assert await entries_of(faulty, spec) == 0
        final = await ask_until_done(faulty, spec)
        assert (final.code, final.after) == (None, (100 - 10 * place, 1 + place))
        assert got.code is not None or got.after == final.after
        assert await entries_of(faulty, spec) == 1
    await assert_clean(faulty)


@pytest.mark.parametrize("code", [64, 91, 11602])
async def test_commit_reported_as_failed_takes_effect_once(faulty: Services, points: FailPoints, code: int) -> None:
    [wallet] = await open_wallets(faulty, 1, 100)
    spec = Spec("debit", wallet, 10, fresh_key())
    error = {"code": code, "errmsg": "waiting for replication"}
    await points.fail("commitTransaction", times=2, writeConcernError=error)
    got = await ask_in_time(faulty, spec)
    assert await points.stop() >= 1
    final = await ask_until_done(faulty, spec)
    assert (final.code, final.after, final.replayed) == (None, (90, 2), True)
    assert got.code in (None, "outcome-unknown")
    assert await entries_of(faulty, spec) == 1
    await assert_clean(faulty)


async def test_commits_with_lost_replies_take_effect_once(
    faulty: Services, faulty_port: int, token_keys: str, master_keys: str
) -> None:
    """TXN-1: the server commits, the wire swallows the reply, 8 times; every debit is there once."""
    [wallet] = await open_wallets(faulty, 1, 8)
    async with lossy_wire(faulty_port) as (wire, port):
        url = f"mongodb://127.0.0.1:{port}/?directConnection=true&heartbeatFrequencyMS=500"
        settings = load({}, mongodb_url=url, token_keys=token_keys, master_keys=master_keys, ledger_deadline_ms=DEADLINE_MS)
        async with open_services(settings, SystemClock()) as services:
            for number in range(8):
                spec = Spec("debit", wallet, 1, fresh_key())
                wire.lose_replies_to(b"commitTransaction", times=1)
                got = await ask_in_time(services, spec)
                final = await ask_until_done(services, spec)
                assert (final.code, final.after) == (None, (7 - number, 2 + number))
                assert got.code is not None or got.after == final.after
                assert await entries_of(faulty, spec) == 1
            assert wire.lost == 8
    await assert_clean(faulty)


async def test_unknown_commit_is_reported_and_found_by_a_repeated_request(
    faulty: Services, faulty_port: int, token_keys: str, master_keys: str
) -> None:
    """No reply to any commit until the deadline: the answer is `outcome-unknown`; the repetition tells what happened."""
    [wallet] = await open_wallets(faulty, 1, 5)
    async with lossy_wire(faulty_port) as (wire, port):
        url = f"mongodb://127.0.0.1:{port}/?directConnection=true&heartbeatFrequencyMS=500"
        settings = load({}, mongodb_url=url, token_keys=token_keys, master_keys=master_keys, ledger_deadline_ms=500)
        async with open_services(settings, SystemClock()) as services:
            spec = Spec("debit", wallet, 1, fresh_key())
            wire.lose_replies_to(b"commitTransaction", times=10**9)
            assert (await ask_in_time(services, spec)).code == "outcome-unknown"
            assert wire.lost >= 1
            wire.lose_replies_to(b"", times=0)
            assert await ask_until_done(services, spec) == Answer(None, (4, 2), replayed=True)
    assert await entries_of(faulty, spec) == 1
    await assert_clean(faulty)


async def test_a_key_has_one_answer_even_when_a_refusal_is_slow(
    faulty: Services, other_faulty: Services, points: FailPoints
) -> None:
    """One process refuses a key for lack of funds and is held up before it writes that down; funds come, and the same key succeeds in
    another process. Both must not become true: whoever was refused must not have paid."""
    [wallet] = await open_wallets(faulty, 1, 5)
    spec = Spec("debit", wallet, 10, fresh_key())
    await points.fail("insert", blockConnection=True, blockTimeMS=1500, namespace="guerdon.entries")
    slow = asyncio.ensure_future(answer(faulty, spec))
    await points.fired(1)
    assert (await answer(other_faulty, Spec("credit", wallet, 10, fresh_key()))).code is None
    quick = await answer(other_faulty, spec)
    answers = [quick, await slow, await answer(faulty, spec), await answer(other_faulty, spec)]
    paid = await entries_of(faulty, spec)
    assert {each.code for each in answers} == ({None} if paid else {"insufficient-funds"}), answers
    await assert_clean(faulty)


@pytest.mark.parametrize("fault", ["closed", "not-primary"])
async def test_failed_read_returns_503(faulty: Services, faulty_settings: Settings, points: FailPoints, fault: str) -> None:
    """Outside of the ledger too, a database that does not answer is an operational problem, not a fault of ours."""
    [wallet] = await open_wallets(faulty, 1, 5)
    key = await faulty.access.create_key("tests", ["*"])
    app = build_app(faulty, faulty_settings, make_logger(SystemClock(), "info", Log()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
        caller = Caller(client, key)
        assert (await caller.get(f"/v1/wallets/{wallet}")).status_code == 200
        await points.fail("find", times=50, **FAULTS[fault])
        response = await caller.get(f"/v1/wallets/{wallet}")
        assert await points.stop() >= 1
        problem(response, 503, "database-unavailable")


async def test_embedded_mongod_aborts_abandoned_transactions_soon(services: Services) -> None:
    """A process that is killed between its insert and its commit leaves a transaction open, and with it the next entry of its wallets
    taken: nobody can move them until the server gives up on it, by default after 60 s."""
    reply = await services.database.client.admin.command({"getParameter": 1, "transactionLifetimeLimitSeconds": 1})
    assert reply["transactionLifetimeLimitSeconds"] <= 10
