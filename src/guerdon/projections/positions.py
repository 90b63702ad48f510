"""Positions of the partitions of a view group, and its generations, as stored."""

from typing import Literal

from bson import Timestamp
from msgspec import Struct, field
from pymongo import IndexModel

POSITIONS, GENERATIONS, VIEW_WORKERS = "view_positions", "view_generations", "view_workers"
INDEXES: dict[str, list[IndexModel]] = {
    POSITIONS: [],
    GENERATIONS: [],
    VIEW_WORKERS: [IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0)],
}
"""No secondary index of positions: a position is found by its `_id`, and a group has few."""

Phase = Literal["scan", "stream", "faulted"]
"""`scan`: the subjects are read, at first or because history was lost; `stream`: changes are followed; `faulted`: a document stops it."""


class Fault(Struct, frozen=True):
    """Document that a partition cannot pass."""

    document: str
    """Id of the document."""
    error: str
    """Type and place of the error."""
    since: int
    """Time at which it was first found, in milliseconds."""


class ViewPosition(Struct, frozen=True, kw_only=True):
    """Progress of one partition of one generation. It changes in the transaction that writes the rows."""

    id: str = field(name="_id")
    """`{group}@{version}/{part}`"""
    group: str
    version: int
    part: int
    epoch: int = 0
    """Number of take-overs. A worker that was replaced has a lower number, and its transaction writes nothing."""
    writes: int = 0
    """Number of transactions. With `epoch` it lets each transaction follow the one before."""
    holder: str = ""
    """Worker of the last take-over."""
    phase: Phase = "scan"
    source: int = 0
    """Index of the source that is scanned."""
    after: str = ""
    """Last subject of it whose documents were applied."""
    start: int = 0
    """Cluster time before the scan, from which the stream follows; 0 before the scan."""
    at: int = 0
    """Cluster time up to which every change is applied; 0 if no scan has ended yet."""
    at_ms: int = 0
    """The same in milliseconds by the clock of the database."""
    heartbeat: int = 0
    """Last time at which the holder wrote the position, in milliseconds by the clock of the database."""
    applied: int = 0
    """Number of documents that were applied."""
    redelivered: int = 0
    """Number of documents that arrived again and were passed over."""
    repaired: int = 0
    """Number of documents that were missing in the stream and were read from their collection."""
    scans: int = 0
    """Number of scans that began: 1, and 1 more for each time that history was lost or a fault was retried."""
    fault: Fault | None = None
    failures: int = 0
    """Number of consecutive attempts that ended in the fault."""


class Generation(Struct, frozen=True, kw_only=True):
    """One complete set of rows of a view group."""

    version: int
    definition: int
    """Version of the definition of the group that it is derived by."""
    state: Literal["building", "serving", "dropping"] = "building"
    created_at: int = 0
    switched_at: int = 0
    """Time at which it began to serve, or stopped."""
    waits: bool = False
    """True if it does not serve before a check has approved it."""


class Generations(Struct, frozen=True, kw_only=True):
    """Generations of a view group, oldest first."""

    id: str = field(name="_id")
    """Name of the group."""
    count: int = 0
    """Number of changes of this document."""
    newest: int = 0
    """Highest version that was used. A version is never used again."""
    generations: tuple[Generation, ...] = ()

    def serving(self) -> Generation | None:
        """Return the generation that is read, or None."""
        return next((each for each in reversed(self.generations) if each.state == "serving"), None)

    def building(self) -> Generation | None:
        """Return the newest generation that is being built, or None."""
        return next((each for each in reversed(self.generations) if each.state == "building"), None)


def position_id(group: str, version: int, part: int) -> str:
    return f"{group}@{version}/{part}"


def to_number(stamp: Timestamp) -> int:
    """Return a cluster time as a number that sorts as it does."""
    return (stamp.time << 32) | stamp.inc


def to_timestamp(number: int) -> Timestamp:
    return Timestamp(number >> 32, number & 0xFFFF_FFFF)


def milliseconds_of(number: int) -> int:
    """Return the second of a cluster time in milliseconds."""
    return (number >> 32) * 1000
