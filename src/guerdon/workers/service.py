"""Runs the jobs of one worker process. Nothing that a job does, or fails to do, ends the runner or the other jobs."""

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
"""How long a cancelled job may take to end, and its lease to be given back; with `STOP_MS` it stays under ten seconds."""
LOOK_MS_MIN = 10
TROUBLE_MS = 1_000


class Runner:
    """Runs each job on its schedule, in whichever of the workers on one database gets its lease."""

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
        """`stop_ms`: how long a job under way may go on when the runner is asked to stop, before it is cancelled.

        Raises:
            ValueError: two jobs have one name, and so would share one lease.
        """
        if len({job.name for job in jobs}) < len(jobs):
            raise ValueError("every job needs a name of its own")
        self._leases = Leases(database, ids.new("wrk"), lease_ms)
        self._log = log
        self._jobs = tuple(jobs)
        self._lease_ms = lease_ms
        self._stop_ms = stop_ms

    async def run(self, stopping: asyncio.Event) -> None:
        """Run the jobs until `stopping` is set; then end those under way, within bounds, and give their leases back."""
        loops = [asyncio.create_task(self._look_after(job, stopping), name=job.name) for job in self._jobs]
        try:
            await stopping.wait()
            await _wait_for(loops, self._stop_ms / 1000)
        finally:
            for loop in loops:
                loop.cancel()
            for stuck in await _wait_for(loops, CANCEL_SECONDS):
                self._log.error("job_stuck", job=stuck.get_name())

    async def _look_after(self, job: Job, stopping: asyncio.Event) -> None:
        """Run one job whenever it is this worker's turn."""
        troubles = 0
        while not stopping.is_set():
            try:
                turn = await self._leases.take(job)
                if turn.granted:
                    await self._run(job, turn)
                wait_ms, troubles = turn.wait_ms, 0
            except Exception as error:  # Whatever it was, the job must be tried again: nobody else would notice.
                troubles += 1
                wait_ms = pause_ms(TROUBLE_MS, troubles)
                self._log.error("lease_failed", job=job.name, exc_info=error)
            # Never longer than a lease: the holder may have died, and the server's clock may have been set back.
            seconds = min(max(wait_ms, LOOK_MS_MIN), self._lease_ms) / 1000
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), seconds)

    async def _run(self, job: Job, turn: LeaseAnswer) -> None:
        """Run the job once, under its lease. When this is cancelled, so is the job."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        work = asyncio.create_task(_call(job))
        keeper = asyncio.create_task(self._leases.keep(job, turn.asked_at))
        late = cut = False
        try:
            ended, _ = await asyncio.wait({work, keeper}, timeout=job.limit_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            late = not ended
        finally:
            if not work.done():
                cut = True
                work.cancel()
                await asyncio.wait({work})
            keeper.cancel()
            ms = round((loop.time() - began) * 1000)
            if cut and not late and work.cancelled():
                # Stopped, or without its lease: neither done nor failed, and due at once for whoever is next.
                self._log.warning("job_interrupted", job=job.name, ms=ms)
                await self._leases.release(job, pause_ms=0, failures=turn.failures)
            else:
                failures = self._report(job, work, turn, ms)
                await self._leases.release(job, pause_ms=pause_ms(job.every_ms, failures), failures=failures)

    def _report(self, job: Job, work: asyncio.Task[int], turn: LeaseAnswer, ms: int) -> int:
        """Log how a run ended, and return how many have failed in a row now."""
        error = TimeoutError() if work.cancelled() else work.exception()
        if error is not None:
            failures = turn.failures + 1
            self._log.error("job_failed", job=job.name, failures=failures, ms=ms, limit_ms=job.limit_ms, exc_info=error)
            return turn.failures + 1
        if work.result():
            self._log.info("job_ran", job=job.name, count=work.result(), ms=ms)
        return 0


async def _call(job: Job) -> int:
    return await job.run()


async def _wait_for(tasks: list[asyncio.Task[None]], seconds: float) -> set[asyncio.Task[None]]:
    """Wait until the tasks have ended, or the time is up; return those that have not."""
    return (await asyncio.wait(tasks, timeout=seconds))[1] if tasks else set()
