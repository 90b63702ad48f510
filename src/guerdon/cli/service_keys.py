"""`guerdon keys create`, `list`, `revoke` and `new-token-keys`: manage service keys, and generate a set of token keys."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

import typer

from guerdon.access.models import KeyView, ServiceKey, view_key
from guerdon.access.token_keys import TokenKeys
from guerdon.cli.audit import audited
from guerdon.cli.database import run_with_services
from guerdon.config import load
from guerdon.wiring.services import Services

COMMAND = "guerdon keys"

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
KeyId = Annotated[str, typer.Argument(help="Id of the key, as `guerdon keys list` shows it.")]


def create_key(
    name: Annotated[str, typer.Option(help="Purpose of the key.")],
    scopes: Annotated[str, typer.Option(help='Comma-separated scopes, or "*" for all.')],
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days until the key expires; without this option it does not expire.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Create a service key. The last line of standard output is the key and nothing else. It is never shown again."""
    requested = [scope.strip() for scope in scopes.split(",")]

    def work(services: Services) -> Awaitable[str]:
        subject = {"name": name[:100], "scopes": scopes[:500]}
        return audited(services, "keys create", subject, services.access.create_key(name, requested, expires_in_days))

    typer.echo(run_with_services(load(data_dir=data_dir), COMMAND, work))


def list_keys(data_dir: DataDir = None) -> None:
    """List service keys with their status, expiry, last use, scopes and name. Secrets are not stored."""

    async def work(services: Services) -> list[KeyView]:
        return [view_key(key, services.clock.now_ms()) for key in await services.access.list_keys()]

    for view in run_with_services(load(data_dir=data_dir), COMMAND, work):
        times = f"expires {view.expires_at or 'never'}  used {view.last_used_at or 'never'}"
        typer.echo(f"{view.id}  {view.status}  {times}  {','.join(view.scopes)}  {view.name}")


def revoke_key(key_id: KeyId, data_dir: DataDir = None) -> None:
    """Revoke a service key by its id. Every API process refuses it within two seconds."""

    def work(services: Services) -> Awaitable[ServiceKey]:
        return audited(services, "keys revoke", {"key_id": key_id[:100]}, services.access.revoke_key(key_id))

    typer.echo(f"{run_with_services(load(data_dir=data_dir), COMMAND, work).id} is revoked")


def new_token_keys() -> None:
    """Print a new JWK set for GUERDON_TOKEN_KEYS_FILE."""
    typer.echo(TokenKeys.generate())
