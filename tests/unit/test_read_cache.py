"""Copies as bytes, the circuit breaker, and the bound on reads of the database."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.clock import SystemClock
from guerdon.errors import Overloaded, StartupRefused
from guerdon.ledger.models import Account, Hold, Limits, Lot, Spent
from guerdon.read_cache.breaker import FAILURES_MAX, PAUSE_SECONDS, CircuitBreaker, ReadGate
from guerdon.read_cache.copies import AGE_MS_MAX, COPY_BYTES_MAX, HEAD_BYTES, Copy, MalformedCopy, pack, unpack, usable_until
from guerdon.read_cache.store import CopyStore
from tests.clients import ManualClock

OWNER = "mem_" + "1" * 32
WALLET = f"{OWNER}:PTS"
NOW = 1_780_000_000_000
ACCOUNT = Account(WALLET, OWNER, "PTS", "wallet", balance=700, seq=9, head=bytes(range(32)))
RICH = msgspec.structs.replace(
    ACCOUNT,
    held=20,
    status="frozen",
    lots=(Lot(5, "promotional", None, NOW + 5), Lot(7, "paid", NOW + 9, None)),
    holds=(Hold(3, 30, 20, NOW + 60, 10, NOW, (Lot(2, "promotional", None, NOW + 70),)),),
    limits=Limits(100, None),
    spent=Spent("2026-11-22", "2026-11", 4, 5),
    due_at=NOW + 5,
)


@pytest.mark.parametrize("account", [ACCOUNT, RICH])
def test_copy_holds_every_field_of_an_account(account: Account) -> None:
    copy = Copy(account, NOW + 60_000)
    value = pack(copy)
    assert value is not None
    assert unpack(value, WALLET) == copy


def test_newer_copy_begins_with_the_larger_bytes() -> None:
    ordered = [(9, NOW), (9, NOW + 1), (10, NOW - 5), (999, 5), (10**11, NOW)]
    heads = [pack(Copy(msgspec.structs.replace(ACCOUNT, seq=seq), until)) for seq, until in ordered]
    beginnings = [head[:HEAD_BYTES] for head in heads if head is not None]
    assert len(beginnings) == 5
    assert sorted(beginnings) == beginnings


@settings(max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_other_bytes_are_refused_with_one_error(value: bytes, whole_head: bool) -> None:
    head = pack(Copy(ACCOUNT, NOW))
    assert head is not None
    with pytest.raises(MalformedCopy):
        unpack(head[:HEAD_BYTES] + value if whole_head else value, WALLET)


@settings(max_examples=300)
@given(st.integers(min_value=0, max_value=10_000), st.binary(min_size=1, max_size=4))
def test_damaged_copy_is_refused_or_still_the_same_account(position: int, other: bytes) -> None:
    """A copy carries no signature: damage inside of a number cannot be seen. Whoever can write to the store is trusted with what readers see."""
    value = pack(Copy(RICH, NOW))
    assert value is not None
    position %= len(value)
    damaged = value[:position] + other + value[position + len(other) :]
    try:
        copy = unpack(damaged, WALLET)
    except MalformedCopy:
        return
    assert (copy.account.id, copy.account.owner, copy.account.seq) == (WALLET, OWNER, int(damaged[:12]))


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deeply_nested_value_is_refused(depth: int) -> None:
    head = pack(Copy(ACCOUNT, NOW))
    assert head is not None
    nested = b"\x81\xa1x" + b"\x91" * min(depth, COPY_BYTES_MAX - 100) + b"\xc0"
    with pytest.raises(MalformedCopy):
        unpack(head[:HEAD_BYTES] + nested, WALLET)


def test_copy_of_another_account_is_refused() -> None:
    value = pack(Copy(ACCOUNT, NOW))
    assert value is not None
    with pytest.raises(MalformedCopy):
        unpack(value, f"mem_{'2' * 32}:PTS")
    with pytest.raises(MalformedCopy):
        unpack(b"000000000010" + value[12:], WALLET)


def test_large_account_is_not_copied() -> None:
    lots = tuple(Lot(1, "paid", None, NOW + number) for number in range(3_000))
    assert pack(Copy(msgspec.structs.replace(ACCOUNT, lots=lots), NOW)) is None


def test_copy_ends_with_its_age_or_with_what_the_ledger_books_next() -> None:
    assert usable_until(ACCOUNT, NOW, 0) == NOW + AGE_MS_MAX
    assert usable_until(ACCOUNT, NOW, 4_000) == NOW + AGE_MS_MAX - 4_000
    assert usable_until(RICH, NOW, 0) == NOW + 5


def test_breaker_opens_after_failures_in_a_row_and_tries_once_in_a_pause() -> None:
    clock = ManualClock(SystemClock())
    breaker = CircuitBreaker(clock)
    for _ in range(FAILURES_MAX - 1):
        breaker.failed()
    breaker.succeeded()
    for _ in range(FAILURES_MAX - 1):
        breaker.failed()
    assert breaker.state == "closed"
    assert breaker.allows()
    breaker.failed()
    assert (breaker.state, breaker.allows()) == ("open", False)
    clock.advance(seconds=2 * PAUSE_SECONDS + 0.1)
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.failed()
    assert not breaker.allows()
    clock.advance(seconds=2 * PAUSE_SECONDS + 0.1)
    assert breaker.allows()
    breaker.succeeded()
    assert (breaker.state, breaker.allows(), breaker.opened) == ("closed", True, 1)


async def test_gate_bounds_what_runs_and_what_waits() -> None:
    gate = ReadGate(2, waiting_max=3, wait_seconds=30)
    running = most = 0
    go_on = asyncio.Event()

    async def read() -> str:
        nonlocal running, most
        async with gate.slot():
            running += 1
            most = max(most, running)
            await go_on.wait()
            running -= 1
            return "read"

    tasks = [asyncio.create_task(read()) for _ in range(8)]
    await asyncio.wait(tasks[5:])
    assert gate.refused == 3
    tasks[2].cancel()
    go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each).__name__ for each in results] == ["str", "str", "CancelledError", "str", "str", *["Overloaded"] * 3]
    assert all(each.retry_after_seconds == 1 for each in results if isinstance(each, Overloaded))
    assert (most, running) == (2, 0)
    assert await asyncio.gather(read(), read()) == ["read", "read"], "each slot was given back"


async def test_read_that_waits_too_long_is_refused() -> None:
    gate = ReadGate(1, waiting_max=3, wait_seconds=0.01)
    async with gate.slot():
        with pytest.raises(Overloaded):
            async with gate.slot():
                raise AssertionError
    async with gate.slot():
        pass


@pytest.mark.parametrize(
    "url",
    ["", "http://127.0.0.1", "127.0.0.1:6379", "valkey//x", "valkey://u:s3cret-of-the-store@h:notaport/0", "valkeys://h/0?db=x"],
)
def test_invalid_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(StartupRefused, match="GUERDON_CACHE") as refused:
        CopyStore(url, "test", SystemClock())
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["valkeys", "rediss"])
async def test_tls_checks_the_name_of_the_host(scheme: str) -> None:
    store = CopyStore(f"{scheme}://user:word@store.example:6380/3", "test", SystemClock())
    connection = store._client.connection_pool.make_connection()
    assert (connection.host, connection.port, connection.db) == ("store.example", 6380, 3)
    assert (connection.check_hostname, connection.cert_reqs) == (True, 2)
    await store.close()
