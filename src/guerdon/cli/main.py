"""The command line. `make docs` prints it as docs/cli.md."""

import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pymongo.errors import ConnectionFailure
from rich.console import Console

from guerdon import __version__, embedded
from guerdon.cli import master_keys as master_key_commands
from guerdon.cli import serve as server
from guerdon.cli import service_keys, show_reports, token_keys, verify
from guerdon.cli.admin import admin_app
from guerdon.cli.audit import export_audit
from guerdon.cli.close import close_month
from guerdon.cli.database import check_profile, own_or_embedded, run_on_database
from guerdon.cli.demo import ensure_demo
from guerdon.cli.erasures import erasures_app
from guerdon.cli.export import export
from guerdon.cli.key_files import checkpoint_file, checkpoint_key, master_keys, own_token_keys
from guerdon.cli.replay import EXIT_LEFT_OUT, replay
from guerdon.cli.replay_decision import replay_decision
from guerdon.cli.reports import reports_app
from guerdon.cli.simulate import simulate
from guerdon.cli.worker import worker, worker_beside
from guerdon.config import load
from guerdon.errors import DatabaseLost, GuerdonError, StartupRefused
from guerdon.logs import describe
from guerdon.server import EXIT_STARTUP_REFUSED
from guerdon.wiring.services import Services

