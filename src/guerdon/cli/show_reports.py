"""`guerdon reports list` and `guerdon reports show`: print reports at a terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from guerdon.cli.database import run_with_services
from guerdon.config import load
from guerdon.errors import StartupRefused
from guerdon.http.query import query_of
from guerdon.reports.models import ReportHead
from guerdon.reports.registry import ReportDefinition, describe_report
from guerdon.reports.rows import cells_of, columns_of, csv_of, row_type_of, rows_of
from guerdon.wiring.services import Services

COMMAND = "guerdon reports"
ASSET = "asset"

Name = Annotated[str, typer.Argument(help="Name of a report, as `guerdon reports list` prints it.")]
Asset = Annotated[str | None, typer.Option("--asset", help="Code of the asset, for reports on one asset.")]
From = Annotated[str | None, typer.Option("--from", help="First day, such as 2026-11-01.")]
To = Annotated[str | None, typer.Option("--to", help="Day after the last one.")]
Group = Annotated[Literal["day", "month"] | None, typer.Option("--group", help="Period of a row.")]
Others = Annotated[
    list[str] | None, typer.Option("--with", help="Another parameter of the report, as NAME=VALUE; may be repeated.")
]
Format = Annotated[Literal["table", "json", "csv"], typer.Option("--format", help="Form of the output.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]


def list_reports(data_dir: DataDir = None) -> None:
    """Print the reports with their parameters; those in brackets may be left out."""
    reports = run_with_services(load(data_dir=data_dir), COMMAND, _definitions)
    table = Table("report", "shows", "parameters", box=None, pad_edge=False)
    for report in reports:
        described = describe_report(report)
        names = [each.name if each.required else f"({each.name})" for each in described.parameters]
        table.add_row(report.name, report.summary, " ".join(names))
    Console(highlight=False, markup=False, soft_wrap=False).print(table)


def show_report(
    name: Name,
    *,
    asset: Asset = None,
    starts: From = None,
    ends: To = None,
    group: Group = None,
    others: Others = None,
    form: Format = "table",
    data_dir: DataDir = None,
) -> None:
    """Print a report. Amounts of JSON and CSV are minor units; a table shows them with the decimal places of the asset."""
    named = {ASSET: asset, "from": starts, "to": ends, "group": group}
    given = {key: value for key, value in named.items() if value is not None} | dict(map(_pair_of, others or []))

    async def make(services: Services) -> ReportHead:
        definition = services.reports.get_report(name)
        return await services.reports.make(name, query_of(given, definition.query))

    report = run_with_services(load(data_dir=data_dir), COMMAND, make)
    if form == "json":
        typer.echo(msgspec.json.encode(report).decode())
    elif form == "csv":
        typer.echo(csv_of(report).decode(), nl=False)
    else:
        _print_table(report)


async def _definitions(services: Services) -> Sequence[ReportDefinition]:
    return services.reports.list_reports()


def _pair_of(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise StartupRefused("--with takes NAME=VALUE, for example --with days=60")
    return name, value


def _print_table(report: ReportHead) -> None:
    """Print the rows with a title, and the freshness of the figures below them."""
    row = row_type_of(type(report))
    columns = columns_of(row)
    shown = [index for index, column in enumerate(columns) if column not in (ASSET, "scale") or report.asset is None]
    amounts = {field.encode_name for field in msgspec.structs.fields(row) if field.type in (int, int | None)} - _COUNTS
    lines = [[columns[index] for index in shown]]
    for each in rows_of(report):
        cells = cells_of(each, report)
        lines.append([_text_of(cells[index], report.scale if columns[index] in amounts else None) for index in shown])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [columns[index] in amounts | _COUNTS for index in shown]
    typer.echo(" ".join(part for part in (report.report, report.asset, report.starts, report.ends) if part))
    for line in lines:
        cells = [
            cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        typer.echo("  ".join(cells).rstrip())
    typer.echo(f"as of {report.as_of}, {report.behind_seconds:.1f} s behind; defined at {report.definition}")


_COUNTS = frozenset({"rank", "count", "members"})
"""Columns of whole numbers that are no amounts."""


def _text_of(cell: str | float, scale: int | None) -> str:
    """Return a cell as people read it: an amount with the decimal places of its asset."""
    if scale is None or not isinstance(cell, int):
        return str(cell)
    whole, fraction = divmod(abs(cell), 10**scale)
    sign = "-" if cell < 0 else ""
    return f"{sign}{whole:,}.{fraction:0{scale}}" if scale else f"{sign}{whole:,}"
