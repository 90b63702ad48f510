"""Random interleavings of commits, reads that fill the cache late, lost copies, expiry, flushes and time, on a real store.

Two processes share the store. The model is a list of all states of the account, so the right answer is known for each `seq`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from valkey import Valkey

from guerdon.clock import SystemClock
from guerdon.ledger.models import Account
from guerdon.read_cache.copies import AGE_MS_MAX
from guerdon.read_cache.service import ReadCache
from guerdon.read_cache.store import CopyStore
from tests.clients import ManualClock
from tests.copies import settle, store_of
from tests.counter_store import Store

OWNER = "mem_" + "7" * 32
WALLET = f"{OWNER}:PTS"
PROCESSES = 2
process = st.integers(0, PROCESSES - 1)
Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), process, st.sampled_from(["copied", "copied", "lost"])),
        st.tuples(st.just("read"), process, st.sampled_from(["anything", "known", "newest"])),
        st.tuples(st.sampled_from(["begin", "look"]), process, st.sampled_from(["anything", "known", "newest"])),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["expire", "flush", "poison", "restart"])),
        st.tuples(st.just("wait"), st.sampled_from([1, 30_000, AGE_MS_MAX + 1, AGE_MS_MAX + 1])),
        st.tuples(st.just("settle"), process),
    ),
    min_size=10,
    max_size=40,
)


class Begun(NamedTuple):
    """A read in progress: its result, what releases its read of the database, and what the result must satisfy."""

    task: asyncio.Task[Account | None]
    go_on: asyncio.Event
    at_least: int
    """The `seq` that the reader named."""
    known: int
    """The newest `seq` that this process had committed or read before."""
    fresh: int
    """The `seq` of the ledger as long ago as a copy may be old."""


class World:
    """The ledger as a list of states, two caches over one store, and the reads in progress."""

    def __init__(self, url: str, client: Any) -> None:
        self.clock = ManualClock(SystemClock())
        self.clock.stop()
        self.client = client
        self.caches = [ReadCache(CopyStore(url, "property", self.clock), self.clock, kind="wallet") for _ in range(PROCESSES)]
        self.states = [Account(WALLET, OWNER, "PTS", "wallet", balance=0, seq=1)]
        self.times = [self.clock.now_ms()]
        self.known = [0] * PROCESSES
        self.begun: list[tuple[int, Begun]] = []
        self.reads = 0

    def seq_at(self, at_ms: int) -> int:
        return max((state.seq for state, since in zip(self.states, self.times, strict=True) if since <= at_ms), default=0)

    async def run(self, step: Step) -> None:
        match step:
            case ("commit", int(by), how):
                newest = self.states[-1]
                self.states.append(msgspec.structs.replace(newest, seq=newest.seq + 1, balance=newest.balance + 7 * newest.seq))
                self.times.append(self.clock.now_ms())
                if how == "copied":
                    self.caches[by].after_commit([self.states[-1]])
                    await asyncio.sleep(0)
                    self.known[by] = self.states[-1].seq
            case ("read" | "begin" | "look", int(by), asked):
                await self.begin(by, asked, looks=step[0] == "look")
                if step[0] == "read":
                    await self.finish(len(self.begun) - 1)
            case ("finish", int(index)):
                await self.finish(index)
            case ("settle", int(by)):
                await settle(self.caches[by])
            case ("wait", int(milliseconds)):
                self.clock.offset_ms += milliseconds
            case _:
                self.disturb(step[0])

    async def begin(self, by: int, asked: str, *, looks: bool) -> None:
        """Begin a read. If it `looks`, it has also read the database, unless a copy was enough."""
        at_least = {"anything": 0, "known": self.known[by], "newest": self.states[-1].seq}[asked]
        go_on, looked = asyncio.Event(), asyncio.Event()

        async def load() -> Account:
            state = self.states[-1]
            looked.set()
            await go_on.wait()
            return state

        fresh = self.seq_at(self.clock.now_ms() - AGE_MS_MAX)
        task = asyncio.create_task(self.caches[by].get(WALLET, load, at_least=at_least))
        self.begun.append((by, Begun(task, go_on, at_least, self.known[by], fresh)))
        await asyncio.sleep(0)
        if looks:
            looking = asyncio.create_task(looked.wait())
            await asyncio.wait([task, looking], return_when=asyncio.FIRST_COMPLETED)
            looking.cancel()

    async def finish(self, index: int) -> None:
        if index >= len(self.begun):
            return
        by, begun = self.begun.pop(index)
        begun.go_on.set()
        account = await begun.task
        assert account is not None
        assert account.seq >= begun.at_least, "a reader saw a state before the seq that it named"
        assert account.seq >= begun.known, "a process went back behind what it had committed or read"
        assert account.seq >= begun.fresh, "a copy was older than copies may be"
        assert account == self.states[account.seq - 1], "a reader saw what the ledger did not have at that seq"
        self.known[by] = max(self.known[by], account.seq)
        self.reads += 1

    def disturb(self, how: str) -> None:
        key = store_of(self.caches[0]).key_of(WALLET)
        match how:
            case "expire":
                self.client.delete(key)
            case "poison":
                self.client.set(key, b"%012d|%015d|nothing" % (10**11, 10**14))
            case "restart":  # The scripts are gone as well.
                self.client.flushall()
                self.client.script_flush()
            case _:
                self.client.flushall()

    async def end(self) -> None:
        for _, begun in self.begun:
            begun.task.cancel()
        for cache in self.caches:
            await settle(cache)
            await cache.close()


@asynccontextmanager
async def a_world(store: Store, client: Any) -> AsyncIterator[World]:
    world = World(store.url, client)
    try:
        yield world
        for index in reversed(range(len(world.begun))):
            await world.finish(index)
    finally:
        await world.end()


@pytest.fixture
def raw(store: Store) -> Iterator[Any]:
    client = Valkey(port=store.port)
    yield client
    client.close()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_reader_goes_back_and_none_sees_what_was_never_there(store: Store, raw: Any, steps: list[Step]) -> None:
    async def play() -> None:
        raw.flushall()
        async with a_world(store, raw) as world:
            for step in steps:
                await world.run(step)

    asyncio.run(play())


def test_the_age_of_a_copy_counts_from_the_read_of_the_database(store: Store, raw: Any) -> None:
    """Neither a fill that comes late nor a store that keeps copies too long makes a copy younger."""

    async def play() -> None:
        for late in (True, False):
            raw.flushall()
            async with a_world(store, raw) as world:
                first = [("look", 0, "anything")] if late else [("read", 0, "anything"), ("settle", 0)]
                for step in (*first, ("commit", 1, "lost"), ("wait", AGE_MS_MAX + 1), ("finish", 0), ("settle", 0)):
                    await world.run(step)
                await world.run(("read", 1, "anything"))
                assert world.caches[1].results["hit"] == 0

    asyncio.run(play())


def test_the_late_fill_of_an_old_state_does_not_replace_a_newer_copy(store: Store, raw: Any) -> None:
    """The order that invalidation gets wrong: read the old state, commit and copy the new one, and only then fill."""

    async def play() -> None:
        async with a_world(store, raw) as world:
            for step in (("look", 0, "anything"), ("commit", 1, "copied"), ("settle", 1), ("finish", 0), ("settle", 0)):
                await world.run(step)
            value = raw.get(store_of(world.caches[0]).key_of(WALLET))
            assert value.startswith(b"000000000002|")
            await world.run(("read", 0, "newest"))
            assert world.caches[0].results["hit"] == 1

    asyncio.run(play())


def test_the_late_fill_after_a_flush_is_refused_to_readers_who_know_better(store: Store, raw: Any) -> None:
    async def play() -> None:
        async with a_world(store, raw) as world:
            for step in (
                ("look", 0, "anything"),
                ("commit", 1, "copied"),
                ("settle", 1),
                ("flush",),
                ("finish", 0),
                ("settle", 0),
            ):
                await world.run(step)
            assert raw.get(store_of(world.caches[0]).key_of(WALLET)).startswith(b"000000000001|")
            await world.run(("read", 1, "known"))
            await world.run(("read", 0, "newest"))
            assert [cache.results["stale"] for cache in world.caches] == [0, 1]
            assert world.caches[0].results["hit"] == 1, "the reader with a floor has left the newer copy"

    asyncio.run(play())
