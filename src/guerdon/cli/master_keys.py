"""`guerdon keys new-master-keys` and `rotate-master`: the keys that everything personal is sealed under."""

import asyncio
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guerdon.cli.auditing import audited
from guerdon.cli.local import local_database, local_services
from guerdon.collections import SEALED_FIELDS
from guerdon.config import load
from guerdon.crypto.sealing import MasterKeys
from guerdon.errors import StartupRefused
from guerdon.privacy.resealing import Resealed, Tell, reseal
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
        known = beside.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{beside} cannot be read: {type(error).__name__}") from None
    made = MasterKeys.generate(beside=known)
    MasterKeys(made)  # What the processes would refuse is not printed: too many keys, or one twice.
    typer.echo(made)


def rotate_master(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Seal again, under the first master key, everything that the other master keys have sealed. The service may run meanwhile. The command can
    be killed and run again.

    Exit code 3: something could not be opened with any of the keys.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        local_database(load(data_dir=data_dir), "guerdon keys") as settings,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        tasks = {place.collection: bar.add_task(place.collection, total=None) for place in SEALED_FIELDS}

        def tell(collection: str, looked: int, about: int) -> None:
            bar.update(tasks[collection], completed=looked, total=about)

        async def within() -> list[Resealed]:
            async with local_services(settings) as services:
                return await audited(services, "keys rotate-master", {}, _reseal(services, tell))

        done = asyncio.run(within())
    typer.echo(msgspec.json.encode({"places": done}).decode() if as_json else "\n".join(map(_line, done)))
    typer.echo(_verdict(done), err=True)
    if any(each.unopenable for each in done):
        raise typer.Exit(EXIT_LEFT_OUT)


async def _reseal(services: Services, tell: Tell) -> list[Resealed]:
    return await reseal(services.database, services.vault.master, SEALED_FIELDS, tell)


def _line(each: Resealed) -> str:
    lost = f", {each.unopenable:,} cannot be opened: {', '.join(each.unopenable_ids)}" if each.unopenable else ""
    return f"{each.collection:14}{each.resealed:>12,} sealed again{each.current:>12,} were already{lost}"


def _verdict(done: list[Resealed]) -> str:
    if any(each.unopenable for each in done):
        return "Some of it is sealed by keys that are not here: add them and run this again, or it is lost."
    if any(each.resealed for each in done):
        return "Run this again when every process seals with the first key. Once there is nothing to do, the other keys can be dropped."
    return "Everything is sealed by the first key. If every process has it in front, the other keys can be dropped."
