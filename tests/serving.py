"""Applications besides the fixture's own, as other processes would run them, and the table of an application's routes."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from string import Formatter
from typing import Any, NamedTuple

from falcon.asgi import App

from guerdon.collections import INDEXES
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.http.operation import Operation
from guerdon.logs import make_logger
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services
from tests.clients import Caller, Log, ManualClock, client_of

NOBODY = "mem_" + "0" * 32
OWNED = {
    "member_id": NOBODY, "wallet_id": f"{NOBODY}:PTS", "hold_id": f"hld_{NOBODY}:PTS:1", "transaction_id": f"txn_{NOBODY}:PTS:1",
    "event_id": "nothing", "session_id": f"{NOBODY}:000000000000", "code": "nothing",
}  # fmt: skip
"""For the parameters of paths that name what belongs to a member: a well-formed name of nothing. A new parameter is put here or below."""
MISSING = {
    **OWNED,
    "campaign_id": "nothing",
    "export_id": "nothing",
    "simulation_id": "nothing",
    "offer_id": "nothing",
    "pair": "PTS-NOTHING",
    "asset": "NOTHING",
    "run_id": "nothing",
    "group": "nothing",
    "segment": "nothing",
    "batch_id": "nothing",
    "key_id": "nothing",
    "code": "nothing",
    "name": "nothing",
    "month": "2026-01",
    "account": "system:nothing",
}


class Route(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    operation: Operation

    @property
    def url(self) -> str:
        """A well-formed address of something that does not exist."""
        return self.url_of({})

    def url_of(self, ids: Mapping[str, str]) -> str:
        """The address of these things; what is not among them does not exist."""
        return self.path.format_map({**MISSING, **ids})

    @property
    def parameters(self) -> list[str]:
        return [name for _, name, _, _ in Formatter().parse(self.path) if name]


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