EXIT_REFUSED, EXIT_DATABASE_LOST, EXIT_FAULT = 2, 69, 70
UP_STOP_SECONDS, API_STOP_SECONDS, WORKER_STOP_SECONDS = 8, 4, 2.5
"""Time for `guerdon up` to stop, and the shares of the API and of the worker in it; the database gets the rest."""
EXIT_CODES = {
    0: "Done.",
    1: "A check has failed. The command prints what it has found.",
    EXIT_REFUSED: "Refused: arguments, settings, database or data directory are not acceptable. Standard error states the reason.",
    EXIT_LEFT_OUT: "The command has run, but something was left out, cancelled or missing.",
    EXIT_DATABASE_LOST: "The embedded database of `guerdon up` has failed three times in a row.",
    EXIT_FAULT: "Unexpected fault, with a traceback on standard error.",
    EXIT_STARTUP_REFUSED: "A process of the API could not start.",
}
"""Exit codes of all commands. The help of a command states the meaning of 1 and 3, as `Exit code N: reason.`"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Wallets and smart rewards: run the service, manage keys, verify the ledger.",
)
keys_app = typer.Typer(
    no_args_is_help=True, help="Manage service keys, the keys that sign access tokens, and the keys that seal personal data."
)
app.add_typer(keys_app, name="keys")
app.add_typer(admin_app, name="admin")
app.add_typer(erasures_app, name="erasures")
app.add_typer(reports_app, name="reports")
reports_app.command("list")(show_reports.list_reports)
reports_app.command("show")(show_reports.show_report)
app.command("verify")(verify.verify_ledger)
app.command("checkpoint")(verify.checkpoint)
app.command("audit")(export_audit)
app.command("close")(close_month)
app.command("replay")(replay)
app.command("replay-decision")(replay_decision)
app.command("simulate")(simulate)
app.command("export")(export)
app.command("worker")(worker)
keys_app.command("create")(service_keys.create_key)
keys_app.command("list")(service_keys.list_keys)
keys_app.command("revoke")(service_keys.revoke_key)
keys_app.command("new-token-keys")(service_keys.new_token_keys)
keys_app.command("rotate")(token_keys.rotate)
keys_app.command("revoke-signing")(token_keys.revoke_signing)
keys_app.command("list-signing")(token_keys.list_signing)
keys_app.command("new-master-keys")(master_key_commands.new_master_keys)
keys_app.command("rotate-master")(master_key_commands.rotate_master)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Number of API processes.")]


def main() -> None:
    """Run a command. A refusal is printed as one sentence on standard error, without a traceback."""
    try:
        app()
    except DatabaseLost as error:
        _refuse(error.detail, EXIT_DATABASE_LOST)
    except GuerdonError as error:
        _refuse(error.detail)
    except ConnectionFailure as error:
        _refuse(f"the database does not answer: {type(error).__name__}: {str(error)[:300]}")
    except Exception as error:
        # Exit code 1 means that a check has failed, so an unexpected fault has its own code. The message of the exception is not printed: it
        # may contain data.
        typer.echo(f"guerdon: an unexpected fault\n{describe(error)}", err=True)
        sys.exit(EXIT_FAULT)


def _refuse(reason: str, status: int = EXIT_REFUSED) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"guerdon: {reason}", markup=False)
    sys.exit(status)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Run and operate Guerdon, a backend for wallets and smart rewards."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def up(
    port: Port = 8000,
    data_dir: DataDir = None,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Create demonstration members, purchases and log-ins.")] = True,
    workers: Workers = 1,
    host: Host = "127.0.0.1",
) -> None:
    """Start the database, the API, a worker and demonstration data on this machine. Not for production."""
    settings = load(data_dir=data_dir)
    check_profile(settings)
    if demo and settings.profile == "production":
        raise StartupRefused("profile production makes no demonstration log-ins: add --no-demo, or use `guerdon serve`")
    # The lock is taken before the port is checked: its error names the process that is already running.
    lock = embedded.DataDirLock.acquire(settings.data_dir, command="guerdon up")
    server.require_free_port(host, port)
    _print_step(f"starting the database in {settings.data_dir}" if settings.mongodb_url is None else "connecting to the database")
    with own_or_embedded(settings, lock) as database:
        settings = load(
            data_dir=data_dir,
            mongodb_url=database.url,
            **own_token_keys(settings),
            master_keys=master_keys(settings),
            checkpoint_key=checkpoint_key(settings, make=True),
            checkpoint_file=checkpoint_file(settings),
        )
        if demo:
            _print_step("creating the demonstration data")
        logins = run_on_database(settings, lambda services: ensure_demo(services, settings.data_dir)) if demo else None
        _print_step("starting the API")

        def announce(api_url: str) -> None:
            lock.announce(url=api_url)
            _print_welcome(api_url, settings.data_dir, logins)
            start_worker()

        with worker_beside(settings, stop_seconds=WORKER_STOP_SECONDS) as start_worker:
            server.serve(settings, host=host, port=port, workers=workers, on_ready=announce, stop_seconds=API_STOP_SECONDS)
            database.stop_by = time.monotonic() + UP_STOP_SECONDS - API_STOP_SECONDS


@app.command()
def serve(port: Port = 8000, workers: Workers = 1, host: Host = "127.0.0.1") -> None:
    """Serve the API on the database of GUERDON_MONGODB_URL. Run `guerdon worker` beside it."""
    settings = load()
    check_profile(settings)
    server.require_configured(settings)
    server.require_free_port(host, port)
    # Opening the services checks the database, so a refusal is printed here once and not by each API process in its log.
    run_on_database(settings, _do_nothing)
    server.serve(settings, host=host, port=port, workers=workers, on_ready=lambda url: typer.echo(f"ready {url}"))


async def _do_nothing(services: Services) -> None:
    pass


def _print_step(text: str) -> None:
    """Print the next step of `up`. A step takes seconds, and longer the first time."""
    typer.echo(f"guerdon: {text}", err=True)


def _print_welcome(url: str, data_dir: Path, logins: dict[str, str] | None) -> None:
    lines = [
        "",
        f"  API            {url}/v1",
        f"  documentation  {url}/docs",
        f"  health         {url}/health/ready    metrics {url}/metrics",
        f"  data           {data_dir.resolve()}",
    ]
    if logins is not None:
        lines += [
            "",
            f"  operator       {logins['operator_email']}  password {logins['operator_password']}",
            f"  member         {logins['member_email']}  password {logins['member_password']}",
            f"  service key    {logins['service_key']}",
        ]
    typer.echo("\n".join([*lines, ""]))
    typer.echo(f"ready {url}")
    sys.stdout.flush()
