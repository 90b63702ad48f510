"""Wire and stored structs of the simulated clock."""

from typing import Annotated

from msgspec import Meta, Struct, field
from pymongo import IndexModel

CLOCKS = "clocks"
INDEXES: dict[str, list[IndexModel]] = {CLOCKS: []}
CLOCK_ID = "simulated"
ADVANCE_SECONDS_MAX = 3_650 * 86_400
"""Ten years, for one request and in total. All dates stay within the range that readers of RFC 3339 accept."""


class ClockAdvance(Struct, frozen=True, forbid_unknown_fields=True):
    """Request to advance the simulated clock. It cannot be set back."""

    seconds: Annotated[int, Meta(ge=1, le=ADVANCE_SECONDS_MAX, examples=[86_400])]
    """Seconds by which the clock advances."""


class ClockView(Struct, frozen=True):
    """Time of the simulated clock."""

    now: str
    """Time of the simulated clock, RFC 3339 in UTC."""
    advanced_seconds: int
    """Seconds by which the simulated clock is ahead of the real one, in total."""


class StoredClock(Struct, frozen=True):
    """Offset of the simulated clock, in milliseconds. All processes of the database share it."""

    id: str = field(name="_id")
    offset_ms: int
