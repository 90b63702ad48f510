"""Wire and stored shapes of the simulated clock."""

from typing import Annotated

from msgspec import Meta, Struct, field
from pymongo import IndexModel

CLOCKS = "clocks"
INDEXES: dict[str, list[IndexModel]] = {CLOCKS: []}
CLOCK_ID = "simulated"
ADVANCE_SECONDS_MAX = 3_650 * 86_400
"""Ten years, also altogether: dates stay within what every reader of them takes."""


class ClockAdvance(Struct, frozen=True, forbid_unknown_fields=True):
    """By how much the clock is put forward. It never goes back."""

    seconds: Annotated[int, Meta(ge=1, le=ADVANCE_SECONDS_MAX, examples=[86_400])]


class ClockView(Struct, frozen=True):
    """The time that this service believes in, and by how much that is ahead."""

    now: str
    advanced_seconds: int


class StoredClock(Struct, frozen=True):
    """By how much the clock of this database is ahead."""

    id: str = field(name="_id")
    offset_ms: int
