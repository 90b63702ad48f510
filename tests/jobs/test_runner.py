"""Jobs on their schedules: in one worker at a time, never more often than they should, and whatever other jobs do."""

import asyncio
import random
from typing import Any

import pytest

from guerdon.clock import SystemClock
from guerdon.database import Database
from guerdon.workers.models import Job
from guerdon.workers.rules import BACKOFF_MS_MAX, pause_ms
from tests.clients import Log, ManualClock
from tests.jobs.workers import LEASE_MS, counting, hanging, lease_of, server_ms, working
from tests.waiting import until

TEN_MINUTES_SECONDS = 600
LONG_SECONDS = 30.0
"""Longer than anything here takes on a busy machine, and shorter than what must not be waited for: a minute or more."""


def ran_lines(log: Log, job: str) -> list[dict[str, Any]]:
    return [line for line in log.lines if line["event"] == "job_ran" and line["job"] == job]


class Shared:
    """A job that notes who ran it, whether two ever did at once, and how long it was from one run to the next."""

    def __init__(self, database: Database, *, seed: int = 7) -> None:
        self._database = database
        self._chance = random.Random(seed)
        self._last_run_at: int | None = None
        self.inside = self.inside_max = 0
        self.runs = {"one": 0, "other": 0}
        self.pauses_ms: list[int] = []

    def job(self, who: str, every_ms: int) -> Job:
        async def run() -> int:
            self.inside += 1
            self.inside_max = max(self.inside_max, self.inside)
            try:
                began_at = int((await lease_of(self._database, "shared"))["last_run_at"])
                if self._last_run_at is not None:
                    self.pauses_ms.append(began_at - self._last_run_at)
                self._last_run_at = None  # A run that is cut off on a busy machine counts as none.
                await asyncio.sleep(self._chance.uniform(0, 2 * every_ms / 1000))
                self._last_run_at = began_at
            finally:
                self.inside -= 1
            self.runs[who] += 1
            return 1

        return Job("shared", every_ms, run)


@pytest.mark.parametrize("offset_seconds", [0, TEN_MINUTES_SECONDS, -TEN_MINUTES_SECONDS])
async def test_two_workers_never_run_a_job_concurrently_or_too_often(
    database: Database, second_database: Database, offset_seconds: int
) -> None:
    """CLK-2: also when the clock of one of them is wrong by ten minutes."""
    every_ms, lease_ms = 30, 400
    shared = Shared(database)
    clock = ManualClock(SystemClock())
    clock.advance(seconds=offset_seconds)
    async with (
        working(database, shared.job("one", every_ms), lease_ms=lease_ms),
        working(second_database, shared.job("other", every_ms), clock=clock, lease_ms=lease_ms),
    ):
        await until(lambda: min(shared.runs.values()) >= 10)
        lease = await lease_of(database, "shared")
        assert lease["expires_at"] - await server_ms(database) <= lease_ms
    assert shared.inside_max == 1
    assert len(shared.pauses_ms) >= 10
    assert min(shared.pauses_ms) >= every_ms


async def test_interval_counts_from_the_start_of_a_run_and_survives_a_restart(database: Database) -> None:
    runs: list[int] = []
    job = counting("rare", lambda: runs.append(1), every_ms=3_600_000)
    for _ in range(3):
        async with working(database, job):
            await until(lambda: bool(runs))
            await asyncio.sleep(0.1)
    assert len(runs) == 1
    lease = await lease_of(database, "rare")
    assert lease["due_at"] == lease["last_run_at"] + 3_600_000
    assert (lease["holder"], lease["expires_at"], lease["failures"]) == (None, 0, 0)
    assert abs(lease["last_run_at"] - await server_ms(database)) < 10_000


async def test_shorter_interval_takes_effect_immediately(database: Database) -> None:
    runs: list[int] = []
    async with working(database, counting("swift", lambda: runs.append(1), every_ms=3_600_000)):
        await until(lambda: len(runs) == 1)
        await asyncio.sleep(0.1)
    async with working(database, counting("swift", lambda: runs.append(1), every_ms=20)):
        await until(lambda: len(runs) == 3)


async def test_failing_job_backs_off_without_delaying_other_jobs(database: Database, log: Log) -> None:
    attempts: list[int] = []
    good: list[int] = []

    def fail_five_times() -> None:
        attempts.append(1)
        if len(attempts) <= 5:
            raise KeyError("no such thing")

    bad = counting("bad", fail_five_times, every_ms=20)
    async with working(database, bad, counting("good", lambda: good.append(1), every_ms=20), log=log):
        await until(lambda: len(attempts) >= 5)
        while (lease := await lease_of(database, "bad"))["failures"] < 5:
            assert len(attempts) == 5
        await until(lambda: len(good) > 10)
        await until(lambda: len(attempts) >= 7)
        await until(lambda: bool(ran_lines(log, "bad")))
    failed = [line for line in log.lines if line["event"] == "job_failed"]
    assert [(line["job"], line["failures"], line["level"]) for line in failed] == [("bad", n, "error") for n in range(1, 6)]
    assert all("KeyError" in line["exception"] and "no such thing" not in str(line) for line in failed)
    assert lease["due_at"] - lease["last_run_at"] == 20 * 2**5
    assert (await lease_of(database, "bad"))["failures"] == 0
    assert ran_lines(log, "bad")[0]["count"] == 1


