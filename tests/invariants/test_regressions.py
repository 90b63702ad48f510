"""Faults that were found once, each with the smallest history that shows it."""

from collections.abc import Callable

import msgspec
import pytest

from guerdon.calendar import Calendar
from guerdon.errors import BalanceLimit, GuerdonError, InsufficientFunds, LimitReached
from guerdon.ledger.entry_hash import entry_hash
from guerdon.ledger.models import Lot
from guerdon.verification.account_replay import AccountReplay, came_from
from tests.clients import Caller
from tests.factories import Factory
from tests.invariants.histories import MINE, THEIRS, History, at
from tests.invariants.in_memory_ledger import NOW_MS, wallet_id
from tests.invariants.ledger_driver import Till
from tests.invariants.ledger_requests import Ask, Dates

DAY_MS = 86_400_000


def two_holds(history: History) -> None:
    history.credit(10, until=5)
    history.credit(10, until=9)
    history.terms(floor=-100)
    history.hold(10, days=2)
    history.hold(10, days=1)


def two_pending(history: History) -> None:
    history.credit(10, since=1, until=9)
    history.credit(10, since=2, until=5)
    history.terms(floor=-100)


def a_hold_and_a_pending_credit(history: History) -> None:
    history.credit(10, until=9)
    history.terms(floor=-100)
    history.hold(10, days=2)
    history.credit(10, since=1, until=5)


@pytest.mark.parametrize("begins", [two_holds, two_pending, a_hold_and_a_pending_credit])
def test_debt_repayment_does_not_depend_on_the_time_of_the_sweep(begins: Callable[[History], None]) -> None:
    spendable = set()
    for sweeps in ([1, 2], [2], [3], [1, 6], []):
        history = History()
        begins(history)
        history.on(0, "debit", 10)
        for day in sweeps:
            history.till.sweep([MINE], at(day))
        spendable.add(history.till.present(MINE, at(6)).spendable)
    assert len(spendable) == 1


def test_uncounted_hold_restores_nothing_to_the_limits() -> None:
    history = History()
    history.credit(1000)
    hold = history.hold(100, days=1)
    history.terms(day=50)
    history.on(0, "debit", 40)
    history.on(0, "void", about=hold)
    with pytest.raises(LimitReached):
        history.on(0, "debit", 11)
    history.on(0, "debit", 10)


def test_reversed_capture_restores_limits_like_a_reversed_debit() -> None:
    history = History()
    history.credit(1000)
    history.terms(day=50)
    capture = history.on(0, "capture", 50, about=history.hold(50, days=1))
    with pytest.raises(LimitReached):
        history.on(0, "debit", 1)
    history.on(0, "reversal", 40, about=capture)
    history.on(0, "debit", 40)
    with pytest.raises(LimitReached):
        history.on(0, "debit", 1)


def test_limits_taken_away_and_set_again_on_one_day_keep_their_counters() -> None:
    history = History()
    history.credit(1000)
    history.terms(day=50)
    history.on(0, "debit", 40)
    history.terms()
    history.on(0, "debit", 500)
    history.terms(day=50)
    with pytest.raises(LimitReached):
        history.on(0, "debit", 11)
    history.on(0, "debit", 10)


def test_a_ceiling_does_not_shorten_the_credit_limit() -> None:
    history = History()
    history.credit(5)
    history.terms(floor=-100, ceiling=50)
    history.on(0, "debit", 60)
    with pytest.raises(InsufficientFunds):
        history.on(0, "debit", 46)
    with pytest.raises(BalanceLimit):
        history.on(0, "credit", 106)


def test_half_reversed_transfer_preserves_the_amount_of_each_date() -> None:
    history = History()
    history.credit(10, until=1)
    history.credit(10, until=9)
    transfer = history.on(0, "transfer", 20, to=THEIRS)
    history.on(0, "reversal", 10, about=transfer)
    assert (history.lots(), history.lots(THEIRS)) == ([(10, 9)], [(10, 1)])


def test_transfer_reversed_in_two_halves_is_fully_reversed() -> None:
    history = History()
    history.credit(10, until=1, wallet=THEIRS)
    history.credit(10, until=1)
    history.credit(10, until=9)
    transfer = history.on(0, "transfer", 20, to=THEIRS)
    history.on(0, "reversal", 10, about=transfer)
    history.on(0, "reversal", 10, about=transfer)
    assert (history.lots(), history.lots(THEIRS)) == ([(10, 1), (10, 9)], [(10, 1)])


def test_transferred_lot_gets_no_grace_from_a_fast_clock() -> None:
    """The sender's side was judged by a slower clock than the receiver's newest entry."""
    history = History()
    history.credit(10, until=1)
    history.on(2, "credit", 5, wallet=THEIRS)
    history.on(0.5, "transfer", 10, to=THEIRS)
    assert history.lots(THEIRS) == [(10, 1)]


def test_new_dated_value_repays_a_debt_first() -> None:
    history = History()
    history.credit(5)
    history.terms(floor=-100)
    history.on(0, "debit", 25)
    history.credit(50, until=9)
    assert history.lots() == [(30, 9)]


