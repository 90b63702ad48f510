"""The edges of the rules on the pure ledger, each by the shortest history that has it on both sides."""

import pytest

from guerdon.errors import LimitReached, Validation
from tests.invariants.histories import DAY_MS, MINE, THEIRS, History, at
from tests.invariants.ledger_requests import Dates


def sources(history: History) -> list[tuple[int, str]]:
    return [(lot.amount, lot.source) for lot in history.till.store.accounts[MINE].lots or ()]


def test_promotional_value_is_spent_before_paid_value_of_the_same_expiry() -> None:
    history = History()
    history.credit(10, until=5)
    history.credit(10, until=5, source="promotional")
    history.on(0, "debit", 15)
    assert sources(history) == [(5, "paid")]


def test_promotional_value_without_an_expiry_is_spent_before_undated_paid_value() -> None:
    history = History()
    history.credit(10)
    history.credit(10, source="promotional")
    history.on(0, "debit", 4)
    assert sources(history) == [(6, "promotional")]


def test_credit_must_expire_in_the_future() -> None:
    history = History()
    with pytest.raises(Validation):
        history.credit(1, until=0)
    history.on(0, "credit", 1, dates=Dates("paid", None, at(0) + 1))


def test_capture_takes_the_earliest_expiry_first() -> None:
    history = History()
    history.credit(10, until=9)
    history.credit(10, until=5)
    hold = history.hold(20, days=1)
    history.on(0, "capture", 12, about=hold)
    history.on(0, "void", about=hold)
    assert history.lots() == [(8, 9)]


def test_reversal_returns_the_latest_expiry_first() -> None:
    history = History()
    history.credit(10, until=9)
    history.credit(10, until=5)
    history.on(0, "reversal", 12, about=history.on(0, "debit", 20))
    assert history.lots() == [(2, 5), (10, 9)]


def test_a_credit_is_taken_back_from_its_own_lot() -> None:
    history = History()
    history.credit(10, until=5)
    history.on(0, "reversal", about=history.credit(10, until=9))
    assert history.lots() == [(10, 5)]


@pytest.mark.parametrize("kind", ["debit", "transfer", "hold"])
def test_spending_limit_may_be_reached_but_not_exceeded(kind: str) -> None:
    history = History()
    history.credit(1000)
    history.terms(day=50)
    more = {"transfer": {"to": THEIRS}, "hold": {"ttl_ms": DAY_MS}}.get(kind, {})
    history.on(0, kind, 40, **more)
    with pytest.raises(LimitReached):
        history.on(0, kind, 11, **more)
    history.on(0, kind, 10, **more)
    history.on(1, kind, 50, **more)


def test_reversal_on_a_later_day_does_not_raise_the_limit_of_that_day() -> None:
    history = History()
    history.credit(1000)
    history.terms(day=50)
    spent = history.on(0, "debit", 50)
    history.on(1, "debit", 50)
    history.on(1, "reversal", about=spent)
    with pytest.raises(LimitReached):
        history.on(1, "debit", 1)


@pytest.mark.parametrize(("zone", "allowed"), [("UTC", True), ("Pacific/Kiritimati", False)])
def test_monthly_limit_ends_at_programme_midnight(zone: str, allowed: bool) -> None:
    """At noon of 31 January in UTC the first of February is two hours old on Kiritimati."""
    history = History(zone)
    history.credit(1000)
    history.terms(month=50)
    history.on(0, "debit", 50)
    if allowed:
        history.on(0.6, "debit", 50)
    else:
        with pytest.raises(LimitReached):
            history.on(0.6, "debit", 1)


def test_hold_expiry_counts_from_the_newest_entry_of_the_account() -> None:
    """The clock of this process is a day behind that of the process that wrote last."""
    history = History()
    history.credit(10)
    history.on(2, "credit", 1)
    history.on(1, "hold", 10, ttl_ms=DAY_MS)
    assert history.till.present(MINE, at(3) - 1).held == 10
    assert history.till.present(MINE, at(3)).held == 0
    assert [entry.at for entry in history.till.store.entries.values()] == [at(0), at(2), at(2)]
