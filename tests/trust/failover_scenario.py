"""`guerdon serve` on three members under load, and the reckoning at the end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from guerdon.access.token_keys import TokenKeys
from guerdon.crypto.sealing import MasterKeys
from tests.trust.deployment import Server, operator
from tests.trust.load import BALANCE, MIXED, Load
from tests.trust.networks import Network
from tests.trust.replica_set import ReplicaSet, replica_set

CLIENTS, WALLETS = 8, 12
DEADLINE_MS = 8000
LATE_SECONDS = DEADLINE_MS / 1000 + 1


class Scene(NamedTuple):
    """A replica set, the servers on it, the load on them, and the member that was the primary at the beginning."""

    members: ReplicaSet
    servers: list[Server]
    load: Load
    primary: int


class Roles(NamedTuple):
    """What the clients do, and with what."""

    kinds: Sequence[str] = MIXED
    wallets: int = WALLETS
    balance: int = BALANCE


@asynccontextmanager
async def under_load(
    folder: Path, network: Network, seed: int, *, roles: Roles | None = None, minority: bool = False
) -> AsyncIterator[Scene]:
    """Two workers, and with `minority` two more, beside the primary and with half of the clients.

    At the end the load runs dry, everything that was promised is looked up, and every answer was in time.
    """
    roles = roles or Roles()
    async with replica_set(folder / "set", network) as members:
        primary = await members.primary()
        servers = await started(folder, members, [None, primary] if minority else [None])
        try:
            made = await operator(await members.primary_url(), "keys", "create", "--name", "load", "--scopes", "*")
            assert made.status == 0, made.err
            load = Load([server.url for server in servers], made.out.splitlines()[-1], seed, kinds=roles.kinds)
            load.wallets = await load.open_wallets(roles.wallets, roles.balance)
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(load.client(number))
                await load.more(100)
                yield Scene(members, servers, load, primary)
                await load.more(100)
                load.stop = True
            await load.assert_promises(await members.primary_url())
            verified = await operator(await members.primary_url(), "verify", "--json")
            assert (verified.status, verified.summary["violations"]) == (0, 0), verified.out
            assert [await server.stopped() for server in servers] == [0] * len(servers)
        finally:
            for server in servers:
                server.kill()
    late = [answer for answer in load.answers if answer.seconds > LATE_SECONDS]
    assert not late, (len(late), late[:5])


async def started(folder: Path, members: ReplicaSet, sides: Sequence[int | None]) -> list[Server]:
    """A `guerdon serve` with two workers on each side of a cut that may come."""
    settings = {
        "GUERDON_MONGODB_URL": members.url,
        "GUERDON_TOKEN_KEYS": TokenKeys.generate(),
        "GUERDON_MASTER_KEYS": MasterKeys.generate(),
        "GUERDON_LEDGER_DEADLINE_MS": str(DEADLINE_MS),
    }
    servers: list[Server] = []
    for number, side in enumerate(sides):
        prefix, host = members.network.side(side)
        log = folder / f"serve-{number}.log"
        servers.append(Server(log, ["serve", "--workers", "2"], settings, prefix=prefix, host=host))
    try:
        await asyncio.gather(*(server.start() for server in servers))
    except BaseException:
        for server in servers:
            server.kill()
        raise
    return servers
