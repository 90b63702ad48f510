"""`guerdon reports`: rebuild the views that reports are read from."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guerdon.cli.audit import audited
from guerdon.cli.database import run_with_services
from guerdon.cli.reports_check import EXIT_DIFFERENT, check, text_of
from guerdon.config import load
from guerdon.logs import make_logger
from guerdon.projections.generations import GenerationStore
from guerdon.projections.reading import Views
from guerdon.reports.check.service import CheckReport, check_views
from guerdon.wiring.jobs import projector_of
from guerdon.wiring.services import Services

COMMAND = "guerdon reports"
POLL_SECONDS, STOP_SECONDS = 0.5, 20.0
EXIT_STOPPED = 1

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]

Check = Annotated[
    bool, typer.Option("--check", help="Then compare the new views with the ledger and the events, as `reports check` does.")
]

reports_app = typer.Typer(no_args_is_help=True, help="Print reports, and rebuild and check the views that they are read from.")
reports_app.command("check")(check)


class RebuildStopped(Exception):
    """The new views cannot be completed."""


@reports_app.command("rebuild")
def rebuild(*, then_check: Check = False, data_dir: DataDir = None) -> None:
    """Build the views again from the entries and events, beside those that are read, and switch to them when they are complete. The service
    may run meanwhile, and so may workers, which share the work. A rebuild that was interrupted is continued.

    Exit code 1: a document cannot be applied; the views that were read before are still read. Exit code 3: with `--check`, the new views differ.
    """

    async def work(services: Services) -> tuple[int, CheckReport | None]:
        version = await audited(services, "reports rebuild", {}, _rebuild(services))
        # The views of this process may know the version before for a second.
        views = Views(services.database, services.clock, services.views.group)
        return version, await check_views(services.database, views, services.ledger.calendar) if then_check else None

    try:
        version, report = run_with_services(load(data_dir=data_dir), COMMAND, work)
    except RebuildStopped as stopped:
        typer.echo(f"not switched: {stopped}")
        raise typer.Exit(EXIT_STOPPED) from None
    typer.echo(f"version {version} is read now")
    if report is not None:
        typer.echo(text_of(report))
        if not report.equal:
            raise typer.Exit(EXIT_DIFFERENT)


async def _rebuild(services: Services) -> int:
    """Build a new generation, together with the workers that run, and wait until it serves; return its version."""
    store = GenerationStore(services.database, services.views.group, services.clock)
    generation = await store.rebuild()
    stopping = asyncio.Event()
    log = make_logger(services.clock, "error", sys.stderr)
    projector = asyncio.create_task(projector_of(services, log).run(stopping))
    try:
        await _wait_until_it_serves(services, store, generation.version)
    finally:
        stopping.set()
        await asyncio.wait({projector}, timeout=STOP_SECONDS)
    return generation.version


async def _wait_until_it_serves(services: Services, store: GenerationStore, version: int) -> None:
    total = await count_documents(services)
    console = Console(stderr=True)
    columns = (TextColumn("rebuild"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("rebuild", total=total)
        while True:
            found = await store.read()
            generation = next((each for each in found.generations if each.version == version), None)
            if generation is None or generation.state == "dropping":
                raise RebuildStopped(f"version {version} was replaced by a newer one")
            if generation.state == "serving":
                return
            positions = await store.positions(version)
            for position in positions:
                if position.fault is not None:
                    raise RebuildStopped(
                        f"{position.fault.document} cannot be applied ({position.fault.error}); workers go on trying"
                    )
            done = sum(position.applied for position in positions)
            bar.update(task, completed=done, total=max(total, done))
            await asyncio.sleep(POLL_SECONDS)


async def count_documents(services: Services) -> int:
    """Return the approximate number of documents that the views are derived from."""
    feeds = [feed for source in services.views.group.sources for feed in source.feeds]
    return sum([await services.database.raw[feed.collection].estimated_document_count() for feed in feeds])
