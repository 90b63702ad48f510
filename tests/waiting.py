"""Waiting for something that happens in its own time: as long as a busy machine may need, and no longer than it takes."""

import asyncio
import time
from collections.abc import Callable

SECONDS = 150.0


async def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {seconds} s"
        await asyncio.sleep(0.005)
