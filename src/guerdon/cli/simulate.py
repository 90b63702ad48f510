"""`guerdon simulate`: simulate a campaign on recorded events, and print the simulated awards beside the real ones."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guerdon.campaigns.models import CampaignCreate
from guerdon.cli.audit import audited
from guerdon.cli.database import local_database, local_services
from guerdon.clock import SystemClock
from guerdon.config import load
from guerdon.errors import StartupRefused
from guerdon.logs import make_logger
from guerdon.permissions import ANY_SCOPE, Actor
from guerdon.simulations.models import Figures, Report, Row, Simulation, SimulationCreate, view_simulation
from guerdon.wiring.jobs import simulation_jobs
from guerdon.wiring.services import Services
from guerdon.workers.service import Runner

ACTOR = Actor("system:terminal", "system", frozenset({ANY_SCOPE}))
EXIT_ENDED = 3
POLL_SECONDS = 0.25
WEEKS_SHOWN = 12
FILE_BYTES_MAX = 1_000_000

CampaignId = Annotated[str, typer.Argument(help="Id of the campaign.")]
From = Annotated[
    str | None, typer.Option("--from", help="Only events that occurred at or after this time, for example 2026-01-01T00:00:00Z.")
]
To = Annotated[str | None, typer.Option("--to", help="Only events that occurred before this time.")]
File = Annotated[
    Path | None,
    typer.Option("--file", help="JSON file with the campaign to try, as for POST /v1/campaigns, instead of the saved one."),
]
IgnoreDates = Annotated[bool, typer.Option("--ignore-dates", help="Ignore the start and the end of the campaign.")]
UnitCost = Annotated[str, typer.Option("--unit-cost", help="Cost of one minor unit of the asset, in minor units of money.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]


def simulate(
    campaign_id: CampaignId,
    *,
    since: From = None,
    until: To = None,
    file: File = None,
    ignore_dates: IgnoreDates = False,
    unit_cost: UnitCost = "1",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Simulate a campaign on recorded events, and compare it with what was really paid. This command works on it together with the workers.

    Exit code 3: the simulation was cancelled or has failed.
    """
    body = _read_body(
        {"occurred_from": since, "occurred_before": until, "ignore_dates": ignore_dates, "unit_cost": unit_cost}, file
    )
    console = Console(stderr=True)
    columns = (TextColumn("simulate"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        local_database(load(data_dir=data_dir), "guerdon simulate") as settings,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("simulate", total=None)

        async def run() -> Simulation:
            async with local_services(settings) as services:
                return await _run(services, campaign_id, body, lambda done, total: bar.update(task, completed=done, total=total))

        simulation = asyncio.run(run())
    if as_json:
        typer.echo(msgspec.json.encode(view_simulation(simulation)).decode())
    elif simulation.report is not None:
        typer.echo(_text_of(simulation, simulation.report))
    if simulation.status != "done":
        typer.echo(f"{simulation.id} is {simulation.status}{f': {simulation.error}' if simulation.error else ''}", err=True)
        raise typer.Exit(EXIT_ENDED)


def _read_body(options: dict[str, object], file: Path | None) -> SimulationCreate:
    """
    Raises:
        StartupRefused: an option or the file is invalid.
    """
    try:
        if file is not None:
            with file.open("rb") as handle:
                options["campaign"] = msgspec.json.decode(handle.read(FILE_BYTES_MAX), type=CampaignCreate)
        given = {name: value for name, value in msgspec.to_builtins(options).items() if value is not None}
        return msgspec.convert(given, SimulationCreate)
    except OSError as error:
        raise StartupRefused(f"{file} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{file if file is not None else 'an option'} is invalid: {error}") from None


async def _run(
    services: Services, campaign_id: str, body: SimulationCreate, progress: Callable[[int, int | None], None]
) -> Simulation:
    creation = services.simulations.create(ACTOR, campaign_id, body)
    simulation = await audited(services, "simulate", {"campaign_id": campaign_id[:100]}, creation)
    try:
        async with _running_simulations(services):
            while simulation.status in ("waiting", "running"):
                await asyncio.sleep(POLL_SECONDS)
                simulation = await services.simulations.get(simulation.id)
                progress(simulation.done, simulation.total)
    except asyncio.CancelledError:
        # The command was interrupted, so the result is not needed.
        await services.simulations.cancel(simulation.id)
        raise
    return simulation


@asynccontextmanager
async def _running_simulations(services: Services) -> AsyncGenerator[None]:
    """Run the simulation jobs in this process until the context ends. No worker needs to run, and with workers the simulation is faster."""
    stopping = asyncio.Event()
    log = make_logger(SystemClock(), "error", sys.stderr)
    runner = asyncio.create_task(Runner(services.database, services.ids, log, simulation_jobs(services)).run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await runner


def _text_of(simulation: Simulation, report: Report) -> str:
    campaign = simulation.campaign
    version = f"version {campaign.version}" if simulation.saved else "not saved"
    lines = [
        f"{simulation.id}: {campaign.name} ({campaign.id}, {version}) on {report.events:,} events, in {report.asset}",
        "",
        f"{'':24}{'simulated':>14}{'real':>14}{'difference':>14}",
    ]
    for title, comparison in (("this campaign", report.total.campaign), ("all campaigns", report.total.programme)):
        lines.append(title)
        for name in Figures.__struct_fields__:
            simulated, real, difference = (
                getattr(side, name) for side in (comparison.simulated, comparison.real, comparison.difference)
            )
            lines.append(f"  {name.replace('_', ' '):22}{simulated:>14,}{real:>14,}{difference:>+14,}")
    for title, rows in (("by tier", report.by_tier), ("by segment", report.by_segment), ("by week", report.by_week[-WEEKS_SHOWN:])):
        lines += ["", f"{title:24}{'campaign':>14}{'all':>14}{'real all':>14}{'members':>10}", *map(_line, rows)]
    if len(report.by_week) > WEEKS_SHOWN:
        lines.append(f"  … the last {WEEKS_SHOWN} of {len(report.by_week)} weeks; --json prints all")
    lines += ["", f"{'largest winners':40}{'campaign':>14}{'real':>14}"]
    lines += [
        f"  {each.member_id:38}{each.campaign_simulated:>14,}{each.campaign_real:>14,}" for each in report.largest_winners[:10]
    ]
    skipped = report.as_it_was
    if count := skipped.recorded_without_inputs + skipped.version_missing + skipped.member_erased:
        lines += ["", f"{count:,} events could not be evaluated again; their real awards count on both sides"]
    return "\n".join(lines)


def _line(row: Row) -> str:
    campaign, programme = row.campaign.simulated, row.programme
    return (
        f"  {row.name:22}{campaign.points:>14,}{programme.simulated.points:>14,}{programme.real.points:>14,}{campaign.members:>10,}"
    )
