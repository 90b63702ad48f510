"""`guerdon verify` and `guerdon checkpoint`: prove the books, and sign what they hold."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guerdon.cli.auditing import tell
from guerdon.cli.local import checkpoint_file, checkpoint_key, local_database, local_services
from guerdon.clock import SystemClock
from guerdon.config import Settings, load
from guerdon.errors import StartupRefused
from guerdon.ids import IdSource
from guerdon.verification.checkpoints import BooksChanged, CheckpointKeys, write_checkpoint
from guerdon.verification.service import LAWS, VerificationReport, prove, verify
from guerdon.wiring.services import Services

T = TypeVar("T")
EXIT_VIOLATIONS = 1
STATE_FILE = "verify.json"

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Account = Annotated[str | None, typer.Option("--account", help="Verify this wallet only, with the other sides of its transfers.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue where the last run was interrupted.")]
Checkpoints = Annotated[
    Path | None, typer.Option("--checkpoints", help="File of checkpoints kept outside of the database [GUERDON_CHECKPOINT_FILE].")
]
Keys = Annotated[
    Path | None,
    typer.Option("--keys", help="File with the JWK set that checks signatures; public keys suffice [GUERDON_CHECKPOINT_KEY]."),
]
Public = Annotated[bool, typer.Option("--public-keys", help="Print the public keys for auditors instead of signing.")]


def verify_books(
    *,
    as_json: AsJson = False,
    account: Account = None,
    resume: Resume = False,
    checkpoints: Checkpoints = None,
    keys: Keys = None,
    data_dir: DataDir = None,
) -> None:
    """Verify the whole ledger, or one wallet, against its laws and its signed checkpoints. The service may run meanwhile.

    Exit code 1: a law is broken, or a checkpoint does not hold.
    """
    if account is not None and (resume or checkpoints is not None):
        raise StartupRefused("--account proves one wallet at once: leave --resume and --checkpoints out")
    settings = load(data_dir=data_dir)
    if account is not None:
        report = _with_services(settings, lambda services: prove(services.database, account, calendar=services.ledger.calendar))
    else:
        report = _verify_all(settings, resume=resume, file=checkpoints, keys=keys)
    typer.echo(msgspec.json.encode(report).decode() if as_json else _prose(report, whole=account is None))
    if report.violations:
        _tell_broken({law: broken.where for law, broken in report.first.items()})
        raise typer.Exit(EXIT_VIOLATIONS)


def checkpoint(public_keys: Public = False, data_dir: DataDir = None) -> None:
    """Sign a checkpoint of the ledger now.

    Exit code 1: the ledger does not hold what the previous checkpoint says.
    """
    settings = load(data_dir=data_dir)
    key_set = checkpoint_key(settings, make=True)
    if key_set is None:
        raise StartupRefused("set GUERDON_CHECKPOINT_KEY_FILE: make one with `guerdon keys new-token-keys`")
    keys = CheckpointKeys(key_set)
    if public_keys:
        typer.echo(keys.public_set())
        return
    file = checkpoint_file(settings)
    try:
        written = _with_services(settings, lambda services: write_checkpoint(services.database, SystemClock(), keys, file))
    except BooksChanged as broken:
        typer.echo(f"no checkpoint: {broken}")
        _tell_broken({})
        raise typer.Exit(EXIT_VIOLATIONS) from None
    typer.echo("signed" if written else "another process has signed one at this moment")


def _tell_broken(where: dict[str, str]) -> None:
    tell("verify_failed", "failed", request_id=IdSource(SystemClock()).new("cmd"), subject=where)


def _verify_all(settings: Settings, *, resume: bool, file: Path | None, keys: Path | None) -> VerificationReport:
    key_set = checkpoint_key(settings, make=False) if keys is None else _text_of(keys)
    trusted = None if key_set is None else CheckpointKeys(key_set)
    kept = checkpoint_file(settings)
    if file is None and kept is not None and kept.exists():
        file = kept
    console = Console(stderr=True)
    columns = (TextColumn("verify"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("verify", total=None)

        def tell(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return _with_services(
            settings,
            lambda services: verify(
                services.database,
                tell,
                calendar=services.ledger.calendar,
                keys=trusted,
                checkpoint_file=file,
                state_file=settings.data_dir / STATE_FILE,
                resume=resume,
            ),
        )


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{file} cannot be read: {type(error).__name__}") from None


def _with_services(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    async def within(completed: Settings) -> T:
        async with local_services(completed) as services:
            return await work(services)

    with local_database(settings, "guerdon verify") as completed:
        return asyncio.run(within(completed))


def _prose(report: VerificationReport, *, whole: bool) -> str:
    lines = [f"{report.accounts:,} accounts, {report.entries:,} entries, {report.violations:,} violations"]
    for law, sentence in LAWS.items():
        broken = report.first.get(law)
        lines.append(f"  {law:3} {'BROKEN' if broken else 'holds '}  {sentence}")
        if broken:
            lines.append(f"      first at {broken.where}: {broken.detail}")
    if whole:
        newest = f"newest number {report.checkpoints}, signatures " if report.checkpoints else ""
        lines.append(f"  checkpoints: {newest}{report.signatures}")
    if report.overdue:
        lines.append(f"  {report.overdue:,} accounts hold something that has lapsed and is not booked yet; none of it can be spent")
    return "\n".join(lines)
