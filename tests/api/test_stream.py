"""A wallet's changes as server-sent events: each entry once, in order, whatever happens to the client, the feed or the primary."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from falcon.asgi import App

from guerdon.config import Settings
from guerdon.database import Database, PyMongoError
from guerdon.history.streams import RESUME_MAX, STREAM_SECONDS, Streams
from guerdon.ledger.models import Account, Entry
from guerdon.logs import make_logger
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, recheck_actor
from tests.api.test_access import log_in
from tests.clients import Caller, Log, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY, serve
from tests.streaming import Event, Stream, follow

WAIT_SECONDS = 30.0


def path_of(wallet: str) -> str:
    return f"/v1/wallets/{wallet}/stream"


async def first_of(stream: Stream) -> Event:
    event = await stream.next()
    assert event is not None
    return event


async def debit(caller: Caller, wallet: str, amount: int = 1) -> None:
    answer = await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": amount})
    assert answer.status_code == 201, answer.text


async def add_entries(caller: Caller, wallet: str, count: int) -> None:
    """So many credits of 1, in bulk."""
    for start in range(0, count, 1000):
        size = min(1000, count - start)
        commands = [{"type": "credit", "wallet": wallet, "amount": 1, "key": f"{wallet}-{start}-{n}"} for n in range(size)]
        results = (await caller.post("/v1/bulk", {"commands": commands})).json()["results"]
        assert {result["status"] for result in results} == {201}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"it did not happen within {WAIT_SECONDS} s"
        await asyncio.sleep(0.05)


async def until_watched(database: Database, count: int) -> None:
    """Return when the server has so many change streams."""

    async def reached() -> bool:
        running = await database.client.admin.aggregate([{"$currentOp": {"idleCursors": True}}])
        commands = [str(op.get("cursor", {}).get("originatingCommand")) async for op in running]
        return len([command for command in commands if "$changeStream" in command]) == count

    await until(reached)


async def until_open(streams: Streams, count: int) -> None:
    """Return when so many streams are open."""

    async def reached() -> bool:
        return len(streams) == count

    await until(reached)


AppWith = Callable[..., AbstractAsyncContextManager[tuple[App[Any, Any], Streams]]]


@pytest.fixture
def app_with(services: Services, settings: Settings, clock: ManualClock) -> AppWith:
    """Makes an application whose streams have other bounds."""

    @asynccontextmanager
    async def made(**options: Any) -> AsyncIterator[tuple[App[Any, Any], Streams]]:
        stand = recheck_actor(services.access, services.sessions)
        streams = Streams(services.wallets, database=services.database, clock=clock, recheck_actor=stand, **options)
        yield build_app(replace(services, streams=streams), settings, make_logger(clock, "info", Log())), streams
        await streams.close()

    return made


async def test_stream_starts_with_the_balance_and_continues_with_entries(
    app: App[Any, Any], service: Caller, factory: Factory
) -> None:
    wallet, other = await factory.wallet(100), await factory.wallet(5)
    async with follow(app, path_of(wallet), service.token) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert (stream.headers["cache-control"], stream.headers["x-accel-buffering"]) == ("no-store", "no")
        first = await first_of(stream)
        assert (first.name, first.id) == ("balance", "1")
        assert first.data == {"balance": 100, "held": 0, "available": 100, "seq": 1, "status": "open", "reset": False}
        await debit(service, other)
        await debit(service, wallet, 30)
        hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 20, "expires_in_seconds": 900})).json()["id"]
        events = await stream.take(2)
        items = (await service.get(f"/v1/wallets/{wallet}/entries", limit=2)).json()["items"]
        assert [event.data["entry"] for event in events] == items[::-1]
        assert [(event.name, event.seq) for event in events] == [("entry", 2), ("entry", 3)]
        assert [(e.data["balance"], e.data["held"], e.data["available"]) for e in events] == [(70, 0, 70), (70, 20, 50)]
        assert events[1].data["entry"]["hold"] == hold
    await factory.assert_books_balance()


async def test_a_member_follows_their_own_wallet_and_no_other(
    app: App[Any, Any], anonymous: Caller, service: Caller, factory: Factory
) -> None:
    member = await log_in(anonymous, "ada@example.com")
    own = await factory.wallet(7, member=(await member.get("/v1/me")).json()["id"])
    foreign, missing = await factory.wallet(7), f"{await factory.member()}:PTS"
    async with follow(app, path_of(own), member.token) as stream:
        assert (await first_of(stream)).data["balance"] == 7
        await debit(service, own)
        assert (await first_of(stream)).data["balance"] == 6
    answers = [problem(await member.get(path_of(wallet)), 404, "not-found") for wallet in (foreign, missing)]
    assert {**answers[0], "request_id": ""} == {**answers[1], "request_id": ""}
    problem(await service.get(path_of(f"{NOBODY}:PTS")), 404, "not-found")
    problem(await anonymous.get(path_of(own)), 401, "unauthenticated")
    await factory.assert_books_balance()


@pytest.mark.parametrize("value", ["", "-1", "1.5", "x", "0x1", "1 2", "9" * 13, "²", "$gt"])
async def test_malformed_last_event_id_is_refused(service: Caller, factory: Factory, value: str) -> None:
    wallet = await factory.wallet(1)
    headers = {b"authorization": f"Bearer {service.token}".encode(), b"last-event-id": value.encode()}
    problem(await service.client.get(path_of(wallet), headers=headers), 400, "bad-request")


async def test_an_unknown_parameter_is_refused(service: Caller, factory: Factory) -> None:
    refused = problem(await service.get(path_of(await factory.wallet(1)), since="1"), 422, "validation")
    assert refused["errors"][0]["pointer"] == "since"


async def test_stream_resumes_after_the_last_event_id(app: App[Any, Any], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    for _ in range(4):
        await debit(service, wallet)
    async with follow(app, path_of(wallet), service.token, last_event_id=2) as stream:
        assert [(event.name, event.seq) for event in await stream.take(3)] == [("entry", 3), ("entry", 4), ("entry", 5)]
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 6
    async with follow(app, path_of(wallet), service.token, last_event_id=6) as stream:
        await debit(service, wallet)
        event = await first_of(stream)
        assert (event.name, event.seq, event.data["balance"]) == ("entry", 7, 94)
    async with follow(app, path_of(wallet), service.token, last_event_id=0) as stream:
        assert [event.seq for event in await stream.take(7)] == list(range(1, 8))
    await factory.assert_books_balance()


async def test_client_too_far_behind_gets_the_newest_state(app: App[Any, Any], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    await add_entries(service, wallet, RESUME_MAX + 1)
    newest = RESUME_MAX + 2
    async with follow(app, path_of(wallet), service.token, last_event_id=newest - RESUME_MAX) as stream:
        assert [event.seq for event in await stream.take(RESUME_MAX)] == list(range(3, newest + 1))
    async with follow(app, path_of(wallet), service.token, last_event_id=newest - RESUME_MAX - 1) as stream:
        event = await first_of(stream)
        assert (event.name, event.seq, event.data["balance"], event.data["reset"]) == ("balance", newest, newest, True)
        await debit(service, wallet)
        event = await first_of(stream)
        assert (event.name, event.seq, event.data["balance"]) == ("entry", newest + 1, newest - 1)
    await factory.assert_books_balance()


@pytest.mark.parametrize("ahead", [1, 10**12 - 4])
async def test_last_event_id_ahead_of_the_wallet_gets_the_newest_state(
    app: App[Any, Any], service: Caller, factory: Factory, ahead: int
) -> None:
    """It is from another wallet, or from before the database was put back to an older state."""
    wallet = await factory.wallet(100)
    for _ in range(2):
        await debit(service, wallet)
    async with follow(app, path_of(wallet), service.token, last_event_id=3 + ahead) as stream:
        event = await first_of(stream)
        assert (event.name, event.seq, event.data["reset"]) == ("balance", 3, True)
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 4
    await factory.assert_books_balance()


@pytest_asyncio.fixture
async def elsewhere(service: Caller, other_services: Services, settings: Settings, clock: ManualClock) -> AsyncIterator[Caller]:
    """The same caller at another process."""
    assert service.token is not None
    async with serve(other_services, settings, clock) as caller:
        yield caller.with_token(service.token)


async def test_a_stream_resumed_while_two_processes_write_sees_each_entry_once(
    app: App[Any, Any], service: Caller, factory: Factory, elsewhere: Caller
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    wallet = await factory.wallet(1000)
    seen: list[int] = [1]

    async def write(caller: Caller, count: int) -> None:
        gate = asyncio.Semaphore(8)

        async def one() -> None:
            async with gate:
                await debit(caller, wallet)
                await asyncio.sleep(chance.uniform(0, 0.02))

        await asyncio.gather(*(one() for _ in range(count)))

    writers = asyncio.gather(write(service, 250), write(elsewhere, 250))
    connections = 0
    while seen[-1] < 501:
        connections += 1
        async with follow(app, path_of(wallet), service.token, last_event_id=seen[-1]) as stream:
            wanted = min(chance.randint(1, 40), 501 - seen[-1])
            seen += [event.seq for event in await stream.take(wanted)]
    await writers
    assert seen == list(range(1, 502)), f"seed {seed}"
    assert connections >= 13
    assert await factory.balance(wallet) == 500
    await factory.assert_books_balance()


async def test_a_client_that_reads_slowly_misses_nothing(app: App[Any, Any], service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    async with follow(app, path_of(wallet), service.token) as slow, follow(app, path_of(wallet), service.token) as quick:
        await first_of(quick)
        await add_entries(service, wallet, 350)
        assert [event.seq for event in await quick.take(350)] == list(range(2, 352))
        assert [event.seq for event in await slow.take(351)] == list(range(1, 352))
    await factory.assert_books_balance()


async def test_a_change_of_the_primary_loses_nothing(
    app: App[Any, Any], service: Caller, factory: Factory, database: Database
) -> None:
    wallet = await factory.wallet(100)
    async with follow(app, path_of(wallet), service.token) as stream:
        await first_of(stream)
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 2
        await database.client.admin.command({"replSetStepDown": 1, "secondaryCatchUpPeriodSecs": 0, "force": True})

        async def debited() -> bool:
            """The same key until it succeeds: while there is no primary an attempt may be answered 503."""
            return (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}, key="after")).status_code == 201

        await until(debited)
        await debit(service, wallet)
        assert [event.seq for event in await stream.take(2)] == [3, 4]
    await factory.assert_books_balance()


@asynccontextmanager
async def entries_out_of_reach(database: Database) -> AsyncIterator[None]:
    """For a while the name stands for a view that divides by zero: every read is refused, and a change stream cannot be opened on it."""
    await database.raw["entries"].rename("entries_aside")
    broken = [{"$project": {"x": {"$divide": [1, 0]}}}]
    await database.raw.command({"create": "entries", "viewOn": "entries_aside", "pipeline": broken})
    with pytest.raises(PyMongoError):
        await database.raw["entries"].find_one({})
    await database.client.admin.command({"killAllSessions": []})  # With them goes the cursor of the change stream.
    try:
        yield
    finally:
        await database.raw["entries"].drop()
        await database.raw["system.views"].drop()  # Other tests write to every collection that there is.
        await database.raw["entries_aside"].rename("entries")


async def test_entry_watcher_reopens_and_wakes_every_stream(
    app_with: AppWith, service: Caller, factory: Factory, database: Database
) -> None:
    """What is written before it is open again must arrive without waiting for a heartbeat."""
    wallet = await factory.wallet(100)
    async with (
        app_with(heartbeat_seconds=3600.0) as (app, _),
        follow(app, path_of(wallet), service.token) as stream,
    ):
        await first_of(stream)
        async with entries_out_of_reach(database):
            await asyncio.sleep(2)
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 2
        await until_watched(database, 1)
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 3
    await factory.assert_books_balance()


async def test_entry_watcher_runs_only_while_a_stream_is_open(
    app_with: AppWith, service: Caller, factory: Factory, database: Database
) -> None:
    wallet, other = await factory.wallet(100), await factory.wallet(100)
    await until_watched(database, 0)
    async with app_with(heartbeat_seconds=0.2) as (app, streams):
        async with follow(app, path_of(wallet), service.token) as one, follow(app, path_of(other), service.token) as two:
            for stream, followed in ((one, wallet), (two, other)):
                await first_of(stream)
                await debit(service, followed)
                await first_of(stream)
            await until_watched(database, 1)
            assert len(streams) == 2
        await until_open(streams, 0)
        await until_watched(database, 0)
        async with follow(app, path_of(wallet), service.token) as stream:
            await first_of(stream)
            await debit(service, wallet)
            assert (await first_of(stream)).seq == 3


async def test_a_quiet_stream_is_kept_open_by_comments(app_with: AppWith, service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    async with (
        app_with(heartbeat_seconds=0.05) as (app, _),
        follow(app, path_of(wallet), service.token) as stream,
    ):
        await first_of(stream)
        await asyncio.sleep(0.5)
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 2
        assert stream.comments >= 1


async def test_slot_of_a_disconnected_client_is_released(app_with: AppWith, service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    async with app_with(streams_max=2, heartbeat_seconds=0.05) as (app, streams):
        tasks = [follow(app, path_of(wallet), service.token) for _ in range(2)]
        opened = [await task.__aenter__() for task in tasks]
        for stream in opened:
            await first_of(stream)
        async with follow(app, path_of(wallet), service.token) as third:
            assert (third.status, third.headers["retry-after"]) == (503, "5")
            assert b'"code":"overloaded"' in await third.rest()
        opened[0].leave()
        await until_open(streams, 1)
        async with follow(app, path_of(wallet), service.token) as fourth:
            assert fourth.status == 200
        for task in tasks:
            await task.__aexit__(None, None, None)
        await until_open(streams, 0)


async def test_a_stream_ends_after_a_quarter_of_an_hour(
    app_with: AppWith, service: Caller, factory: Factory, clock: ManualClock
) -> None:
    wallet = await factory.wallet(100)
    async with (
        app_with(heartbeat_seconds=0.05) as (app, _),
        follow(app, path_of(wallet), service.token) as stream,
    ):
        await first_of(stream)
        clock.advance(seconds=STREAM_SECONDS - 60)
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 2
        clock.advance(seconds=60)
        assert await stream.next() is None


@pytest.mark.parametrize("how", ["disabled", "logged out", "demoted", "revoked"])
async def test_a_stream_ends_soon_after_its_caller_lost_the_right_to_it(
    app_with: AppWith, services: Services, service: Caller, factory: Factory, clock: ManualClock, *, how: str
) -> None:
    """Within a minute: half of one that a process may believe in a session, and a quarter of one between two looks."""
    wallet = await factory.wallet(1)
    key = await services.access.create_key("reader", ["wallets:read"])
    admin = {"email": "root@example.com", "password": "correct horse battery"}
    member = await services.members.create_operator(admin["email"], admin["password"], "support")
    async with app_with(heartbeat_seconds=0.05) as (app, _):
        tokens = (await service.post("/v1/auth/login", admin)).json()
        token = key if how == "revoked" else tokens["access_token"]
        async with follow(app, path_of(wallet), token) as stream:
            await stream.take(1)
            clock.advance(seconds=16)
            assert (await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1})).status_code == 201
            assert len(await stream.take(1)) == 1
            if how == "disabled":
                assert (await service.post(f"/v1/members/{member.id}/disable")).status_code == 200
            elif how == "demoted":
                assert (await service.put(f"/v1/members/{member.id}/role", {"role": "member"})).status_code == 200
            elif how == "logged out":
                body = {"refresh_token": tokens["refresh_token"]}
                assert (await service.post("/v1/auth/logout", body)).status_code == 204
            else:
                await services.access.revoke_key(key.split("_")[2])
            clock.advance(seconds=45)
            assert await stream.next() is None
    await factory.assert_books_balance()


async def test_a_process_that_stops_ends_its_streams(
    app: App[Any, Any], service: Caller, factory: Factory, services: Services
) -> None:
    wallet = await factory.wallet(100)
    async with follow(app, path_of(wallet), service.token) as one, follow(app, path_of(wallet), service.token) as two:
        await first_of(one)
        await first_of(two)
        await debit(service, wallet)
        services.streams.end()
        assert [(await first_of(stream)).seq for stream in (one, two)] == [2, 2]
        assert [await stream.next() for stream in (one, two)] == [None, None]
    problem(await service.get(path_of(wallet)), 503, "overloaded")


async def test_entry_committed_during_the_last_read_is_sent_before_the_end(
    app: App[Any, Any], service: Caller, factory: Factory, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read returns nothing, and before its answer is used an entry is committed and the process begins to stop."""
    wallet = await factory.wallet(100)
    read_after = vars(Streams)["_read_after"]
    late = True

    async def read_before_commit(streams: Streams, account: Account, seq: int) -> list[Entry] | None:
        nonlocal late
        entries = await read_after(streams, account, seq)
        if late:
            late = False
            await debit(service, wallet)
            streams.end()
        return entries

    monkeypatch.setattr(Streams, "_read_after", read_before_commit)
    async with follow(app, path_of(wallet), service.token) as stream:
        assert (await first_of(stream)).name == "balance"
        assert (await first_of(stream)).seq == 2
        assert await stream.next() is None


async def test_stream_survives_an_unresponsive_database(
    app_with: AppWith, service: Caller, factory: Factory, database: Database
) -> None:
    """Its reads fail for as long as the server refuses them; then it goes on where it was."""
    wallet = await factory.wallet(100)
    async with (
        app_with(heartbeat_seconds=0.1) as (app, _),
        follow(app, path_of(wallet), service.token) as stream,
    ):
        await first_of(stream)
        async with entries_out_of_reach(database):
            await asyncio.sleep(0.5)
        await debit(service, wallet)
        assert (await first_of(stream)).seq == 2
    await factory.assert_books_balance()
