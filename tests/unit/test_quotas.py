"""The arithmetic of quotas, and counters in this process."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guerdon.rate_limits.rules import Quota, QuotaCounter, advance, header_fields, quota_status, used
from guerdon.rate_limits.service import COUNTERS_MAX, LocalCounters

START_MS = 1_800_000_000_000
pauses = st.lists(st.integers(0, 30_000), min_size=1, max_size=200)


class HandClock:
    """A clock that only this file moves."""

    def __init__(self) -> None:
        self.ms = START_MS

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


@given(amount=st.integers(1, 20), window_seconds=st.integers(1, 60), pauses_ms=pauses)
@settings(max_examples=300, deadline=None)
def test_granted_requests_stay_within_the_quota(amount: int, window_seconds: int, pauses_ms: list[int]) -> None:
    """Never more than the quota in a window of the clock, never twice as much in any span; and whoever waits as told is granted."""
    quota, clock = Quota("q", amount, window_seconds), HandClock()
    counters, granted = LocalCounters(clock), []
    for pause_ms in pauses_ms:
        clock.ms += pause_ms
        stands = counters.spend(quota, "ada")
        assert stands.granted or stands.remaining == 0
        if not stands.granted:
            assert stands.wait_ms > 0
            clock.ms += stands.wait_ms - 1
            assert not counters.spend(quota, "ada").granted
            clock.ms += 1
            assert counters.spend(quota, "ada").granted
        granted.append(clock.ms)
    windows = [at // quota.window_ms for at in granted]
    assert max(map(windows.count, windows)) <= amount
    spans = [sum(1 for other in granted if at <= other < at + quota.window_ms) for at in granted]
    assert max(spans) < 2 * amount


def test_a_quota_is_granted_whole_and_then_refused() -> None:
    clock, quota = HandClock(), Quota("q", 5, 60)
    counters = LocalCounters(clock)
    assert [counters.spend(quota, "ada").remaining for _ in range(5)] == [4, 3, 2, 1, 0]
    refused = counters.spend(quota, "ada")
    assert (refused.granted, refused.remaining) == (False, 0)
    assert counters.spend(quota, "bob").granted
    assert header_fields(refused)["RateLimit-Policy"] == '"q";q=5;w=60'
    assert header_fields(refused)["RateLimit"] == f'"q";r=0;t={-(-refused.wait_ms // 1000)}'


def test_returned_quota_can_be_spent_again_but_never_exceeded() -> None:
    clock, quota = HandClock(), Quota("q", 2, 60)
    counters = LocalCounters(clock)
    for _ in range(3):
        counters.spend(quota, "ada", -1)
    assert [counters.spend(quota, "ada").granted for _ in range(3)] == [True, True, False]
    counters.spend(quota, "ada", -1)
    assert counters.spend(quota, "ada").granted
    assert counters.is_spent(quota, "ada") is not None
    assert counters.is_spent(quota, "bob") is None


def test_reading_a_local_quota_spends_nothing() -> None:
    clock, quota = HandClock(), Quota("q", 2, 60)
    counters = LocalCounters(clock)
    assert [counters.spend(quota, "ada", 0).granted for _ in range(5)] == [True] * 5
    assert not counters._counters["q"], "who has spent nothing takes no memory"
    assert counters.spend(quota, "ada").remaining == 1
    assert [counters.spend(quota, "ada", 0).remaining for _ in range(5)] == [1] * 5
    assert counters.spend(quota, "ada").granted
    looked, refused = counters.spend(quota, "ada", 0), counters.spend(quota, "ada")
    assert (looked, looked.granted) == (refused, False)


def test_a_clock_set_back_grants_nothing_new() -> None:
    quota = Quota("q", 3, 60)
    counter = QuotaCounter(START_MS // quota.window_ms, current=3)
    advance(counter, START_MS - 600_000, quota)
    assert used(counter, START_MS - 600_000, quota) == 3
    assert quota_status(counter, START_MS - 600_000, quota, granted=False).wait_ms > 0


def test_quota_memory_is_bounded_for_many_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    most = COUNTERS_MAX // 10
    monkeypatch.setattr("guerdon.rate_limits.service.COUNTERS_MAX", most)
    clock, quota = HandClock(), Quota("q", 2, 60)
    counters = LocalCounters(clock)
    for number in range(most + 1_000):
        counters.spend(quota, str(number))
    held = counters._counters["q"]
    assert len(held) == most
    # Two windows later all of them mean nothing; each new one takes two old ones along.
    clock.ms += 3 * quota.window_ms
    for number in range(most):
        counters.spend(quota, f"later {number % 10}")
    assert len(held) <= most
    for number in range(most):
        counters.spend(quota, f"new {number}")
        if number == most // 2:
            assert len(held) <= most // 2 + 20