async def test_a_run_that_did_nothing_is_not_logged(database: Database, log: Log) -> None:
    runs: list[int] = []

    async def nothing() -> int:
        runs.append(1)
        return 0

    async with working(database, Job("idle", 1, nothing), counting("busy", lambda: None, every_ms=1), log=log):
        await until(lambda: len(runs) >= 3)
        await until(lambda: "busy" in log.getvalue())
    assert {line["job"] for line in log.lines} == {"busy"}


@pytest.mark.parametrize("stubborn", [False, True])
async def test_hanging_run_is_cancelled_at_its_time_limit(database: Database, log: Log, stubborn: bool) -> None:
    """Also one that takes its time to end; its lease is kept until it has."""
    left_ms: list[int] = []

    async def hang() -> int:
        try:
            await asyncio.sleep(600)
        finally:
            if stubborn:
                await asyncio.sleep(1.2 * LEASE_MS / 1000)
            left_ms.append((await lease_of(database, "stuck"))["expires_at"] - await server_ms(database))
        return 1

    async with working(database, Job("stuck", 1_000, hang, limit_ms=200), log=log):
        await until(lambda: bool(log.lines))
        assert left_ms[0] > 0
        [failed] = log.lines
    assert (failed["event"], failed["job"], failed["failures"]) == ("job_failed", "stuck", 1)
    assert (failed["limit_ms"], failed["exception"]) == (200, "TimeoutError")
    lease = await lease_of(database, "stuck")
    assert (lease["holder"], lease["due_at"] - lease["last_run_at"]) == (None, 2_000)


async def test_a_job_that_cancels_itself_has_failed(database: Database, log: Log) -> None:
    """Else it would be taken for one that was interrupted, and come again without a pause."""

    def give_up() -> None:
        raise asyncio.CancelledError

    async with working(database, counting("odd", give_up, every_ms=50), log=log):
        await until(lambda: len(log.lines) >= 2)
    assert [(line["event"], line["failures"]) for line in log.lines[:2]] == [("job_failed", 1), ("job_failed", 2)]


async def test_a_stop_lets_a_short_run_end_and_cuts_a_long_one(database: Database, second_database: Database, log: Log) -> None:
    said: list[str] = []

    async def short() -> int:
        said.append("short began")
        await asyncio.sleep(0.3)
        said.append("short ended")
        return 1

    long = hanging("long", said.append, every_ms=3_600_000)
    async with working(database, Job("short", 3_600_000, short), long, log=log, lease_ms=60_000, stop_ms=600) as worker:
        await until(lambda: len(said) == 2)
        assert await worker.stop() < LONG_SECONDS
    assert sorted(said) == ["began", "cut", "short began", "short ended"]
    assert [(line["event"], line["job"]) for line in log.lines] == [("job_ran", "short"), ("job_interrupted", "long")]
    # The lease would last for a minute, and the next time would come in an hour: the other worker waits for neither.
    others: list[str] = []
    async with working(
        second_database, Job("short", 3_600_000, short), hanging("long", others.append, every_ms=3_600_000), lease_ms=60_000
    ):
        await until(lambda: others == ["began"], LONG_SECONDS)
    assert said.count("short began") == 1


async def test_stop_of_an_idle_worker_is_immediate(database: Database) -> None:
    runs: list[int] = []
    job = counting("rare", lambda: runs.append(1), every_ms=3_600_000)
    async with working(database, job, stop_ms=60_000) as worker:
        await until(lambda: bool(runs))
        await asyncio.sleep(0.3)
        assert await worker.stop() < LONG_SECONDS
    async with working(database, stop_ms=60_000) as without_jobs:
        await asyncio.sleep(0)
        assert await without_jobs.stop() < LONG_SECONDS


async def test_two_jobs_of_one_name_are_refused(database: Database) -> None:
    job = counting("twin", lambda: None)
    with pytest.raises(ValueError, match="must be unique"):
        async with working(database, job, job):
            pass


def test_pauses_double_up_to_five_minutes_or_the_period() -> None:
    assert [pause_ms(1_000, failures) for failures in (0, 1, 2, 8, 9, 1000)] == [
        1_000, 2_000, 4_000, 256_000, BACKOFF_MS_MAX, BACKOFF_MS_MAX,
    ]  # fmt: skip
    assert [pause_ms(3_600_000, failures) for failures in (0, 1, 5)] == [3_600_000] * 3