def test_document_of_an_expired_hold_has_nothing_left() -> None:
    history = History()
    history.credit(10)
    hold = history.till.hold_of(history.hold(10, days=1))
    history.till.sweep([MINE], at(3))
    document = history.till.store.documents["holds", f"hld_{MINE}:{hold}"]
    assert (document["status"], document["left"], document["captured"], document["ended_at"]) == ("expired", 0, 0, at(1))


async def test_clawback_up_to_the_balance_does_not_use_the_credit_limit(service: Caller, factory: Factory) -> None:
    await factory.campaign(clawback="up_to_balance")
    bought = (await service.post("/v1/events", factory.event())).json()
    wallet, earned = f"{bought['member_id']}:PTS", bought["awards"][0]["amount"]
    assert (await service.put(f"/v1/wallets/{wallet}/terms", {"credit_limit": 1000})).status_code == 200
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": earned - 10})).status_code == 201
    refund = (await service.post("/v1/events", factory.event(type="refund", member={"id": bought["member_id"]}))).json()
    assert refund["awards"][0]["amount"] == -10
    assert await factory.balance(wallet) == 0
    await factory.assert_books_balance()


async def test_award_beyond_the_lot_limit_is_refused_and_the_event_is_kept(service: Caller, factory: Factory) -> None:
    await factory.campaign()
    member = await factory.member()
    for year in range(2027, 2127):
        body = {"amount": 1, "expires_at": f"{year}-01-01T00:00:00Z"}
        assert (await service.post(f"/v1/wallets/{member}:PTS/credit", body)).status_code == 201
    answer = await service.post("/v1/events", factory.event(member={"id": member}))
    assert answer.status_code == 201, answer.text
    [decision] = answer.json()["decisions"]
    assert (decision["outcome"], decision["reasons"][-1]) == ("refused", "the wallet already holds 100 lots of different dates")
    assert answer.json()["awards"] == []
    await factory.assert_books_balance()


def test_history_helper_raises_the_refusals_of_the_ledger() -> None:
    """The helpers above do not swallow what the ledger says."""
    with pytest.raises(GuerdonError):
        History().on(0, "debit", 1)


def test_undated_value_available_over_a_debt_leaves_no_past_expiry() -> None:
    history = History()
    history.credit(1)
    history.terms(floor=-100)
    history.credit(30, since=1)
    history.on(0, "debit", 51)
    history.till.sweep([MINE], at(2))
    due_at = history.till.store.accounts[MINE].due_at
    assert due_at is None or due_at > at(2)


def test_reversed_available_credit_is_taken_from_its_own_value() -> None:
    history = History()
    history.credit(100, source="promotional")
    credit = history.credit(26, since=1)
    history.on(1, "reversal", about=credit)
    assert history.lots() == [(100, None)]


def test_entries_from_before_the_first_expiry_was_kept_are_accepted() -> None:
    """Value that returned after its expiry was listed with its new date only. Any other date is still a violation."""
    till, wallet = Till(), wallet_id(1)
    till.do(Ask("credit", wallet, "load", 100, dates=Dates("promotional", None, NOW_MS + DAY_MS)), NOW_MS)
    till.do(Ask("hold", wallet, "hold", 60, ttl_ms=10 * DAY_MS), NOW_MS)
    till.do(Ask("void", wallet, "void", about="hold"), NOW_MS + 3 * DAY_MS)
    account = till.store.accounts[wallet]
    entries = [till.store.entries[name] for name in sorted(till.store.entries)]
    assert [entry.kind for entry in entries] == ["credit", "hold", "expiry", "void"]
    assert account.lots == (Lot(60, "promotional", None, NOW_MS + 10 * DAY_MS, NOW_MS + DAY_MS),)
    for shift_ms in (0, 1):
        old = Lot(60, "promotional", None, NOW_MS + 10 * DAY_MS + shift_ms)
        last = msgspec.structs.replace(entries[-1], lots=(old,))
        last = msgspec.structs.replace(last, hash=entry_hash(last))
        row = msgspec.structs.replace(account, lots=(old,), head=last.hash, due_at=old.expires_at)
        found: list[tuple[str, ...]] = []
        replay = AccountReplay(row, Calendar(), lambda *violation, found=found: found.append(violation))
        for seq, entry in enumerate([*entries[:-1], last], start=1):
            replay.follow(entry, seq)
        replay.check_row()
        assert [violation[0] for violation in found] == ["L7"] * shift_ms
    parts = (Lot(60, "promotional", None, NOW_MS),)
    returned = Lot(60, "promotional", None, NOW_MS + 7 * DAY_MS, NOW_MS)
    assert came_from((returned,), parts, NOW_MS)
    assert came_from((msgspec.structs.replace(returned, first_expires_at=None),), parts, NOW_MS)
    assert not came_from((msgspec.structs.replace(returned, first_expires_at=1),), parts, NOW_MS)
