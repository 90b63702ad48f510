"""`guerdon reports`: rebuild the views that reports are read from."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guerdon.cli.audit import audited
from guerdon.cli.database import run_with_services
from guerdon.cli.reports_check import EXIT_DIFFERENT, check, text_of
from guerdon.config import load
from guerdon.logs import make_logger
from guerdon.projections.generations import GenerationStore
from guerdon.reports.check.service import CheckReport, NotChecked, check_views
from guerdon.wiring.jobs import projector_of
from guerdon.wiring.services import Services

COMMAND = "guerdon reports"
POLL_SECONDS, STOP_SECONDS = 0.5, 20.0
EXIT_STOPPED = 1

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]

reports_app = typer.Typer(no_args_is_help=True, help="Print reports, and rebuild and check the views that they are read from.")
reports_app.command("check")(check)


class RebuildStopped(Exception):
    """The new views cannot be completed."""


class RebuildDiffers(Exception):
    """The new views differ from what the check computes."""

    def __init__(self, report: CheckReport) -> None:
        super().__init__(report.view_version)
        self.report = report


@reports_app.command("rebuild")
def rebuild(
    compare: Annotated[
        bool, typer.Option("--check", help="Switch only if the new views equal what `guerdon reports check` computes.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Build the views again from the entries and events, beside those that are read, and switch to them when they are complete. The service
    may run meanwhile, and so may workers, which share the work. A rebuild that was interrupted is continued.

    Exit code 1: a document cannot be applied, or the new views cannot be checked. Exit code 3: the new views differ. The views that were read
    before are still read.
    """

    async def work(services: Services) -> int:
        return await audited(services, "reports rebuild", {}, _rebuild(services, compare=compare))

    try:
        version = run_with_services(load(data_dir=data_dir), COMMAND, work)
    except (RebuildStopped, NotChecked) as stopped:
        typer.echo(f"not switched: {stopped}")
        raise typer.Exit(EXIT_STOPPED) from None
    except RebuildDiffers as differs:
        typer.echo(text_of(differs.report))
        raise typer.Exit(EXIT_DIFFERENT) from None
    typer.echo(f"version {version} is read now")


async def _rebuild(services: Services, *, compare: bool) -> int:
    """Build a new generation, together with the workers that run, and wait until it serves; return its version."""
    store = GenerationStore(services.database, services.views.group, services.clock)
    version = (await store.rebuild(waits=compare)).version
    stopping = asyncio.Event()
    log = make_logger(services.clock, "error", sys.stderr)
    projector = asyncio.create_task(projector_of(services, log).run(stopping))
    try:
        if compare:
            await _show_until(services, store, version, "complete")
            await _check(services, store, version)
        await _show_until(services, store, version, "serving")
    finally:
        stopping.set()
        await asyncio.wait({projector}, timeout=STOP_SECONDS)
    return version


async def _check(services: Services, store: GenerationStore, version: int) -> None:
    """Check a generation that does not serve yet: approve it, or drop it."""
    try:
        report = await check_views(services.database, services.views.at(version), services.ledger.calendar)
        if not report.equal:
            raise RebuildDiffers(report)
    except BaseException:
        await store.reject(version)
        raise
    await store.approve(version)
    typer.echo(text_of(report))


async def _show_until(services: Services, store: GenerationStore, version: int, state: Literal["complete", "serving"]) -> None:
    """Show the progress until a generation is complete, or serves."""
    total = await count_documents(services)
    # A fault of an earlier attempt counts only if the document cannot be applied this time either.
    before = {position.id: position.failures for position in await store.positions(version)}
    console = Console(stderr=True)
    columns = (TextColumn("rebuild"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("rebuild", total=total)
        while not await _is_reached(store, version, state):
            positions = await store.positions(version)
            for position in positions:
                if position.fault is not None and position.failures > before.get(position.id, 0):
                    fault = position.fault
                    raise RebuildStopped(f"{fault.document} cannot be applied ({fault.error}); workers go on trying")
            done = sum(position.applied for position in positions)
            bar.update(task, completed=done, total=max(total, done))
            await asyncio.sleep(POLL_SECONDS)


async def _is_reached(store: GenerationStore, version: int, state: Literal["complete", "serving"]) -> bool:
    generation = next((each for each in (await store.read()).generations if each.version == version), None)
    if generation is None or generation.state == "dropping":
        raise RebuildStopped(f"version {version} was replaced by a newer one")
    return generation.state == "serving" or (state == "complete" and await store.is_complete(version))


async def count_documents(services: Services) -> int:
    """Return the approximate number of documents that the views are derived from."""
    feeds = [feed for source in services.views.group.sources for feed in source.feeds]
    return sum([await services.database.raw[feed.collection].estimated_document_count() for feed in feeds])
