"""`guerdon keys new-master-keys` and `rotate-master`: manage the keys that seal personal data."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guerdon.cli.audit import audited
from guerdon.cli.database import run_with_services
from guerdon.collections import SEALED_FIELDS
from guerdon.config import load
from guerdon.crypto.sealing import MasterKeys
from guerdon.errors import StartupRefused
from guerdon.privacy.resealing import ReportProgress, Resealed, reseal
from guerdon.wiring.services import Services

EXIT_LEFT_OUT = 3

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Beside = Annotated[Path | None, typer.Option("--beside", help="File of existing master keys; the new key is appended to them.")]


def new_master_keys(beside: Beside = None) -> None:
    """Print a new JWK set for GUERDON_MASTER_KEYS_FILE. Without this file all personal data is lost: keep a copy apart from the database."""
    if beside is None:
        typer.echo(MasterKeys.generate())
        return
    try:
        existing = beside.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{beside} cannot be read: {type(error).__name__}") from None
    key_set = MasterKeys.generate(beside=existing)
    MasterKeys(key_set)  # Raises an error for a set that the processes would refuse: too many keys, or a key twice.
    typer.echo(key_set)


def rotate_master(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Seal again, under the first master key, all data that is sealed under other master keys. The service may run meanwhile. The command can
    be killed and run again.

    Exit code 3: some data cannot be opened with any of the keys.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {field.collection: bar.add_task(field.collection, total=None) for field in SEALED_FIELDS}

        def show_progress(collection: str, examined: int, total: int) -> None:
            bar.update(tasks[collection], completed=examined, total=total)

        def work(services: Services) -> Awaitable[list[Resealed]]:
            return audited(services, "keys rotate-master", {}, _reseal(services, show_progress))

        results = run_with_services(load(data_dir=data_dir), "guerdon keys", work)
    typer.echo(msgspec.json.encode({"places": results}).decode() if as_json else "\n".join(map(_line, results)))
    typer.echo(_summary(results), err=True)
    if any(each.unopenable for each in results):
        raise typer.Exit(EXIT_LEFT_OUT)


async def _reseal(services: Services, progress: ReportProgress) -> list[Resealed]:
    return await reseal(services.database, services.vault.master, SEALED_FIELDS, progress)


def _line(result: Resealed) -> str:
    unopenable = f", {result.unopenable:,} cannot be opened: {', '.join(result.unopenable_ids)}" if result.unopenable else ""
    return f"{result.collection:14}{result.resealed:>12,} sealed again{result.current:>12,} unchanged{unopenable}"


def _summary(results: list[Resealed]) -> str:
    if any(each.unopenable for each in results):
        return "Some data is sealed under keys that are not configured. Add these keys and run the command again; without them the data is lost."
    if any(each.resealed for each in results):
        return "Run the command again when every process seals with the first key. The other keys can be removed once no data is sealed again."
    return "All data is sealed under the first key. If it is the first key of every process, the other keys can be removed."
