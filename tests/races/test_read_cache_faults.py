"""A store of copies that is killed, stopped, flushed, restarted, full, or loses its replies: reads stay right and quick, commits notice nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.ledger.models import Account
from guerdon.read_cache.breaker import FAILURES_MAX, PAUSE_SECONDS, ReadGate
from guerdon.read_cache.service import ReadCache
from guerdon.read_cache.store import QUEUE_MAX, CopyStore
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock
from tests.copies import client_of_store, patient_reads, settle, store_of
from tests.counter_store import Store
from tests.factories import Factory
from tests.serving import serve

WALLET = f"mem_{'1' * 32}:PTS"
READS = 60


class Relay:
    """A TCP relay to the store that can lose replies, cut connections, or refuse new ones."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.loses_replies = False
        self.url = ""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"valkey://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.sleep(0.01)

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # The store is down: the client finds its connection closed.
            writer.close()
            return
        self._writers |= {writer, forth}
        await asyncio.gather(self._pump(reader, forth), self._pump(back, writer, reply=True))
        self._writers -= {writer, forth}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reply: bool = False) -> None:
        try:
            while data := await reader.read(65_536):
                if not (reply and self.loses_replies):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.fixture
def patient() -> Iterator[None]:
    with patient_reads():
        yield


@pytest_asyncio.fixture
async def relay(store: Store) -> AsyncIterator[Relay]:
    relay = Relay(store.port)
    await relay.start()
    yield relay
    await relay.stop()


@pytest.fixture
def settings(cheap_settings: Settings, relay: Relay) -> Settings:
    return cheap_settings.model_copy(update={"cache": SecretStr(relay.url)})


async def read_and_debit(service: Caller, wallet: str, expected: int, count: int = 10) -> int:
    """Debit and read in turns, each with the `seq` of the debit, and return the balance. No answer is wrong, late or an error."""
    for _ in range(count):
        taken = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})
        assert taken.status_code == 201, taken.text
        expected -= 1
        headers = {"authorization": f"Bearer {service.token}", "if-seq-at-least": f"{wallet}:{taken.json()['seq']}"}
        seen = await service.client.get(f"/v1/wallets/{wallet}", headers=headers)
        assert seen.status_code == 200, seen.text
        assert seen.json()["balance"] == expected
    return expected


async def many_reads(service: Caller, wallets: Sequence[str]) -> set[int]:
    """The statuses of many reads at once."""
    answers = await asyncio.gather(*(service.get(f"/v1/wallets/{wallets[n % len(wallets)]}") for n in range(READS)))
    return {answer.status_code for answer in answers}


async def after_a_pause(clock: ManualClock, service: Caller, wallet: str, services: Services) -> None:
    """The store has returned: after the pause of the breaker, reads hit again. A busy machine may need more than 50 ms for one of them."""
    before = services.read_cache.results["hit"]
    for _ in range(20):
        clock.advance(seconds=2 * PAUSE_SECONDS + 0.1)
        assert (await service.get(f"/v1/wallets/{wallet}")).status_code == 200
        await settle(services.read_cache)
        if services.read_cache.results["hit"] > before:
            break
    assert services.read_cache.results["hit"] > before
    assert store_of(services.read_cache).breaker.state == "closed"


@pytest.mark.parametrize("fault", ["killed", "stopped", "silent", "cut", "unreachable"])
async def test_reads_and_debits_go_on_without_the_store(
    service: Caller, factory: Factory, services: Services, *, store: Store, relay: Relay, clock: ManualClock, fault: str
) -> None:
    wallet, second = await factory.wallet(1_000), await factory.wallet(5)
    await settle(services.read_cache)
    left = await read_and_debit(service, wallet, 1_000, 2)
    match fault:
        case "killed":
            store.kill()
        case "stopped":
            store.stop_answering()
        case "silent":
            relay.loses_replies = True
        case "cut":
            relay.cut()
        case _:
            await relay.stop()
    copies = store_of(services.read_cache)
    errors, began = copies.errors, time.monotonic()
    left = await read_and_debit(service, wallet, left)
    assert await many_reads(service, [wallet, second]) == {200}
    pauses = (time.monotonic() - began) / PAUSE_SECONDS
    if fault == "cut":
        assert copies.errors - errors <= FAILURES_MAX + pauses, "one lost connection is replaced"
    else:
        assert copies.breaker.state == "open"
        assert services.read_cache.results["unavailable"] > READS / 2
        assert copies.errors - errors <= FAILURES_MAX + 2 + pauses, "a store that fails is not asked for each read"
    await settle(services.read_cache)
    match fault:
        case "killed":
            store.start()
        case "stopped":
            store.answer_again()
        case "silent":
            relay.loses_replies = False
            relay.cut()
        case "unreachable":
            return
        case _:
            pass
    await after_a_pause(clock, service, wallet, services)
    left = await read_and_debit(service, wallet, left, 3)
    assert await factory.balance(wallet) == left
    await factory.assert_books_balance()


async def test_what_a_stopped_store_writes_late_is_too_old_to_be_used(
    service: Caller, factory: Factory, services: Services, store: Store, clock: ManualClock
) -> None:
    """The copy of the debit waits in the socket of a stopped store; it is written long after, with a time to live from then."""
    clock.stop()
    wallet = await factory.wallet(1_000)
    await settle(services.read_cache)
    store.stop_answering()
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).status_code == 201
    await settle(services.read_cache)
    clock.advance(seconds=120)
    store.answer_again()
    services.read_cache._floors.clear()
    assert (await service.get(f"/v1/wallets/{wallet}")).json()["balance"] == 999
    assert services.read_cache.results["hit"] == 0
    assert set(services.read_cache.results) <= {"expired", "miss", "unavailable"}


