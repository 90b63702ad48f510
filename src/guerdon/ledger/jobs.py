"""Background job of the ledger: book holds and lots that have expired."""

from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import GuerdonError
from guerdon.ledger.models import Command, Decision, View
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import ACCOUNTS

SWEEP_BATCH, PASSES_MAX = 500, 200
SWEEP_EVERY_MS = 2000


async def sweep(ledger: Ledger, database: Database, clock: Clock) -> int:
    """Book expired holds and lots, and return the number of accounts. Balances are right without it: reads apply expiry themselves."""
    swept = 0
    for _ in range(PASSES_MAX):
        where = {"due_at": {"$lte": clock.now_ms()}}
        found = database.raw[ACCOUNTS].find(where, {"owner": 1}, limit=SWEEP_BATCH).sort("due_at")
        commands = [_expiry_command(str(row["_id"]), str(row["owner"])) async for row in found]
        results = await ledger.submit_all(commands) if commands else []
        refused = [result for result in results if isinstance(result, GuerdonError)]
        if refused:
            raise refused[0]
        swept += len(commands)
        if len(commands) < SWEEP_BATCH:
            break
    return swept


def _expiry_command(account_id: str, owner: str) -> Command:
    def decide(view: View) -> Decision:
        return Decision(accounts_to_expire=(account_id,))

    return Command((owner,), (account_id,), decide)
