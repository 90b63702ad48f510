"""Routes of the simulated clock."""

from typing import Any

from guerdon.clock import rfc3339
from guerdon.errors import Validation
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, operation, send
from guerdon.permissions import scope
from guerdon.simulated_clock.models import ClockAdvance, ClockView
from guerdon.simulated_clock.service import ClockControl


class ClockResource:
    """`/v1/test/clock`"""

    def __init__(self, control: ClockControl) -> None:
        self._control = control

    @operation(
        "advanceClock",
        scope("clock:advance"),
        tag="test",
        body=ClockAdvance,
        answers={200: ClockView},
        errors=(Validation,),
        example={"seconds": 86_400},
    )
    async def on_post_advance(self, req: Request, resp: Response) -> None:
        """Advance the simulated clock of the development profile. Holds, lots, tokens, windows and jobs follow within 0.25 seconds."""
        body, _ = await read(req, ClockAdvance)
        now_ms, advanced_seconds = await self._control.advance(body.seconds)
        send(resp, ClockView(rfc3339(now_ms), advanced_seconds))


def routes(control: ClockControl) -> list[tuple[str, Any, str | None]]:
    """Return path, resource and suffix of every route."""
    return [("/v1/test/clock/advance", ClockResource(control), "advance")]
