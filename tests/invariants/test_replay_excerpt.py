"""The first lines of the real file: the oracle's answer, twice; and broken lines, which leave their event out whole."""

from collections.abc import Callable
from pathlib import Path

import pytest

from guerdon.campaigns.domain import EVENTS
from guerdon.cli.main import EXIT_LEFT_OUT
from guerdon.cli.online_retail import read_file
from guerdon.config import Settings
from guerdon.ledger.store import ENTRIES
from guerdon.verification.service import verify
from guerdon.wiring.services import Services
from tests.invariants.retail import ORACLE, Run, ask_oracle, guerdon, head, heads_of, places, points_of, write_csv

LINES = 500
VICTIM = ("536365", "17850")
"""The first event of the file: lines 2 to 8."""
BROKEN_LINE = 4
NEEDS_ORACLE = pytest.mark.skipif(not ORACLE.is_file(), reason="NOT CHECKED: the oracle and its data are not beside this checkout")


@pytest.fixture
def lines() -> list[str]:
    return head(LINES)


async def run_replay(settings: Settings, path: Path) -> Run:
    return await guerdon("replay", str(path), "--json", **places(settings))


@NEEDS_ORACLE
async def test_replayed_excerpt_matches_the_oracle(
    services: Services, settings: Settings, lines: list[str], tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "excerpt.csv.gz", lines)
    points, totals = ask_oracle(path)
    first = await run_replay(settings, path)
    assert first.status == 0, first.err
    assert first.summary["recorded"] == totals["purchases"] + totals["refunds"]
    assert (first.summary["purchases"], first.summary["refunds"]) == (totals["purchases"], totals["refunds"])
    assert (first.summary["rows"], first.summary["rows_without_customer"]) == (LINES, totals["rows_without_customer"])
    assert await points_of(services) == points
    heads, entries = await heads_of(services), await services.database.raw[ENTRIES].count_documents({})
    again = await run_replay(settings, path)
    assert again.status == 0, again.err
    assert (again.summary["recorded"], again.summary["recorded_before"]) == (0, first.summary["recorded"])
    assert await heads_of(services) == heads
    assert await services.database.raw[ENTRIES].count_documents({}) == entries
    assert (await verify(services.database)).violations == 0


def of_line(line: str, place: int, value: str) -> str:
    columns = line.rstrip("\r\n").split(",")
    columns[place] = value
    return ",".join(columns) + "\n"


BREAKS: dict[str, Callable[[str], str]] = {
    "quantity": lambda line: of_line(line, 3, "six"),
    "fraction": lambda line: of_line(line, 3, "6.5"),
    "price": lambda line: of_line(line, 5, "2,55"),
    "no price": lambda line: of_line(line, 5, ""),
    "NaN": lambda line: of_line(line, 5, "NaN"),
    "sku": lambda line: of_line(line, 1, ""),
    "customer": lambda line: of_line(line, 6, "17850.x"),
    "bytes": lambda line: of_line(line, 6, "1785\udcff"),
    "short": lambda line: ",".join(line.split(",")[:4]) + "\n",
    "cut": lambda line: line.split(",")[0] + "\n",
    "comma": lambda line: line.replace(" ", ",", 1),
}


@pytest.mark.parametrize("what", BREAKS)
def test_broken_line_excludes_its_whole_event(lines: list[str], tmp_path: Path, what: str) -> None:
    """A part of an invoice is not an invoice: whatever is wrong with one of its lines, the rest must not be paid."""
    sound = read_file(write_csv(tmp_path / "sound.csv.gz", lines))
    assert sound.broken == {}
    assert VICTIM in sound.invoices
    lines[BROKEN_LINE - 1] = BREAKS[what](lines[BROKEN_LINE - 1])
    reading = read_file(write_csv(tmp_path / "broken.csv.gz", lines))
    assert list(reading.broken) == [BROKEN_LINE]
    assert VICTIM not in reading.invoices
    assert reading.invoices == {name: invoice for name, invoice in sound.invoices.items() if name != VICTIM}
    assert (reading.rows, reading.rows_without_customer) == (sound.rows, sound.rows_without_customer)


@NEEDS_ORACLE
async def test_broken_lines_are_reported_and_change_nothing_else(
    services: Services, settings: Settings, lines: list[str], tmp_path: Path
) -> None:
    """A bad quantity in the first event, a bad date in the second one, and two lines of noise."""
    sound = [line for line in lines if not line.startswith(("536365,", "536366,"))]
    points, totals = ask_oracle(write_csv(tmp_path / "sound.csv.gz", sound))
    lines[BROKEN_LINE - 1] = BREAKS["quantity"](lines[BROKEN_LINE - 1])
    second = next(place for place, line in enumerate(lines) if line.startswith("536366,"))
    lines[second] = of_line(lines[second], 4, "yesterday")
    lines[100:100] = ["*** not a line at all ***\n"]
    lines.append("\udcfe\udcff,,,\n")
    run = await run_replay(settings, write_csv(tmp_path / "broken.csv.gz", lines))
    assert run.status == EXIT_LEFT_OUT == 3
    for number in (BROKEN_LINE, second + 1, 101, len(lines)):
        assert f"line {number}: " in run.err
    assert run.err.count("line ") == 4
    assert (run.summary["broken_lines"], run.summary["events_left_out"], run.summary["refused"]) == (4, 2, 0)
    assert run.summary["recorded"] == totals["purchases"] + totals["refunds"]
    assert await points_of(services) == points
    recorded = {row["_id"] async for row in services.database.raw[EVENTS].find({}, {"_id": 1})}
    assert len(recorded) == run.summary["recorded"]
    assert not {name for name in recorded if name.startswith(("536365-", "536366-"))}
    assert (await verify(services.database)).violations == 0
    report = await guerdon("verify", "--json", **places(settings))
    assert (report.status, report.summary["violations"]) == (0, 0)
