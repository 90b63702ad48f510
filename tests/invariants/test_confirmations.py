"""Value that waits to be confirmed: spendable then and never before, once, and only what an award has left waiting."""

from dataclasses import replace

import pytest

from guerdon.campaigns.domain import EVENTS
from guerdon.errors import GuerdonError, InvalidState, LimitReached, NotReversible, WalletFrozen
from guerdon.ledger.models import ISSUER, LOTS_MAX, Account, Command, Confirmation, Decision, Entry, Lot, Posting, Transaction
from guerdon.reversals.rules import require_reversible
from guerdon.verification.documents import check_documents
from guerdon.verification.report import VerificationReport
from guerdon.wiring.services import Services
from tests.invariants.balance_model import Bounds
from tests.invariants.in_memory_ledger import ACTOR, NOW_MS, assert_holds_and_lots, assert_laws, wallet_id
from tests.invariants.ledger_driver import Till, award_command
from tests.invariants.ledger_requests import WAITING, Ask, Dates
from tests.invariants.state_machine_rules import DAY_MS
from tests.invariants.test_ledger_model import proved

WALLET = wallet_id(1)
LIMIT, LATER = NOW_MS + DAY_MS, NOW_MS + 9 * DAY_MS
AWARD = Ask("award", WALLET, "award", 100, dates=Dates("promotional", WAITING, LIMIT))
CONFIRMATION = Ask("confirmation", WALLET, "delivered", 100, about="award", dates=Dates("promotional", None, LATER))


def till_with(*asks: Ask) -> Till:
    till = Till()
    for ask in (AWARD, *asks):
        till.do(ask, NOW_MS)
    return till


def state(till: Till, now_ms: int = NOW_MS) -> tuple[int, int, int]:
    """Balance, what waits, and what can be spent."""
    account = till.present(WALLET, now_ms)
    return account.balance, account.pending, account.spendable


def assert_in_order(till: Till) -> None:
    entries = list(till.store.entries.values())
    assert_laws(till.store.accounts, entries, {WALLET: Bounds(-(10**18))})
    assert_holds_and_lots(till.store.accounts, entries)
    assert proved(till) == []


def test_confirmation_changes_the_lot_dates_with_one_entry() -> None:
    till = till_with(replace(CONFIRMATION, amount=60))
    assert state(till) == (100, 40, 60)
    entry = till.made["delivered"].entries[0]
    assert (entry.kind, entry.amount, entry.counterparty, entry.spendable_after) == ("confirmation", 0, ISSUER, 60)
    assert entry.lots == (Lot(-60, "promotional", WAITING, LIMIT), Lot(60, "promotional", None, LATER))
    assert till.do(replace(CONFIRMATION, amount=60), NOW_MS).replayed, "the same again is the first answer"
    assert state(till, LIMIT) == (60, 0, 60), "what was not confirmed has lapsed"
    assert state(till, LATER) == (0, 0, 0)
    assert_in_order(till)


def test_unconfirmed_value_cannot_be_spent_held_sent_or_repay_a_debt() -> None:
    till = till_with()
    for ask in (
        Ask("debit", WALLET, "debit", 1),
        Ask("hold", WALLET, "hold", 1, ttl_ms=1000),
        Ask("transfer", WALLET, "sent", 1, to=wallet_id(2)),
    ):
        with pytest.raises(GuerdonError, match="0 minor units of PTS available, 1 minor unit of PTS needed"):
            till.do(ask, NOW_MS)
    till.do(Ask("terms", WALLET, "", terms=AWARD.terms._replace(floor=-30)), NOW_MS)
    till.do(Ask("debit", WALLET, "owed", 30), NOW_MS)
    assert state(till, LIMIT - 1) == (70, 100, 0)
    assert state(till, LIMIT) == (-30, 0, 0), "the debt is what it was when the award has lapsed"
    till.sweep([WALLET], LIMIT)
    assert [entry.kind for entry in till.store.entries.values()][-1] == "expiry"
    assert_in_order(till)


def test_confirmed_value_repays_a_debt_first() -> None:
    till = till_with(Ask("terms", WALLET, "", terms=AWARD.terms._replace(floor=-30)), Ask("debit", WALLET, "owed", 30))
    till.do(CONFIRMATION, NOW_MS)
    assert till.made["delivered"].entries[0].lots == (Lot(-100, "promotional", WAITING, LIMIT), Lot(70, "promotional", None, LATER))
    assert state(till) == (70, 0, 100)
    assert_in_order(till)


@pytest.mark.parametrize(
    "ask",
    [
        replace(CONFIRMATION, amount=101),
        replace(CONFIRMATION, dates=Dates("promotional", None, NOW_MS)),
        replace(CONFIRMATION, about="pending"),
        replace(CONFIRMATION, about="dated"),
        replace(AWARD, key="paid", dates=Dates("paid", WAITING, LIMIT)),
        replace(AWARD, key="for-ever", dates=Dates("promotional", WAITING, None)),
    ],
    ids=["more than waits", "lapsed when it comes", "has a date of its own", "can be spent", "paid for", "would wait for ever"],
)
def test_confirmation_of_any_other_lot_is_refused(ask: Ask) -> None:
    pending = Ask("credit", WALLET, "pending", 100, dates=Dates("promotional", LIMIT, LATER))
    till = till_with(pending, Ask("credit", WALLET, "dated", 100, dates=Dates("promotional", None, LIMIT)))
    before = till.store.accounts[WALLET]
    with pytest.raises(InvalidState):
        till.do(ask, NOW_MS)
    assert till.store.accounts[WALLET] == before
    assert_in_order(till)


