"""`guerdon replay`: record the purchases and cancellations of the Online Retail data set."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guerdon.cli.database import run_with_services
from guerdon.cli.online_retail import LINE_ERRORS_SHOWN, RetailFile, read_file, record_events
from guerdon.cli.replay_options import ReplayOptions, read_campaigns
from guerdon.config import load

EXIT_LEFT_OUT = 3

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def replay(
    file: Annotated[Path, typer.Argument(help="The Online Retail data set as CSV or CSV.gz.")],
    *,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of events to record.")] = None,
    campaigns: Annotated[
        Path | None,
        typer.Option(help="JSON list of campaigns, each as for POST /v1/campaigns, to use instead of 1 point per pound."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Shuffle the events; the same number gives the same order.")] = None,
    again: Annotated[int, typer.Option(min=0, max=100, help="Percentage of events to send a second time.")] = 0,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Record real purchases and cancellations through the events service. The command can be killed and run again at any time.

    Exit code 3: some events were left out, because a line is broken or the event was refused.
    """
    console = Console(stderr=True)
    options = ReplayOptions([] if campaigns is None else read_campaigns(campaigns), seed, again)
    retail_file = read_file(file)
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("replay", total=None)
        summary = run_with_services(
            load(data_dir=data_dir),
            "guerdon replay",
            lambda services: record_events(
                services,
                retail_file,
                limit=limit,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                options=options,
            ),
            create=True,
        )
    _print_broken_lines(retail_file)
    for error in summary.errors:
        typer.echo(error, err=True)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        for name, count in asdict(summary).items():
            if name != "errors":
                typer.echo(f"{name.replace('_', ' '):24}{count:>10,}")
    if summary.broken_lines or summary.refused:
        raise typer.Exit(EXIT_LEFT_OUT)


def _print_broken_lines(file: RetailFile) -> None:
    for line, reason in list(file.broken.items())[:LINE_ERRORS_SHOWN]:
        typer.echo(f"line {line}: {reason}", err=True)
    more = len(file.broken) - LINE_ERRORS_SHOWN
    if more > 0:
        typer.echo(f"… and {more} more lines", err=True)
    if file.broken:
        typer.echo(f"{len(file.broken)} broken lines, {len(file.incomplete)} incomplete events left out", err=True)
