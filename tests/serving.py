"""Applications besides the fixture's own, as other processes would run them, and the table of an application's routes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from falcon.asgi import App

from guerdon.app import INDEXES, Services, build_app
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.http import Operation
from guerdon.logs import make_logger
from tests.clients import Caller, Log, ManualClock, client_of

NOBODY = "mem_" + "0" * 32


class Route(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    operation: Operation

    @property
    def url(self) -> str:
        """A well-formed address of something that does not exist."""
        filled = self.path.replace("{wallet_id}", f"{NOBODY}:PTS").replace("{member_id}", NOBODY)
        filled = filled.replace("{hold_id}", f"hld_{NOBODY}:PTS:1").replace("{transaction_id}", f"txn_{NOBODY}:PTS:1")
        filled = filled.replace("{month}", "2026-01")
        for name in ("{event_id}", "{campaign_id}", "{code}", "{name}", "{key_id}"):
            filled = filled.replace(name, "nothing")
        return filled


def routes_of(app: App[Any, Any]) -> list[Route]:
    """Every route that the application really serves, read from its router; Falcon's own inspection also reads every source file."""

    def below(nodes: list[Any]) -> Iterator[Any]:
        for node in nodes:
            yield node
            yield from below(node.children)

    return [
        Route(method, node.uri_template, handler.operation)
        for node in below(app._router._roots)
        for method, handler in (node.method_map or {}).items()
        if not handler.__module__.startswith("falcon.")
    ]


@asynccontextmanager
async def serve(services: Services, settings: Settings, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller without credentials of an application over `services`."""
    app = build_app(services, settings, make_logger(clock, "info", Log()))
    async with client_of(app) as client:
        yield Caller(client)


async def count_rows(database: Database) -> dict[str, int]:
    """How many documents each collection holds."""
    return {name: await database.raw[name].count_documents({}) for name in sorted(INDEXES)}
