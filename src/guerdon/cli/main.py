"""The command line. `make docs` prints it as docs/cli.md."""

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
from pymongo.errors import ConnectionFailure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from guerdon import __version__, embedded
from guerdon.access.models import ServiceKey, view_key
from guerdon.access.token_keys import TokenKeys
from guerdon.cli import background, decisions, people, proof, serving, simulate, token_keys
from guerdon.cli import master_keys as sealing_keys
from guerdon.cli import replay as retail
from guerdon.cli.auditing import audited, export_audit
from guerdon.cli.demo import ensure_demo
from guerdon.cli.erasures import erasures_app
from guerdon.cli.local import (
    checkpoint_file,
    checkpoint_key,
    hold_to_profile,
    local_database,
    local_services,
    master_keys,
    own_or_embedded,
    own_token_keys,
)
from guerdon.cli.seasoning import Seasoning, read_campaigns
from guerdon.clock import SystemClock
from guerdon.config import Settings, load
from guerdon.errors import GuerdonError, StartupRefused
from guerdon.logs import describe
from guerdon.members.models import Person
from guerdon.server import EXIT_STARTUP_REFUSED
from guerdon.wiring.services import Services

T = TypeVar("T")
EXIT_REFUSED, EXIT_LEFT_OUT, EXIT_FAULT = 2, 3, 70
EXIT_CODES = {
    0: "Done.",
    1: "A check has failed. The command says what it has found.",
    EXIT_REFUSED: "Refused: arguments, settings, database or data directory are not acceptable. Standard error says why.",
    EXIT_LEFT_OUT: "The command has run, but something was left out, cancelled or missing.",
    EXIT_FAULT: "Unexpected fault, with a traceback on standard error.",
    EXIT_STARTUP_REFUSED: "A process of the API could not start.",
}
"""Exit codes of all commands. The help of a command says what 1 and 3 mean for it, as `Exit code N: reason.`"""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Wallets and smart rewards: run the service, manage keys, verify the ledger.",
)
keys_app = typer.Typer(
    no_args_is_help=True, help="Manage service keys, the keys that sign access tokens, and the keys that seal personal data."
)
admin_app = typer.Typer(no_args_is_help=True, help="Manage the log-ins of staff.")
app.add_typer(keys_app, name="keys")
app.add_typer(admin_app, name="admin")
app.add_typer(erasures_app, name="erasures")
app.command("verify")(proof.verify_books)
app.command("checkpoint")(proof.checkpoint)
app.command("audit")(export_audit)
app.command("replay-decision")(decisions.replay_decision)
app.command("simulate")(simulate.simulate)
admin_app.command("reset")(people.reset_password)
admin_app.command("remove-totp")(people.remove_totp)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Number of API processes.")]
KeyId = Annotated[str, typer.Argument(help="Id of the key, as `guerdon keys list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]


def main() -> None:
    """Run a command. A refusal is one sentence on standard error, without a traceback."""
    try:
        app()
    except GuerdonError as error:
        _refuse(error.detail)
    except ConnectionFailure as error:
        _refuse(f"the database does not answer: {type(error).__name__}: {str(error)[:300]}")
    except Exception as error:
        # Exit code 1 is a verdict on the books; a fault of ours must not look like one. A message may hold what it was about.
        typer.echo(f"guerdon: an unexpected fault\n{describe(error)}", err=True)
        sys.exit(EXIT_FAULT)


def _refuse(sentence: str) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"guerdon: {sentence}", markup=False)
    sys.exit(EXIT_REFUSED)


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
    hold_to_profile(settings)
    if demo and settings.profile == "production":
        raise StartupRefused("profile production makes no demonstration log-ins: add --no-demo, or use `guerdon serve`")
    # The lock first: whoever starts a second time learns who runs already, and not only that the port is taken.
    lock = embedded.DataDirLock.acquire(settings.data_dir, command="guerdon up")
    serving.require_free_port(host, port)
    _step(f"starting the database in {settings.data_dir}" if settings.mongodb_url is None else "connecting to the database")
    with own_or_embedded(settings, lock) as url:
        settings = load(
            data_dir=data_dir,
            mongodb_url=url,
            **own_token_keys(settings),
            master_keys=master_keys(settings),
            checkpoint_key=checkpoint_key(settings, make=True),
            checkpoint_file=checkpoint_file(settings),
        )
        if demo:
            _step("creating the demonstration data")
        logins = _run(settings, lambda services: ensure_demo(services, settings.data_dir)) if demo else None
        _step("starting the API")

        def announce(api_url: str) -> None:
            lock.announce(url=api_url)
            _welcome(api_url, settings.data_dir, logins)
            start_worker()

        with background.worker_beside(settings) as start_worker:
            serving.serve(settings, host=host, port=port, workers=workers, on_ready=announce)


@app.command()
def serve(port: Port = 8000, workers: Workers = 1, host: Host = "127.0.0.1") -> None:
    """Serve the API on the database of GUERDON_MONGODB_URL. Run `guerdon worker` beside it."""
    settings = load()
    hold_to_profile(settings)
    serving.require_configured(settings)
    serving.require_free_port(host, port)
    # What start-up refuses is refused here, in one sentence, and not by each worker in its log.
    _run(settings, _nothing)
    serving.serve(settings, host=host, port=port, workers=workers, on_ready=lambda url: typer.echo(f"ready {url}"))


app.command("worker")(background.worker)


@keys_app.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="Purpose of the key.")],
    scopes: Annotated[str, typer.Option(help='Comma-separated scopes, or "*" for all.')],
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days until the key expires; without this option it does not expire.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Create a service key. The last line of standard output is the key and nothing else. It is never shown again."""
    wanted = [scope.strip() for scope in scopes.split(",")]

    def work(services: Services) -> Awaitable[str]:
        subject = {"name": name[:100], "scopes": scopes[:500]}
        return audited(services, "keys create", subject, services.access.create_key(name, wanted, expires_in_days))

    typer.echo(_with_database(data_dir, "guerdon keys", work))


@keys_app.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """List service keys with their status, expiry, last use, scopes and name. Secrets are not stored."""
    now_ms = SystemClock().now_ms()
    for key in _with_database(data_dir, "guerdon keys", lambda services: services.access.list_keys()):
        view = view_key(key, now_ms)
        times = f"expires {view.expires_at or 'never'}  used {view.last_used_at or 'never'}"
        typer.echo(f"{view.id}  {view.status}  {times}  {','.join(view.scopes)}  {view.name}")


@keys_app.command("revoke")
def revoke_key(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Revoke a service key by its id. Every API process refuses it within two seconds."""

    def work(services: Services) -> Awaitable[ServiceKey]:
        return audited(services, "keys revoke", {"key_id": key_id[:100]}, services.access.revoke_key(key_id))

    typer.echo(f"{_with_database(data_dir, 'guerdon keys', work).id} is revoked")


