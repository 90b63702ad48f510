"""Figures that the checks measure. The run prints them as one table at its end."""

from collections.abc import Iterable
from typing import NamedTuple

HEADINGS = ("check", "figure", "bound", "seconds", "")


class Figure(NamedTuple):
    """One measured value and the bound it must keep. A value without a bound is for information."""

    check: str
    value: str
    bound: str = ""


_recorded: list[Figure] = []


def record(check: str, value: object, bound: object = "") -> None:
    """Record a figure of the running check. Call it before the assertion, so that a failed check shows its figure too."""
    _recorded.append(Figure(check, str(value), str(bound)))


def take() -> list[Figure]:
    """Return the figures recorded since the last call."""
    taken = list(_recorded)
    _recorded.clear()
    return taken


class Check(NamedTuple):
    """One finished check: where it is, how it ended, how long it took, and what it measured."""

    name: str
    outcome: str
    seconds: float
    figures: list[Figure]

    def rows(self) -> Iterable[tuple[str, ...]]:
        """Return a row for each figure. The duration and a failure stand in the first one."""
        failed = "" if self.outcome == "passed" else self.outcome.upper()
        first, *others = self.figures or [Figure(self.name, self.outcome)]
        yield *first, f"{self.seconds:.0f}", failed
        for figure in others:
            yield *figure, "", failed


def table(checks: Iterable[Check]) -> list[str]:
    """Return the lines of the table."""
    rows = [HEADINGS, *(row for check in checks for row in check.rows())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
