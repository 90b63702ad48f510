"""`make explain`: explain every query of the product on a scratch database with a million entries."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guerdon.cli.database import local_database
from guerdon.collections import INDEXES
from guerdon.config import Settings, load
from guerdon.database import Database
from tools.query_plans.cases import cases_of
from tools.query_plans.notation import Query
from tools.query_plans.plans import Finding, explain, idle_indexes
from tools.query_plans.queries import QUERIES
from tools.query_plans.sample import Sample, fill, scratch_database
from tools.query_plans.write_cost import Cost, measure

EXIT_FAULTS = 1
ENTRIES_MIN, ENTRIES_DEFAULT = 2000, 1_000_000

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
Entries = Annotated[int, typer.Option(min=ENTRIES_MIN, help="Number of entries to write.")]
WriteCost = Annotated[
    bool, typer.Option("--write-cost", help="Measure the cost that each secondary index adds to a write instead.")
]
OnlyList = Annotated[bool, typer.Option("--list", help="Print the catalogue instead: every query, its shape and its sender.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def explain_queries(
    entries: Entries = ENTRIES_DEFAULT,
    write_cost: WriteCost = False,
    only_list: OnlyList = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Explain every query on a scratch database beside that of the product. Exit code 1 if a query examines too much, or an index serves no query."""
    if only_list:
        typer.echo(_catalogue())
        return
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        local_database(load(data_dir=data_dir), "make explain") as settings,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        if write_cost:
            costs = asyncio.run(_measure(settings, entries, bar))
            typer.echo(msgspec.json.encode(costs).decode() if as_json else _cost_table(costs))
            return
        findings = asyncio.run(_explain(settings, entries, bar))
    idle = idle_indexes(findings, QUERIES, INDEXES)
    if as_json:
        typer.echo(msgspec.json.encode({"entries": entries, "findings": findings, "idle_indexes": idle}).decode())
    else:
        typer.echo(_table(findings))
        for line in _summary(findings, idle):
            typer.echo(line)
    if idle or any(finding.fault for finding in findings):
        raise typer.Exit(EXIT_FAULTS)


async def explain_all(database: Database, sample: Sample, queries: Mapping[str, Query] = QUERIES) -> list[Finding]:
    """Explain every case of every query, in the order of the catalogue."""
    order = list(queries)
    cases = sorted(cases_of(sample), key=lambda case: order.index(case[0]))
    return [await explain(database, queries[name], case, parameters) for name, case, parameters in cases]


async def _explain(settings: Settings, entries: int, bar: Progress) -> list[Finding]:
    async with scratch_database(_url(settings), settings.mongodb_database) as database:
        return await explain_all(database, await _filled(database, entries, bar))


async def _measure(settings: Settings, entries: int, bar: Progress) -> list[Cost]:
    async with scratch_database(_url(settings), settings.mongodb_database) as database:
        await _filled(database, entries, bar)
        task = bar.add_task("rounds", total=None)
        return await measure(database, INDEXES, lambda done, total: bar.update(task, completed=done, total=total))


async def _filled(database: Database, entries: int, bar: Progress) -> Sample:
    task = bar.add_task("entries", total=entries)
    return await fill(database, entries, lambda done: bar.update(task, completed=done))


def _url(settings: Settings) -> str:
    assert settings.mongodb_url is not None, "set by local_database"
    return settings.mongodb_url.get_secret_value()


def _catalogue() -> str:
    rows = [("query", "path", "shape", "sent by")]
    rows += [(each.name, each.path, f"`{each.shape}`", each.callers) for each in QUERIES.values()]
    return _markdown(rows, numbers_from=len(rows[0]))


def _table(findings: Sequence[Finding]) -> str:
    rows = [("query", "case", "index", "keys", "documents", "returned", "ms")]
    for finding in findings:
        plan = finding.plan
        index = f"{plan.index}, sorts" if plan.sorts else plan.index
        numbers = (f"{plan.keys:,}", f"{plan.docs:,}", f"{plan.returned:,}", f"{plan.ms:,}")
        rows.append((finding.query, finding.case, index, *numbers))
    return _markdown(rows, numbers_from=3)


def _cost_table(costs: Sequence[Cost]) -> str:
    rows = [("index", "write", "without, µs", "with, µs", "ratio")]
    rows += [(each.index, each.write, f"{each.without_us:.1f}", f"{each.with_us:.1f}", f"{each.ratio:.2f}") for each in costs]
    return _markdown(rows, numbers_from=2)


def _markdown(rows: Sequence[tuple[str, ...]], *, numbers_from: int) -> str:
    """Return a Markdown table with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: tuple[str, ...]) -> str:
        cells = [
            cell.rjust(width) if at >= numbers_from else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if at >= numbers_from else "-") for at, width in enumerate(widths)) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def _summary(findings: Sequence[Finding], idle: Sequence[str]) -> list[str]:
    faults = [f"{each.query} ({each.case}): {each.fault}" for each in findings if each.fault]
    lines = [f"BROKEN  {fault}" for fault in faults] + [f"BROKEN  the index {name} serves no query" for name in idle]
    names = {finding.query for finding in findings}
    return lines or [
        f"{len(names)} queries, {len(findings)} cases: every query of a request keeps the rule, and every index serves a query"
    ]
