"""Thousands of callers at the same moment, over raw sockets: a client library would cost more than the service under test."""

import asyncio
import math
import random
import resource
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

ANSWER_SECONDS = 130.0
CONNECTING_AT_ONCE = 200


class Answer(NamedTuple):
    """`code` is the problem's code, or empty."""

    status: int
    code: str
    seconds: float
    retry_after: str = ""


class Caller(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._began = 0.0
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._began = time.monotonic()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        lines = bytes(self._buffer[:head]).lower().split(b"\r\n")
        [length] = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
        if len(self._buffer) < head + 4 + length or self._answer is None or self._answer.done():
            return
        body = bytes(self._buffer[head + 4 :])
        self._buffer.clear()
        code = body.partition(b'"code":"')[2].partition(b'"')[0].decode()
        later = "".join(line.partition(b":")[2].strip().decode() for line in lines if line.startswith(b"retry-after:"))
        self._answer.set_result(Answer(int(lines[0][9:12]), code, time.monotonic() - self._began, later))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(Answer(0, "connection lost", time.monotonic() - self._began))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def debit(wallet: str, token: str, key: str) -> bytes:
    """The bytes of a debit of one unit."""
    head = f"POST /v1/wallets/{wallet}/debit HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    return f'{head}Content-Type: application/json\r\nContent-Length: 12\r\nIdempotency-Key: {key}\r\n\r\n{{"amount":1}}'.encode()


def transfer(source: str, target: str, token: str, key: str) -> bytes:
    """Return the bytes of a transfer of one unit."""
    body = f'{{"from":"{source}","to":"{target}","amount":1}}'
    return (
        f"POST /v1/transfers HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def callers(port: int, count: int) -> list[Caller]:
    """So many open connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard > count + 100, f"{count} connections need more than {hard} open files"
    gate, loop = asyncio.Semaphore(CONNECTING_AT_ONCE), asyncio.get_running_loop()

    async def connect() -> Caller:
        async with gate:
            return (await loop.create_connection(Caller, "127.0.0.1", port))[1]

    return await asyncio.gather(*(connect() for _ in range(count)))


async def all_at_once(crowd: Sequence[Caller], requests: Sequence[bytes]) -> list[Answer]:
    """Each caller sends one request, at the same moment."""
    async with asyncio.timeout(ANSWER_SECONDS):
        return await asyncio.gather(*(caller.send(request) for caller, request in zip(crowd, requests, strict=True)))


async def steadily(caller: Caller, requests: Sequence[bytes], chance: random.Random, over: asyncio.Event) -> list[Answer]:
    """One caller after whose every answer some tenths of a second pass, until it is over."""
    answers: list[Answer] = []
    for request in requests:
        await asyncio.sleep(chance.uniform(0.1, 0.3))
        if over.is_set():
            break
        answers.append(await caller.send(request))
    return answers


def tally(answers: Sequence[Answer]) -> Counter[tuple[int, str]]:
    return Counter((answer.status, answer.code) for answer in answers)


def percentiles(answers: Sequence[Answer]) -> dict[str, Any]:
    """In milliseconds, by nearest rank."""
    times = sorted(answer.seconds * 1000 for answer in answers)
    return {f"p{share}_ms": round(times[max(math.ceil(share / 100 * len(times)) - 1, 0)]) for share in (50, 99, 100)}