@keys_app.command("new-token-keys")
def new_token_keys() -> None:
    """Print a new JWK set for GUERDON_TOKEN_KEYS_FILE."""
    typer.echo(TokenKeys.generate())


keys_app.command("rotate")(token_keys.rotate)
keys_app.command("revoke-signing")(token_keys.revoke_signing)
keys_app.command("list-signing")(token_keys.list_signing)
keys_app.command("new-master-keys")(sealing_keys.new_master_keys)
keys_app.command("rotate-master")(sealing_keys.rotate_master)


@admin_app.command("create")
def create_admin(
    email: Annotated[str, typer.Option(help="E-mail address to log in with.")],
    data_dir: DataDir = None,
) -> None:
    """Create an administrator. The password is read from standard input; at a terminal, the command asks for it."""
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")

    def work(services: Services) -> Awaitable[Person]:
        # Without the address: the log holds no personal data. Who has become an admin stands in the members.
        return audited(services, "admin create", {}, services.members.create_operator(email, password, "admin"))

    typer.echo(f"{_with_database(data_dir, 'guerdon admin', work).id} may log in as {email}")


@app.command()
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
    seasoning = Seasoning([] if campaigns is None else read_campaigns(campaigns), seed, again)
    reading = retail.read_file(file)
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("replay", total=None)
        summary = _with_database(
            data_dir,
            "guerdon replay",
            lambda services: retail.replay(
                services,
                reading,
                limit=limit,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                seasoning=seasoning,
            ),
        )
    _say_broken(reading)
    for problem in summary.errors:
        typer.echo(problem, err=True)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
    else:
        for name, count in asdict(summary).items():
            if name != "errors":
                typer.echo(f"{name.replace('_', ' '):24}{count:>10,}")
    if summary.broken_lines or summary.refused:
        raise typer.Exit(EXIT_LEFT_OUT)


def _run(settings: Settings, work: Callable[[Services], Awaitable[T]]) -> T:
    async def within() -> T:
        async with local_services(settings) as services:
            return await work(services)

    return asyncio.run(within())


async def _nothing(services: Services) -> None:
    """Opening the services has checked the server."""


def _with_database(data_dir: Path | None, command: str, work: Callable[[Services], Awaitable[T]]) -> T:
    with local_database(load(data_dir=data_dir), command) as settings:
        return _run(settings, work)


def _say_broken(reading: retail.Reading) -> None:
    for line, what in list(reading.broken.items())[: retail.LINE_ERRORS_SHOWN]:
        typer.echo(f"line {line}: {what}", err=True)
    more = len(reading.broken) - retail.LINE_ERRORS_SHOWN
    if more > 0:
        typer.echo(f"… and {more} more lines", err=True)
    if reading.broken:
        typer.echo(f"{len(reading.broken)} broken lines, {len(reading.spoiled)} events left out whole", err=True)


def _step(what: str) -> None:
    """Print what `up` does next; it takes seconds, and the first time more."""
    typer.echo(f"guerdon: {what}", err=True)


def _welcome(url: str, data_dir: Path, logins: dict[str, str] | None) -> None:
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
