"""Synchronisation of a process with the clock of the database."""

from datetime import UTC

from structlog.typing import FilteringBoundLogger

from guerdon.clock import DatabaseClock, to_ms
from guerdon.database import Database
from guerdon.errors import ClockSkewed

MEASURE_SECONDS = 10.0
"""Interval of the measurements."""
SAMPLES = 3
"""Questions of one measurement. The fastest answer counts: it leaves the least doubt about when the database read its clock."""


class ClockSync:
    """Measurement of the clock of the primary, and comparison with the clock of this machine.

    Behind a `mongos` it is the clock of the `mongos`.
    """

    def __init__(self, database: Database, clock: DatabaseClock, skew_ms_max: int) -> None:
        self._database = database
        self._clock = clock
        self._skew_ms_max = skew_ms_max
        self._reported = False
        self.skewed_measurements = 0
        """Number of measurements that found the clocks too far apart."""

    @property
    def skew_ms(self) -> int:
        """Time of this machine minus the time of the database, in milliseconds."""
        return self._clock.skew_ms

    @property
    def skewed(self) -> bool:
        """True while the clocks are further apart than the setting allows."""
        return abs(self.skew_ms) > self._skew_ms_max

    async def measure(self) -> None:
        """Measure the clock of the primary, and correct the clock of this process.

        Raises:
            PyMongoError: the database does not answer; the clock goes on.
        """
        best: tuple[float, float, int] | None = None
        for _ in range(SAMPLES):
            sent_at = self._clock.monotonic()
            # `hello` needs no privilege and no data, and a primary and a `mongos` answer it with their time.
            answer = await self._database.client.admin.command("hello")
            received_at = self._clock.monotonic()
            read_ms = to_ms(answer["localTime"].replace(tzinfo=UTC))
            if best is None or received_at - sent_at < best[1] - best[0]:
                best = (sent_at, received_at, read_ms)
        assert best is not None
        self._clock.adopt(best[2], best[0], best[1])
        self.skewed_measurements += self.skewed

    async def follow(self, log: FilteringBoundLogger) -> None:
        """Measure and report.

        Raises:
            PyMongoError: the database does not answer.
        """
        await self.measure()
        self.report(log)

    def report(self, log: FilteringBoundLogger) -> None:
        """Log the beginning and the end of a difference that is too large, as the last measurement found it."""
        if self.skewed and not self._reported:
            log.error("clock_skew", skew_ms=self.skew_ms, skew_ms_max=self._skew_ms_max, detail=self._detail())
        elif self._reported and not self.skewed:
            log.warning("clock_skew_ended", skew_ms=self.skew_ms)
        self._reported = self.skewed

    async def require_agreement(self) -> None:
        """Measure again if the clocks seem too far apart, and refuse if they are.

        Raises:
            ClockSkewed: the clock of this machine differs from that of the database by more than the setting allows.
            PyMongoError: the database does not answer.
        """
        if self.skewed:
            await self.measure()
            if self.skewed:
                raise ClockSkewed(self._detail(), retry_after_seconds=int(MEASURE_SECONDS), skew_ms=self.skew_ms)

    def _detail(self) -> str:
        skew_ms = self.skew_ms
        direction = "ahead of" if skew_ms > 0 else "behind"
        return (
            f"the clock of this machine is {abs(skew_ms) / 1000:.3f} s {direction} the clock of the database; synchronise both machines "
            "with the same time servers"
        )
