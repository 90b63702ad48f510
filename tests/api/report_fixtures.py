"""What tests of reports share: a clock at a stated time, and a report read as JSON or CSV."""

import csv
import io
from datetime import datetime
from itertools import pairwise
from typing import Any

from guerdon.clock import to_ms
from guerdon.ledger.jobs import sweep
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.views.build import build_views


def set_clock(clock: ManualClock, moment: str) -> None:
    """Stop the clock at a time after the present one. Reports on a month need a month that is known."""
    clock.stop()
    clock.offset_ms += to_ms(datetime.fromisoformat(moment)) - clock.now_ms()


async def read_report(service: Caller, services: Services, path: str, asset: str = "PTS", **query: Any) -> dict[str, Any]:
    """Bring the views up to date and read a report. `start` and `end` are its range."""
    await build_views(services)
    names = {"start": "from", "end": "to"}
    answer = await service.get(path, asset=asset, **{names.get(name, name): value for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def read_csv(service: Caller, path: str, **query: Any) -> list[dict[str, str]]:
    names = {"start": "from", "end": "to"}
    headers = {"authorization": f"Bearer {service.token}", "accept": "text/csv"}
    params = {names.get(name, name): value for name, value in query.items()}
    answer = await service.client.get(path, params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def sweep_all(services: Services) -> int:
    """Write off what has expired, as the worker does."""
    return await sweep(services.ledger, services.database, services.clock)


def without_zeros(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value}


def ties(roll: dict[str, Any]) -> bool:
    """True if every row adds up, each begins where the one before ends, and the check finds no difference."""
    rows = roll["rows"]
    added = all(
        row["opening"] + row["earned"] + row["loaded"] + row["restored"] - row["redeemed"] - row["expired"] - row["clawed_back"]
        + row["adjusted"] + row["transferred"] == row["closing"]
        for row in (*rows, roll["total"])
    )  # fmt: skip
    joined = all(before["closing"] == after["opening"] for before, after in pairwise(rows))
    return added and joined and roll["check"]["difference"] == 0
