"""Runner of the jobs of one worker process. A failed job does not end the runner or other jobs."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from guerdon.database import Database
from guerdon.ids import IdSource
from guerdon.workers.leases import LeaseAnswer, Leases
from guerdon.workers.models import Job
from guerdon.workers.rules import pause_ms

LEASE_MS = 30_000
STOP_MS = 4_000
CANCEL_SECONDS = 5.0
"""Maximum time for a cancelled job to end and for its lease to be released. Together with `STOP_MS` it is less than ten seconds."""
WAIT_MS_MIN = 10
RETRY_MS = 1_000


class Runner:
    """Runs each job on its schedule when this worker gets its lease."""

    def __init__(
        self,
        database: Database,
        ids: IdSource,
        log: FilteringBoundLogger,
        jobs: Sequence[Job],
        *,
        lease_ms: int = LEASE_MS,
        stop_ms: int = STOP_MS,
    ) -> None:
        """`stop_ms` is the time after which a running job is cancelled when the runner stops.

        Raises:
            ValueError: two jobs have the same name, and therefore the same lease.
        """
        if len({job.name for job in jobs}) < len(jobs):
            raise ValueError("the names of jobs must be unique")
        self._leases = Leases(database, ids.new("wrk"), lease_ms)
        self._log = log
        self._jobs = tuple(jobs)
        self._lease_ms = lease_ms
        self._stop_ms = stop_ms

    async def run(self, stopping: asyncio.Event) -> None:
        """Run the jobs until `stopping` is set; then wait for running jobs, cancel those that do not end in time, and release their leases."""
        loops = [asyncio.create_task(self._repeat(job, stopping), name=job.name) for job in self._jobs]
        try:
            await stopping.wait()
            await _wait_for(loops, self._stop_ms / 1000)
        finally:
            for loop in loops:
                loop.cancel()
            for stuck in await _wait_for(loops, CANCEL_SECONDS):
                self._log.error("job_stuck", job=stuck.get_name())

    async def _repeat(self, job: Job, stopping: asyncio.Event) -> None:
        """Run one job each time this worker gets its lease."""
        errors = 0
        while not stopping.is_set():
            try:
                lease = await self._leases.take(job)
                if lease.granted:
                    await self._run(job, lease)
                wait_ms, errors = lease.wait_ms, 0
            except Exception as error:  # Any error: the loop must continue, otherwise the job would never run again.
                errors += 1
                wait_ms = pause_ms(RETRY_MS, errors)
                self._log.error("lease_failed", job=job.name, exc_info=error)
            # At most the duration of a lease: the holder may have died, or the clock of the server may have been set back.
            seconds = min(max(wait_ms, WAIT_MS_MIN), self._lease_ms) / 1000
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), seconds)

    async def _run(self, job: Job, lease: LeaseAnswer) -> None:
        """Run the job once under its lease. Cancelling this coroutine cancels the job."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        work = asyncio.create_task(_call(job))
        keeper = asyncio.create_task(self._leases.keep(job, lease.requested_at))
        timed_out = interrupted = False
        try:
            ended, _ = await asyncio.wait({work, keeper}, timeout=job.limit_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            timed_out = not ended
        finally:
            if not work.done():
                interrupted = True
                work.cancel()
                await asyncio.wait({work})
            keeper.cancel()
            ms = round((loop.time() - started_at) * 1000)
            if interrupted and not timed_out and work.cancelled():
                # The runner was stopped or the lease was lost. The run has not failed, and the job is due at once.
                self._log.warning("job_interrupted", job=job.name, ms=ms)
                await self._leases.release(job, pause_ms=0, failures=lease.failures)
            else:
                failures = self._log_result(job, work, lease, ms)
                await self._leases.release(job, pause_ms=pause_ms(job.every_ms, failures), failures=failures)

    def _log_result(self, job: Job, work: asyncio.Task[int], lease: LeaseAnswer, ms: int) -> int:
        """Log the result of a run and return the number of consecutive failed runs."""
        error = TimeoutError() if work.cancelled() else work.exception()
        if error is not None:
            failures = lease.failures + 1
            self._log.error("job_failed", job=job.name, failures=failures, ms=ms, limit_ms=job.limit_ms, exc_info=error)
            return failures
        if work.result():
            self._log.info("job_ran", job=job.name, count=work.result(), ms=ms)
        return 0


async def _call(job: Job) -> int:
    return await job.run()


async def _wait_for(tasks: list[asyncio.Task[None]], seconds: float) -> set[asyncio.Task[None]]:
    """Wait for the tasks for at most `seconds`; return the tasks that have not ended."""
    return (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else set()