async def test_a_restarted_or_flushed_store_is_filled_again(
    service: Caller, factory: Factory, services: Services, store: Store, clock: ManualClock
) -> None:
    wallet = await factory.wallet(1_000)
    left = 1_000
    for restart in (False, True, False, True):
        if restart:
            store.kill()
            store.start()
        else:
            async with client_of_store(store) as client:
                await client.flushall()
        left = await read_and_debit(service, wallet, left, 3)
        await after_a_pause(clock, service, wallet, services)
    await factory.assert_books_balance()


async def test_a_full_store_that_evicts_or_refuses_writes_changes_no_answer(
    service: Caller, factory: Factory, services: Services, store: Store
) -> None:
    wallets = [await factory.wallet(1_000) for _ in range(3)]
    for policy in ("allkeys-lru", "noeviction"):
        async with client_of_store(store) as client:
            await client.config_set("maxmemory-policy", policy)
            await client.config_set("maxmemory", "1mb")
        balances = [int((await service.get(f"/v1/wallets/{wallet}")).json()["balance"]) for wallet in wallets]
        for wallet, balance in zip(wallets, balances, strict=True):
            await read_and_debit(service, wallet, balance, 4)
        await settle(services.read_cache)
    await factory.assert_books_balance()


async def test_two_processes_one_of_which_has_lost_the_store(
    database: Database, settings: Settings, store: Store, relay: Relay, clock: ManualClock
) -> None:
    """A partition: the copies of one process do not arrive. Readers of the other who name a `seq` still see every change."""
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(open_services(settings, clock))
        far = await stack.enter_async_context(open_services(settings.model_copy(update={"cache": SecretStr(store.url)}), clock))
        key = await near.access.create_key("shared", ["*"])
        writer, reader = [(await stack.enter_async_context(serve(each, settings, clock))).with_token(key) for each in (near, far)]
        factory = Factory(writer, near)
        wallet = await factory.wallet(1_000)
        await settle(near.read_cache)
        relay.loses_replies = True
        relay.cut()
        for expected in range(999, 979, -1):
            seq = (await writer.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).json()["seq"]
            headers = {"authorization": f"Bearer {key}", "if-seq-at-least": f"{wallet}:{seq}"}
            assert (await reader.client.get(f"/v1/wallets/{wallet}", headers=headers)).json()["balance"] == expected
            assert (await reader.get(f"/v1/wallets/{wallet}")).json()["balance"] == expected
        assert (await writer.get(f"/v1/wallets/{wallet}")).json()["balance"] == 980
        await factory.assert_books_balance()


async def test_a_stampede_reaches_the_database_in_a_bounded_number(store: Store, clock: ManualClock) -> None:
    store.kill()
    cache = ReadCache(
        CopyStore(store.url, "stampede", clock), clock, kind="wallet", gate=ReadGate(5, waiting_max=20, wait_seconds=5)
    )
    running = most = 0

    async def load() -> Account:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return Account(WALLET, WALLET[:36], "PTS", "wallet", balance=1, seq=1)

    results = await asyncio.gather(*(cache.get(WALLET, load) for _ in range(200)), return_exceptions=True)
    names = [type(result).__name__ for result in results]
    assert most == 5
    assert (names.count("Account"), names.count("Overloaded"), cache.refused) == (25, 175, 175)
    assert isinstance(await cache.get(WALLET, load), Account)
    await cache.close()


async def test_a_queue_of_copies_is_bounded_and_keeps_the_newest(store: Store, clock: ManualClock) -> None:
    """A stopped store and more commits than fit: further copies are dropped, and none of it takes time."""
    cache = ReadCache(CopyStore(store.url, "bounded", clock), clock, kind="wallet")
    accounts = [Account(f"mem_{n:032x}:PTS", f"mem_{n:032x}", "PTS", "wallet", balance=n, seq=1) for n in range(QUEUE_MAX + 500)]
    store.stop_answering()
    began = time.monotonic()
    cache.after_commit(accounts)
    assert time.monotonic() - began < 1
    await asyncio.sleep(0)
    copies = store_of(cache)
    assert len(copies._copies) <= QUEUE_MAX
    assert copies.dropped >= 500
    await settle(cache)
    assert (copies.written, copies.dropped) == (0, len(accounts))
    store.answer_again()
    await cache.close()


async def test_other_kinds_of_accounts_are_not_copied(store: Store, clock: ManualClock) -> None:
    cache = ReadCache(CopyStore(store.url, "kinds", clock), clock, kind="wallet")
    cache.after_commit([Account(f"cmp_{'1' * 32}:budget", f"cmp_{'1' * 32}", "PTS", "counter", seq=1)])
    await settle(cache)
    async with client_of_store(store) as client:
        assert await client.dbsize() == 0
    await cache.close()


async def test_reads_that_are_given_up_disturb_no_others(store: Store, clock: ManualClock, patient: None) -> None:
    """A caller who disconnects in the middle of an exchange: the reply is not taken for that of another wallet."""
    cache = ReadCache(CopyStore(store.url, "given-up", clock), clock, kind="wallet")
    accounts = [Account(f"mem_{n:032x}:PTS", f"mem_{n:032x}", "PTS", "wallet", balance=n, seq=1) for n in range(40)]
    cache.after_commit(accounts)
    await settle(cache)

    async def missing() -> Account | None:
        return None

    for turn in range(10):
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(cache.get(account.id, missing)) for account in accounts]
        for _ in range(turn):
            await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            result in (None, account)
            for result, account in zip(found, accounts, strict=True)
            if not isinstance(result, BaseException)
        )
    assert await cache.get(accounts[7].id, missing) == accounts[7]
    await cache.close()
