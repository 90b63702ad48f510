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
from guerdon.config import load
from guerdon.logs import make_logger
from guerdon.projections.generations import GenerationStore
from guerdon.wiring.jobs import projector_of
from guerdon.wiring.services import Services

COMMAND = "guerdon reports"
POLL_SECONDS, STOP_SECONDS = 0.5, 20.0
EXIT_STOPPED = 1

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]

reports_app = typer.Typer(no_args_is_help=True, help="Rebuild the views that reports are read from.")


class RebuildStopped(Exception):
    """The new views cannot be completed."""


@reports_app.command("rebuild")
def rebuild(data_dir: DataDir = None) -> None:
    """Build the views again from the entries and events, beside those that are read, and switch to them when they are complete. The service
    may run meanwhile, and so may workers, which share the work. A rebuild that was interrupted is continued.

    Exit code 1: a document cannot be applied; the views that were read before are still read.
    """

    async def work(services: Services) -> int:
        return await audited(services, "reports rebuild", {}, _rebuild(services))

    try:
        version = run_with_services(load(data_dir=data_dir), COMMAND, work)
    except RebuildStopped as stopped:
        typer.echo(f"not switched: {stopped}")
        raise typer.Exit(EXIT_STOPPED) from None
    typer.echo(f"version {version} is read now")


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