def test_late_confirmation_is_refused_before_and_after_the_sweep() -> None:
    for sweeps in (True, False):
        till = till_with()
        if sweeps:
            till.sweep([WALLET], LIMIT)
        with pytest.raises(InvalidState, match="0 minor units of PTS awaiting confirmation, 100 minor units of PTS to confirm"):
            till.do(CONFIRMATION, LIMIT)
        assert state(till, LIMIT) == (0, 0, 0)
        assert_in_order(till)


def test_a_frozen_wallet_confirms_nothing() -> None:
    till = till_with(Ask("freeze", WALLET, ""))
    with pytest.raises(WalletFrozen):
        till.do(CONFIRMATION, NOW_MS)
    till.do(Ask("unfreeze", WALLET, ""), NOW_MS)
    till.do(replace(CONFIRMATION, key="again"), NOW_MS)
    assert state(till) == (100, 0, 100)
    assert_in_order(till)


def test_partial_confirmation_is_refused_at_the_lot_limit() -> None:
    others = (Ask("credit", WALLET, f"lot-{n}", 1, dates=Dates("paid", None, LATER + n)) for n in range(1, LOTS_MAX))
    till = till_with(*others)
    with pytest.raises(LimitReached):
        till.do(replace(CONFIRMATION, amount=60), NOW_MS)
    till.do(replace(CONFIRMATION, key="whole"), NOW_MS)
    assert state(till) == (199, 0, 199)
    assert_in_order(till)


def test_confirmation_is_not_reversible_but_its_award_is() -> None:
    till = till_with(CONFIRMATION)
    with pytest.raises(NotReversible):
        require_reversible(till.made["delivered"].entries[0])
    till.do(Ask("reversal", WALLET, "wrong", 100, about="award"), NOW_MS)
    assert state(till) == (0, 0, 0)
    assert_in_order(till)


def test_clawback_takes_from_the_award_lot_before_and_after_confirmation() -> None:
    till = till_with(Ask("credit", WALLET, "other", 50, dates=Dates("promotional", None, LIMIT)), replace(CONFIRMATION, amount=60))
    for lot in (Lot(10, "promotional", WAITING, LIMIT), Lot(60, "promotional", None, LATER)):
        posting = Posting(WALLET, -lot.amount, ISSUER, lots=(lot,))
        decision = Decision((Transaction("clawback", (posting,), ACTOR),))
        till.store.commit([Command((AWARD.owner,), (WALLET,), lambda view, decision=decision: decision)], NOW_MS)
    account: Account = till.store.accounts[WALLET]
    assert {lot.dates: lot.amount for lot in account.lots or ()} == {
        Dates("promotional", None, LIMIT): 50,
        Dates("promotional", WAITING, LIMIT): 30,
    }
    assert_in_order(till)


async def test_amount_confirmed_by_an_event_is_checked_against_the_entry(services: Services) -> None:
    now_ms = services.clock.now_ms()
    wallet = f"{await services.members.ensure_member('ada')}:PTS"
    opened = replace(AWARD, wallet=wallet, dates=Dates("promotional", WAITING, now_ms + DAY_MS))
    made = {"award": await services.ledger.submit(award_command(opened, {}))}
    lot = Lot(40, "promotional", WAITING, now_ms + DAY_MS)
    confirms = Posting(opened.wallet, 0, ISSUER, confirms=Confirmation(lot, now_ms + 2 * DAY_MS))
    said = {"event": "evt-1", "campaign": "cmp_1", "version": "1"}
    decision = Decision((Transaction("confirmation", (confirms,), ACTOR, metadata=said),))
    entry: Entry = (await services.ledger.submit(Command((opened.owner,), (opened.wallet,), lambda view: decision))).entries[0]
    release = {
        "campaign": "cmp_1", "version": 1, "asset": "PTS", "amount": 40, "transaction_id": entry.transaction_id,
        "expires_at": now_ms + 2 * DAY_MS,
    }  # fmt: skip
    changes = [
        {},
        {"amount": 41},
        {"campaign": "cmp_2"},
        {"expires_at": None},
        {"transaction_id": made["award"].entries[0].transaction_id},
    ]
    for change in changes:
        event = {"_id": "evt-1", "owner": opened.owner, "awards": [], "releases": [release | change]}
        await services.database.raw[EVENTS].replace_one({"_id": "evt-1"}, event, upsert=True)
        report = VerificationReport()
        async for _ in check_documents(services.database, "events", "", report.add):
            pass
        assert set(report.first) == ({"L5"} if change else set())
