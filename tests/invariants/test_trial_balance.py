"""The balances of all accounts of an asset, system accounts included, add up to zero, and `verify` states them."""

import msgspec
import pytest

from guerdon.ledger.models import COUNTED, ISSUER, Entry
from guerdon.ledger.store import ENTRIES
from guerdon.verification.service import verify
from guerdon.verification.trial_balance import TrialBalance
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.factories import Factory


async def test_verification_states_the_balance_of_every_account(service: Caller, factory: Factory, services: Services) -> None:
    one, two = await factory.wallet(100), await factory.wallet(50)
    money = f"{one.partition(':')[0]}:GBP"
    await service.post(f"/v1/wallets/{one}/debit", {"amount": 30})
    await service.post("/v1/transfers", {"from": one, "to": two, "amount": 20})
    await service.put("/v1/rates/PTS-GBP", {"from_amount": 5, "to_amount": 2})
    await service.post("/v1/exchanges", {"member_id": one.partition(":")[0], "from": "PTS", "to": "GBP", "from_amount": 10})
    parts = [
        {"wallet": two, "amount": -20},
        {"wallet": one, "amount": 15},
        {"account": "system:breakage", "asset": "PTS", "amount": 5},
    ]
    assert (await service.post("/v1/transactions", {"postings": parts})).status_code == 201
    await factory.voucher(await factory.offer(kind="gift_card"), one.partition(":")[0])
    report = await verify(services.database)
    assert report.violations == 0, report.first
    assert report.balances == {
        "GBP": {"wallets": 504, ISSUER: -500, "system:exchange": -4},
        "PTS": {"wallets": 105, "system:breakage": 5, "system:exchange": 10, ISSUER: -150, "system:merchant": 30},
    }
    assert [sum(accounts.values()) for accounts in report.balances.values()] == [0, 0]
    assert await factory.balance(one) + await factory.balance(two) == 105
    assert await factory.balance(money) == 4
    names = await services.database.raw[ENTRIES].distinct("counter")
    assert COUNTED in names, "what only counts is in no balance"


def entry_of(amount: int, counterparty: str, at: int) -> Entry:
    return Entry(
        id=f"mem_1:PTS#{1:012}", owner="mem_1", asset="PTS", kind="transfer", amount=amount, balance_after=0, held_after=0,
        counterparty=counterparty, actor="", at=at, prev=b"", hash=b"",
    )  # fmt: skip


@pytest.mark.parametrize(("at", "reported"), [(99, 1), (100, 0)])
def test_only_an_old_difference_is_reported(at: int, reported: int) -> None:
    """One side of a transfer that is committed during a run is met alone; one that was committed before it is not."""
    found: list[str] = []
    balance = TrialBalance(committed_before=100)
    for entry in (entry_of(50, ISSUER, 1), entry_of(-5, "mem_2:PTS", at)):
        balance.add(entry)
    balance.add_pair(entry_of(-5, "mem_2:PTS", at), at)
    copy = msgspec.json.decode(msgspec.json.encode(balance), type=TrialBalance)
    for each in (balance, copy):
        found.clear()
        each.check(lambda law, where, detail: found.append(f"{law} {where} {detail}"))
        assert len(found) == reported
    assert balance.sorted() == {"PTS": {"wallets": 45, ISSUER: -50}}
