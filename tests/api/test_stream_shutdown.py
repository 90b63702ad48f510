"""Streams of a real `guerdon up`: they carry what other processes write, and do not hold up the end of their own."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from guerdon.access.token_keys import TokenKeys
from guerdon.clock import SystemClock
from guerdon.config import Settings, load
from guerdon.http.idempotency import KeyedRequest
from guerdon.permissions import ANY_SCOPE, Actor
from guerdon.wallets.models import CreditCreate, DebitCreate
from guerdon.wiring.services import open_services
from tests.streaming import Event, parse
from tests.trust.deployment import Deployment

pytestmark = pytest.mark.timeout(300)
STOP_SECONDS_MAX = 30.0
"""The server kills its workers after 15 s, so a stream that did not end would show."""
WRITES = 20


async def events_of(answer: httpx.Response) -> AsyncIterator[Event]:
    """The events of a stream to its regular end; a cut connection raises."""
    text = b""
    async for piece in answer.aiter_bytes():
        text += piece
        *blocks, text = text.split(b"\n\n")
        for event in map(parse, blocks):
            if event is not None:
                yield event


async def write_from_another_process(deployment: Deployment, wallet: str) -> None:
    """The services of a process of its own on the same database, without HTTP in between."""
    async with open_services(settings_of(deployment), SystemClock()) as services:
        actor = Actor("key_writer", "service_key", frozenset({ANY_SCOPE}))
        for number in range(WRITES):
            await services.wallets.debit(KeyedRequest(actor, f"k-{number}", bytes(16)), wallet, DebitCreate(1))


def settings_of(deployment: Deployment) -> Settings:
    keys = (deployment.data_dir / "secrets" / "master_keys.json").read_text(encoding="utf-8")
    return load({}, mongodb_url=deployment.mongodb_url(), token_keys=TokenKeys.generate(), master_keys=keys)


async def open_wallet(deployment: Deployment) -> str:
    async with open_services(settings_of(deployment), SystemClock()) as services:
        member = await services.members.create_operator("stream@example.com", "correct horse battery", "operator")
        actor = Actor("key_writer", "service_key", frozenset({ANY_SCOPE}))
        wallet = f"{member.id}:PTS"
        await services.wallets.credit(KeyedRequest(actor, "open", bytes(16)), wallet, CreditCreate(1000))
        return wallet


async def test_streams_show_writes_of_other_processes_and_end_at_shutdown(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "data")
    await deployment.start()
    try:
        made = await deployment.command("keys", "create", "--name", "streams", "--scopes", "wallets:read")
        headers = {"authorization": f"Bearer {made.out.split()[-1]}"}
        wallet = await open_wallet(deployment)
        async with httpx.AsyncClient(base_url=deployment.url, headers=headers, timeout=30) as client, AsyncExitStack() as stack:
            path = f"/v1/wallets/{wallet}/stream"
            answers = [await stack.enter_async_context(client.stream("GET", path)) for _ in range(3)]
            feeds = [events_of(answer) for answer in answers]
            assert {(await anext(feed)).name for feed in feeds} == {"balance"}
            await write_from_another_process(deployment, wallet)
            for feed in feeds[:2]:
                assert [(await anext(feed)).seq for _ in range(WRITES)] == list(range(2, WRITES + 2))
            # The third reads nothing of it, and a fourth has gone.
            gone = await client.send(client.build_request("GET", path), stream=True)
            await gone.aclose()
            began = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(deployment.stop))
            assert [[event async for event in feed] for feed in feeds[:2]] == [[], []]
            assert await stopping == 0
            assert time.monotonic() - began < STOP_SECONDS_MAX
            assert len([event async for event in feeds[2]]) == WRITES
    finally:
        deployment.stop()
    assert b"Traceback" not in deployment.log.read_bytes()
