"""IN-3: bodies that want to be too much, through a real socket: refused early, with little read, little kept, and the process alive."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import pytest_asyncio

from tests.trust.figures import record
from tests.trust.groups import ALONE
from tests.trust.load import Load, report
from tests.trust.slow_clients import watched
from tests.trust.test_slow_clients import serving

pytestmark = [pytest.mark.trust, pytest.mark.timeout(600), ALONE]
SEED = 20_261_123
MIB = 1024 * 1024
PIECE, PAUSE_SECONDS, ANSWER_SECONDS = 16 * 1024, 0.003, 10.0
"""The pauses let the answer arrive before the next piece leaves."""
CAP, BULK_CAP, SPARE = 256 * 1024, 2 * MIB, 64 * 1024
GROWTH_MIB, TIMES, AT_ONCE = 32.0, 20, 8


class Heard(NamedTuple):
    """The status of the first answer (0: closed without one), how much was sent until then, and whether the connection was closed in time."""

    status: int
    sent: int
    closed: bool


class Hostile(NamedTuple):
    """A request: its path, its framing headers, its body in pieces, the statuses that refuse it, and how much of it may be read."""

    path: str
    headers: str
    body: Callable[[], Iterable[bytes]]
    statuses: set[int]
    sent_max: int


def pieces(whole: bytes) -> Iterable[bytes]:
    return (whole[start : start + PIECE] for start in range(0, len(whole), PIECE))


def chunked(total: int) -> Iterable[bytes]:
    for _ in range(total // PIECE):
        yield b"%x\r\n%s\r\n" % (PIECE, b" " * PIECE)
    yield b"0\r\n\r\n"


def sized(whole: bytes) -> str:
    return f"Content-Length: {len(whole)}\r\n"


def cases(wallet: str) -> dict[str, Hostile]:
    credit, bulk = f"/v1/wallets/{wallet}/credit", "/v1/bulk"
    bomb = gzip.compress(b" " * (10 * MIB))
    deep, items = b"[" * 100_000, b'{"commands": [' + b"1," * 999_999 + b"1]}"
    keys = json.dumps({f"k{number}": 1 for number in range(100_000)}).encode()
    chunks, good = "Transfer-Encoding: chunked\r\n", b'{"amount": 1}'
    return {
        "10 MB": Hostile(credit, f"Content-Length: {10 * MIB}\r\n", lambda: pieces(b" " * (10 * MIB)), {413}, SPARE),
        "10 MB of a bulk": Hostile(bulk, f"Content-Length: {10 * MIB}\r\n", lambda: pieces(b" " * (10 * MIB)), {413}, SPARE),
        "100 MB in chunks": Hostile(credit, chunks, lambda: chunked(100 * MIB), {413}, CAP + SPARE),
        "100 MB of a bulk in chunks": Hostile(bulk, chunks, lambda: chunked(100 * MIB), {413}, BULK_CAP + SPARE),
        "a length that is too long": Hostile(credit, "Content-Length: 500\r\n", lambda: [good, b""], {400}, SPARE),
        "a length that is too short": Hostile(credit, "Content-Length: 5\r\n", lambda: [good], {400}, SPARE),
        "a length of nothing": Hostile(credit, "Content-Length: -1\r\n", lambda: [good], {0, 400}, SPARE),
        "two lengths": Hostile(credit, "Content-Length: 13\r\nContent-Length: 12\r\n", lambda: [good], {0, 400}, SPARE),
        "a length beside chunks": Hostile(credit, f"Content-Length: 5\r\n{chunks}", lambda: [b"zz\r\n"], {0, 400}, SPARE),
        "a gzip bomb": Hostile(credit, f"{sized(bomb)}Content-Encoding: gzip\r\n", lambda: pieces(bomb), {415}, len(bomb)),
        "depth 100,000": Hostile(credit, sized(deep), lambda: pieces(deep), {400}, len(deep)),
        "1,000,000 items": Hostile(bulk, sized(items), lambda: pieces(items), {422}, len(items)),
        "100,000 keys": Hostile(bulk, sized(keys), lambda: pieces(keys), {400}, len(keys)),
    }


async def send(port: int, token: str, hostile: Hostile) -> Heard:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=MIB)
    head = f"POST {hostile.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {os.urandom(8).hex()}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\n{hostile.headers}\r\n".encode())
    answer = asyncio.create_task(reader.readline())
    sent = 0
    try:
        for piece in hostile.body():
            if answer.done():
                break
            if not piece:
                writer.write_eof()
                break
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            await asyncio.sleep(PAUSE_SECONDS)
    except ConnectionError:
        pass  # It has stopped listening, and may have said why.
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            line = (await answer).split()
    except ConnectionError:
        line = []
    closed = await ended(reader)
    writer.transport.abort()
    return Heard(int(line[1]) if line else 0, sent, closed)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection, once there is nothing more to be said."""
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(0.5):
            while await reader.read(PIECE):
                pass
        return True
    return False


class House(NamedTuple):
    port: int
    url: str
    token: str
    wallet: str
    pids: list[int]


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with serving(tmp_path) as (server, _, token):
        [wallet] = await Load([server.url], token, SEED).open_wallets(1, 10**6)
        yield House(server.port, server.url, token, wallet, sorted(server.pids()))


async def test_hostile_bodies_are_refused_early_with_little_memory(house: House) -> None:
    async with httpx.AsyncClient(base_url=house.url, timeout=30, headers={"authorization": f"Bearer {house.token}"}) as client:
        before = (await client.get(f"/v1/wallets/{house.wallet}")).json()
        for name, hostile in cases(house.wallet).items():
            with watched(house.pids) as memory:
                one_by_one = [await send(house.port, house.token, hostile) for _ in range(TIMES)]
                at_once = await asyncio.gather(*(send(house.port, house.token, hostile) for _ in range(AT_ONCE)))
                await asyncio.sleep(0.3)
            heard = [*one_by_one, *at_once]
            # What is sent before the answer arrives is at least what was read; on a busy machine it may be much more.
            least = min(each.sent for each in one_by_one)
            told = {
                "statuses": sorted({each.status for each in heard}),
                "sent": least,
                "closed": sum(each.closed for each in heard),
            }
            record(f"IN-3 {name}: growth of the process", f"{memory.growth:.0f} MiB", f"< {GROWTH_MIB:.0f} MiB")
            report(name, SEED, **told, rss_mib=[round(memory.before), round(memory.peak)])
            assert {each.status for each in heard} <= hostile.statuses, (name, told)
            assert least <= hostile.sent_max + PIECE + 32, (name, told)
            assert memory.growth < GROWTH_MIB, (name, memory.growth)
            assert (await client.get("/health/live")).status_code == 200
        assert (await client.get(f"/v1/wallets/{house.wallet}")).json() == before
