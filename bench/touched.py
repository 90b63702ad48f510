"""`python -m bench.touched`: the files and functions of the product that one warm request runs through.

The application runs in this process, on a mongod of its own. Each request is sent several times before it is traced with `sys.setprofile`,
from the ASGI call to the end of its answer. Counted are the distinct Python functions defined under `src/guerdon`, with lambdas,
comprehensions and generator expressions, and the files that define them. Of several traces the shortest is taken: the others caught a
cache that was refreshed.
"""

import argparse
import asyncio
import io
import sys
import tempfile
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self, cast

import httpx
from msgspec import Struct

import guerdon
from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.clock import SystemClock
from guerdon.config import load
from guerdon.crypto.sealing import MasterKeys
from guerdon.logs import make_logger
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import open_services

PRODUCT = str(Path(guerdon.__file__).parent)
WARM_UP, TRACES = 5, 5
"""Requests of each kind before the first that is traced, and those that are traced."""
PASSWORD = "correct horse battery staple"


class Touched(Struct, frozen=True):
    """The functions that a request ran, as (file, qualified name)."""

    functions: frozenset[tuple[str, str]]

    @property
    def files(self) -> set[str]:
        return {file for file, _ in self.functions}


class Trace:
    """Collects the code objects that are run while it is entered, in every thread that begins meanwhile too."""

    def __init__(self) -> None:
        self._codes: set[CodeType] = set()

    def __enter__(self) -> Self:
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    @property
    def touched(self) -> Touched:
        ours = (code for code in self._codes if code.co_filename.startswith(PRODUCT))
        return Touched(frozenset((code.co_filename.removeprefix(PRODUCT + "/"), code.co_qualname) for code in ours))

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            self._codes.add(frame.f_code)


class Requests:
    """The four requests, each with what it needs to succeed every time."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._number = 0
        self._member = self._offer = ""

    async def prepare(self) -> None:
        """Create a member with a wallet and a password, a campaign and an offer."""
        self._member = (await self._send("/v1/members", {"external_id": "shopper"}))["id"]
        await self._send(f"/v1/wallets/{self._member}:PTS/credit", {"amount": 1_000_000})
        award = {"type": "per_amount", "points": 1, "per": 100}
        caps = [{"scope": "member", "period": "month", "limit": 1_000_000}]
        campaign = {"name": "points", "asset": "PTS", "event_types": ["purchase"], "award": award, "caps": caps}
        await self._activate("/v1/campaigns", {**campaign, "condition": "event.amount > 0"})
        value = {"type": "fixed", "amount": 500, "currency": "GBP"}
        price = {"asset": "PTS", "amount": 1}
        self._offer = await self._activate("/v1/offers", {"name": "off", "kind": "discount", "value": value, "price": price})
        await self._send("/v1/auth/register", {"email": "shopper@example.com", "password": PASSWORD})

    async def debit(self) -> None:
        await self._send(f"/v1/wallets/{self._member}:PTS/debit", {"amount": 1})

    async def event(self) -> None:
        await self._send(
            "/v1/events",
            {
                "id": f"order-{self._number}",
                "type": "purchase",
                "member": {"external_id": "shopper"},
                "occurred_at": "2026-01-31T12:00:00Z",
                "amount": 13912,
                "currency": "GBP",
                "items": [{"sku": "85123A", "quantity": 6, "unit_price": 255}],
            },
        )

    async def redeem(self) -> None:
        await self._send(f"/v1/offers/{self._offer}/redeem", {"member_id": self._member})

    async def log_in(self) -> None:
        await self._send("/v1/auth/login", {"email": "shopper@example.com", "password": PASSWORD})

    async def _activate(self, path: str, body: dict[str, Any]) -> str:
        made: str = (await self._send(path, body))["id"]
        await self._send(f"{path}/{made}/activate", None)
        return made

    async def _send(self, path: str, body: Any) -> Any:
        self._number += 1
        answer = await self._client.post(path, json=body, headers={"idempotency-key": f"touched-{self._number}"})
        if not answer.is_success:
            raise SystemExit(f"{path}: {answer.status_code} {answer.text}")
        return answer.json()


async def trace(send: Callable[[], Awaitable[None]]) -> Touched:
    """Return what one request runs through once everything is warm."""
    for _ in range(WARM_UP):
        await send()
    traces: list[Touched] = []
    for _ in range(TRACES):
        await asyncio.sleep(0.1)  # Background work of the request before is done.
        with Trace() as traced:
            await send()
        traces.append(traced.touched)
    return min(traces, key=lambda touched: len(touched.functions))


@asynccontextmanager
async def application(directory: Path) -> AsyncGenerator[httpx.AsyncClient]:
    """A client with a service key, of an application in this process on a mongod of its own."""
    mongo = embedded.start(directory)
    try:
        settings = load({}, mongodb_url=mongo.url, token_keys=TokenKeys.generate(), master_keys=MasterKeys.generate())
        async with open_services(settings, SystemClock()) as services:
            app = build_app(services, settings, make_logger(services.clock, "info", io.StringIO()))
            token = await services.access.create_key("touched", ["*"])
            headers = {"authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(cast(Any, app)), base_url="http://touched", headers=headers
            ) as client:
                yield client
    finally:
        mongo.stop()


async def run(*, names: bool) -> None:
    """Trace the four requests and print a line for each, with the functions where they are wanted."""
    with tempfile.TemporaryDirectory(prefix="guerdon-touched-") as directory:
        lock = embedded.DataDirLock.acquire(Path(directory), command="touched")
        try:
            async with application(Path(directory)) as client:
                requests = Requests(client)
                await requests.prepare()
                for send in (requests.debit, requests.event, requests.redeem, requests.log_in):
                    touched = await trace(send)
                    print(f"{send.__name__:8} {len(touched.files):4} files {len(touched.functions):4} functions")
                    if names:
                        print(*(f"    {file} {name}" for file, name in sorted(touched.functions)), sep="\n")
        finally:
            lock.release()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.touched", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="name the files and functions")
    asyncio.run(run(names=parser.parse_args().list))


if __name__ == "__main__":
    main()
