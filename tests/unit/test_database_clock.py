"""The clock that follows the database: what a measurement changes, and that its time does not go back."""

import pytest

from guerdon.clock import DatabaseClock
from tests.clients import WrongClock

HOUR_MS = 3_600_000


class Machine:
    """A machine on which time passes only when a test says so."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000
        self.seconds = 5_000.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)
        self.seconds += seconds


def measured(machine: Machine, database_ms: int) -> DatabaseClock:
    clock = DatabaseClock(machine)
    clock.adopt(database_ms, machine.seconds, machine.seconds)
    return clock


def test_clock_of_the_machine_counts_until_the_first_measurement() -> None:
    machine = Machine()
    clock = DatabaseClock(machine)
    assert (clock.now_ms(), clock.skew_ms) == (machine.ms, 0)
    machine.ms += 24 * HOUR_MS  # A line that is logged before the first measurement does not fix the time.
    assert clock.now_ms() == machine.ms
    clock.adopt(1_700_000_000_000, machine.seconds, machine.seconds)
    assert clock.now_ms() == 1_700_000_000_000


@pytest.mark.parametrize("ahead_ms", [24 * HOUR_MS, -24 * HOUR_MS, 2_001, 1])
def test_wrong_time_of_the_machine_is_corrected_from_the_middle_of_the_question(ahead_ms: int) -> None:
    machine = Machine()
    true_ms = machine.ms
    clock = DatabaseClock(WrongClock(machine, ahead_ms=ahead_ms))
    machine.wait(0.2)
    clock.adopt(true_ms + 100, machine.seconds - 0.2, machine.seconds)
    assert clock.now_ms() == true_ms + 200
    assert clock.skew_ms == ahead_ms
    machine.wait(7)
    assert clock.now_ms() == true_ms + 7_200


def test_change_of_the_time_of_day_does_not_move_the_clock() -> None:
    machine = Machine()
    wrong = WrongClock(machine)
    clock = DatabaseClock(wrong)
    clock.adopt(machine.ms, machine.seconds, machine.seconds)
    for ahead_ms in (24 * HOUR_MS, -HOUR_MS):
        wrong.ahead_ms = ahead_ms
        machine.wait(1)
        assert clock.now_ms() == machine.ms
        assert clock.skew_ms == ahead_ms


def test_slow_answer_moves_the_clock_only_as_far_as_it_proves_it_wrong() -> None:
    machine = Machine()
    clock = measured(machine, machine.ms)
    start_ms = machine.ms
    machine.wait(4)
    clock.adopt(start_ms, machine.seconds - 4, machine.seconds)  # Read at the beginning of the four seconds: consistent.
    assert clock.now_ms() == machine.ms
    clock.adopt(machine.ms + 10_000, machine.seconds - 4, machine.seconds)
    assert clock.now_ms() == machine.ms + 10_000 - 1, "the middle is 2 s ago, and half of the duration is 2 s"


def test_clock_stops_instead_of_going_back() -> None:
    machine = Machine()
    clock = measured(machine, machine.ms + 3_000)
    before_ms = clock.now_ms()
    clock.adopt(machine.ms, machine.seconds, machine.seconds)
    assert clock.now_ms() == before_ms
    machine.wait(2)
    assert clock.now_ms() == before_ms
    machine.wait(2)
    assert clock.now_ms() == machine.ms + 1


def test_another_primary_with_a_right_clock_ends_the_time_of_a_wrong_one() -> None:
    machine = Machine()
    clock = measured(machine, machine.ms + 24 * HOUR_MS)
    assert clock.now_ms() == machine.ms + 24 * HOUR_MS
    clock.adopt(machine.ms, machine.seconds, machine.seconds)
    assert clock.now_ms() == machine.ms + 1
    assert clock.skew_ms == -1
