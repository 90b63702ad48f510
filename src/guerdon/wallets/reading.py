"""Reads of a wallet that may be answered from a copy. They are for callers who look at a wallet; no command uses them."""

import re
from functools import partial

from falcon.asgi import Request

from guerdon.errors import BadRequest
from guerdon.ledger.service import Ledger
from guerdon.permissions import Actor
from guerdon.read_cache.service import ReadCache
from guerdon.wallets.models import WALLET_ID, WalletState
from guerdon.wallets.rules import missing_wallet
from guerdon.wallets.service import Wallets, parse_wallet_id

AT_LEAST_HEADER = "If-Seq-At-Least"
AT_LEAST_MAX = 100
"""Maximum number of wallets that one header names."""
_SEQ = re.compile(r"[0-9]{1,12}\Z")


class WalletReads:
    """Queries on single wallets, from a copy if it is new enough."""

    def __init__(self, wallets: Wallets, ledger: Ledger, cache: ReadCache) -> None:
        self._wallets = wallets
        self._ledger = ledger
        self._cache = cache

    async def get_wallet(self, actor: Actor, wallet_id: str, at_least: dict[str, int]) -> WalletState:
        """Return a wallet as booked and at the present time. `at_least` has the smallest `seq` that the caller accepts, by wallet.

        Raises:
            NotFound: The wallet does not exist or is not the caller's.
            Overloaded: Too many reads wait for the database.
        """
        member_id, _ = parse_wallet_id(wallet_id)
        actor.require_reach(member_id)
        load = partial(self._ledger.get_account, wallet_id, member_id)
        account = await self._cache.get(wallet_id, load, at_least=at_least.get(wallet_id, 0))
        if account is None:
            raise missing_wallet(wallet_id)
        return self._wallets.state_of(account)


def at_least_of(request: Request) -> dict[str, int]:
    """Return the smallest acceptable `seq` by wallet, from the header `If-Seq-At-Least: {wallet}:{seq}`. It may be repeated or hold a list.

    Raises:
        BadRequest: A value is something else, or there are too many.
    """
    header: str | None = request.get_header(AT_LEAST_HEADER)
    if header is None:
        return {}
    found: dict[str, int] = {}
    items = header.split(",")
    if len(items) > AT_LEAST_MAX:
        raise BadRequest(f"{AT_LEAST_HEADER} names more than {AT_LEAST_MAX} wallets; send those that you ask for")
    for item in items:
        wallet_id, _, seq = item.strip().rpartition(":")
        if not WALLET_ID.match(wallet_id) or not _SEQ.match(seq):
            raise BadRequest(
                f"{AT_LEAST_HEADER} must be a wallet id, a colon and a seq, such as mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS:17; "
                "separate several by commas"
            )
        found[wallet_id] = max(found.get(wallet_id, 0), int(seq))
    return found
