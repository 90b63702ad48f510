"""What a job is, and the row by which worker processes share it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec import Struct, field
from pymongo import IndexModel

LEASES = "leases"
INDEXES: dict[str, list[IndexModel]] = {LEASES: []}
"""No secondary index: a lease is found by the name of its job, and there are as many as jobs."""


@dataclass(frozen=True)
class Job:
    """Work that comes back. It may be cut off at any `await`, so what it has done must be of use, or harmless, as it stands."""

    name: str
    """Stable: the lease is known by it, also to workers of another version."""
    every_ms: int
    """From the beginning of one run to the beginning of the next."""
    run: Callable[[], Awaitable[int]]
    """Do what there is to do, and return how much that was."""
    limit_ms: int = 600_000
    """A run that takes longer is cancelled and has failed; otherwise one that hangs would hold the job for ever."""


class Lease(Struct, frozen=True):
    """Who runs a job, and when it is due. Times are milliseconds since the epoch by the database's clock, never by a worker's."""

    id: str = field(name="_id")
    """The name of the job."""
    holder: str | None = None
    """The worker that may run the job until `expires_at`."""
    expires_at: int = 0
    last_run_at: int = 0
    """When the newest run began."""
    due_at: int = 0
    failures: int = 0
    """Failed runs since the last good one."""
