"""Jobs, and the leases by which worker processes share them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec import Struct, field
from pymongo import IndexModel

LEASES = "leases"
INDEXES: dict[str, list[IndexModel]] = {LEASES: []}
"""No secondary index: a lease is found by the name of its job, and each job has one lease."""


@dataclass(frozen=True)
class Job:
    """Recurring work. A run may be cancelled at any `await`, so partial work must be valid."""

    name: str
    """Stable name. It identifies the lease, also for workers of another version."""
    every_ms: int
    """Milliseconds from the start of one run to the start of the next."""
    run: Callable[[], Awaitable[int]]
    """Function that does the work and returns the number of processed items."""
    limit_ms: int = 600_000
    """Maximum duration of a run in milliseconds. A longer run is cancelled and has failed."""


class Lease(Struct, frozen=True):
    """Lease of a job. Times are milliseconds since the epoch by the clock of the database."""

    id: str = field(name="_id")
    """Name of the job."""
    holder: str | None = None
    """Worker that may run the job until `expires_at`; None for a free lease."""
    expires_at: int = 0
    last_run_at: int = 0
    """Start of the last run."""
    due_at: int = 0
    """Time at which the job is due."""
    failures: int = 0
    """Number of failed runs since the last successful run."""
