"""`guerdon verify` and `guerdon checkpoint`: verify the ledger, and sign its state."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guerdon.cli.audit import log_command_event
from guerdon.cli.database import require_database, run_with_services
from guerdon.cli.key_files import checkpoint_file, checkpoint_key
from guerdon.clock import SystemClock
from guerdon.config import Settings, load
from guerdon.errors import StartupRefused
from guerdon.ids import IdSource
from guerdon.verification.checkpoints import CheckpointKeys, LedgerChanged, write_checkpoint
from guerdon.verification.service import LAWS, VerificationReport, verify, verify_account

COMMAND = "guerdon verify"
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


def verify_ledger(
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
        raise StartupRefused("--account verifies one wallet in one run; remove --resume and --checkpoints")
    settings = load(data_dir=data_dir)
    if account is not None:
        report = run_with_services(
            settings, COMMAND, lambda services: verify_account(services.database, account, calendar=services.ledger.calendar)
        )
    else:
        report = _verify_all(settings, resume=resume, file=checkpoints, keys=keys)
    typer.echo(msgspec.json.encode(report).decode() if as_json else _text_of(report, whole=account is None))
    if report.violations:
        _log_failure({law: violation.where for law, violation in report.first.items()})
        raise typer.Exit(EXIT_VIOLATIONS)


def checkpoint(public_keys: Public = False, data_dir: DataDir = None) -> None:
    """Sign a checkpoint of the ledger now.

    Exit code 1: the ledger does not match the previous checkpoint.
    """
    settings = load(data_dir=data_dir)
    require_database(settings)
    key_set = checkpoint_key(settings, make=True)
    if key_set is None:
        raise StartupRefused("set GUERDON_CHECKPOINT_KEY_FILE; create the file with `guerdon keys new-token-keys`")
    keys = CheckpointKeys(key_set)
    if public_keys:
        typer.echo(keys.public_set())
        return
    file = checkpoint_file(settings)
    try:
        written = run_with_services(
            settings, COMMAND, lambda services: write_checkpoint(services.database, services.clock, keys, file)
        )
    except LedgerChanged as error:
        typer.echo(f"no checkpoint: {error}")
        _log_failure({})
        raise typer.Exit(EXIT_VIOLATIONS) from None
    typer.echo("signed" if written else "another process has signed a checkpoint at the same time")


def _log_failure(violations: dict[str, str]) -> None:
    log_command_event("verify_failed", "failed", request_id=IdSource(SystemClock()).new("cmd"), subject=violations)


def _verify_all(settings: Settings, *, resume: bool, file: Path | None, keys: Path | None) -> VerificationReport:
    key_set = checkpoint_key(settings, make=False) if keys is None else _read_text(keys)
    trusted_keys = None if key_set is None else CheckpointKeys(key_set)
    configured = checkpoint_file(settings)
    if file is None and configured is not None and configured.exists():
        file = configured
    console = Console(stderr=True)
    columns = (TextColumn("verify"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("verify", total=None)

        def show_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        return run_with_services(
            settings,
            COMMAND,
            lambda services: verify(
                services.database,
                show_progress,
                calendar=services.ledger.calendar,
                keys=trusted_keys,
                checkpoint_file=file,
                state_file=settings.data_dir / STATE_FILE,
                resume=resume,
            ),
        )


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{file} cannot be read: {type(error).__name__}") from None


def _text_of(report: VerificationReport, *, whole: bool) -> str:
    lines = [f"{report.accounts:,} accounts, {report.entries:,} entries, {report.violations:,} violations"]
    for law, statement in LAWS.items():
        violation = report.first.get(law)
        lines.append(f"  {law:3} {'BROKEN' if violation else 'holds '}  {statement}")
        if violation:
            lines.append(f"      first at {violation.where}: {violation.detail}")
    for asset, accounts in report.balances.items():
        sides = ", ".join(f"{name} {balance:,}" for name, balance in accounts.items())
        lines.append(f"  {asset}: {sides}; sum {sum(accounts.values()):,}")
    if whole:
        newest = f"newest number {report.checkpoints}, signatures " if report.checkpoints else ""
        lines.append(f"  checkpoints: {newest}{report.signatures}")
    if report.overdue:
        lines.append(f"  {report.overdue:,} accounts hold expired value that is not booked yet; it cannot be spent")
    if report.ahead:
        lines.append(
            f"  {report.ahead:,} entries are dated after the time of the database, first {report.first_ahead}: a clock was wrong, and value "
            "may have expired early"
        )
    return "\n".join(lines)
