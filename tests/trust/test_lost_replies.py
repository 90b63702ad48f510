"""TXN-1 at full scale: the wire swallows the replies to commits; 1,000 debits are asked for until they are answered, and are there once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from guerdon.access.token_keys import TokenKeys
from guerdon.crypto.sealing import MasterKeys
from tests.invariants.faults import LossyWire, lossy_wire, started_mongod
from tests.trust.deployment import Server, operator
from tests.trust.figures import record
from tests.trust.load import Load, report

DEBITS, WALLETS, CLIENTS = 1000, 50, 20
SEED = 20_261_126
DEADLINE_MS = 500
"""Shorter than what a lost reply costs (the driver looks for the server anew, at most twice a second), so that clients have to repeat."""
LOSE_EVERY = 8
LOSSES_MIN = 50
pytestmark = [pytest.mark.trust, pytest.mark.timeout(300)]


@asynccontextmanager
async def lossy_service(folder: Path) -> AsyncIterator[tuple[LossyWire, str, Load]]:
    """`guerdon serve` with two workers behind a wire, the way around the wire, and clients."""
    with started_mongod(folder / "mongod") as port:
        direct = f"mongodb://127.0.0.1:{port}/?directConnection=true"
        async with lossy_wire(port) as (wire, lossy_port):
            settings = {
                "GUERDON_MONGODB_URL": f"mongodb://127.0.0.1:{lossy_port}/?directConnection=true",
                "GUERDON_TOKEN_KEYS": TokenKeys.generate(),
                "GUERDON_MASTER_KEYS": MasterKeys.generate(),
                "GUERDON_LEDGER_DEADLINE_MS": str(DEADLINE_MS),
            }
            server = Server(folder / "serve.log", ["serve", "--workers", "2"], settings)
            try:
                await server.start()
                made = await operator(direct, "keys", "create", "--name", "load", "--scopes", "*")
                assert made.status == 0, made.err
                yield wire, direct, Load([server.url], made.out.splitlines()[-1], SEED)
                assert await server.stopped() == 0
            finally:
                server.kill()


async def test_a_thousand_debits_with_lost_replies_take_effect_once(tmp_path: Path) -> None:
    """Each wallet holds exactly what is debited from it: a debit too many would be refused, and one too few would leave something."""
    async with lossy_service(tmp_path) as (wire, direct, load):
        wallets = await load.open_wallets(WALLETS, DEBITS // WALLETS)
        todo = iter(range(DEBITS))

        async def client() -> None:
            async with load.session(0) as session:
                for number in todo:
                    if number % LOSE_EVERY == 0:
                        wire.lose_replies_to(b"commitTransaction", times=1)
                    path = f"/v1/wallets/{wallets[number % WALLETS]}/debit"
                    assert await load.move(session, path, {"amount": 1}, f"debit-{number}")

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await load.assert_promises(direct)
        async with load.session(0) as session:
            left = {(await session.get(f"/v1/wallets/{wallet}")).json()["balance"] for wallet in wallets}
        verified = await operator(direct, "verify", "--json")
    record("TXN-1 debits done once", f"{len(load.acknowledged) - WALLETS} of {DEBITS}", DEBITS)
    record("TXN-1 lost replies", wire.lost, f">= {LOSSES_MIN}")
    assert len(load.acknowledged) == WALLETS + DEBITS
    assert left == {0}
    assert (verified.status, verified.summary["violations"]) == (0, 0), verified.out
    assert wire.lost >= LOSSES_MIN
    assert load.said()["503 outcome-unknown"] > 0
    report("TXN-1", SEED, debits=DEBITS, lost_replies=wire.lost, **load.facts())
