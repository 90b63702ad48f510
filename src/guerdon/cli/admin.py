"""`guerdon admin`: create administrators, issue password resets and remove second factors."""

import getpass
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated

import typer

from guerdon.cli.audit import audited
from guerdon.cli.database import run_with_services
from guerdon.config import load
from guerdon.errors import NotFound
from guerdon.members.models import Person
from guerdon.members.rules import valid_email
from guerdon.wiring.services import Services

COMMAND = "guerdon admin"

Email = Annotated[str, typer.Option(help="E-mail address of the log-in.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]

admin_app = typer.Typer(no_args_is_help=True, help="Manage the log-ins of staff.")


@admin_app.command("create")
def create_admin(
    email: Annotated[str, typer.Option(help="E-mail address to log in with.")],
    data_dir: DataDir = None,
) -> None:
    """Create an administrator. The password is read from standard input; at a terminal, the command asks for it."""
    password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")

    def work(services: Services) -> Awaitable[Person]:
        # The record has no e-mail address: the audit log contains no personal data. The new admin is found among the members.
        return audited(services, "admin create", {}, services.members.create_operator(email, password, "admin"))

    typer.echo(f"{run_with_services(load(data_dir=data_dir), COMMAND, work, create=True).id} may log in as {email}")


@admin_app.command("reset")
def reset_password(email: Email, data_dir: DataDir = None) -> None:
    """Create a token for POST /v1/auth/reset. It is the last line of standard output, and is valid once, for 30 minutes."""

    async def work(services: Services) -> str:
        member_id = await _find_member_id(services, email)
        return await audited(services, "admin reset", {"member_id": member_id}, services.password_resets.issue(member_id))

    typer.echo(run_with_services(load(data_dir=data_dir), COMMAND, work))


@admin_app.command("remove-totp")
def remove_totp(email: Email, data_dir: DataDir = None) -> None:
    """Remove the second factor of a person who has lost the authenticator and the recovery codes. All sessions of that person end."""

    async def work(services: Services) -> str:
        member_id = await _find_member_id(services, email)
        if await services.second_factors.get(member_id) is None:
            raise NotFound("the person with this e-mail address has no second factor")
        await audited(services, "admin remove-totp", {"member_id": member_id}, _remove_factor(services, member_id))
        return member_id

    typer.echo(f"the second factor of {run_with_services(load(data_dir=data_dir), COMMAND, work)} is removed")


async def _remove_factor(services: Services, member_id: str) -> None:
    await services.second_factors.forget(member_id)
    await services.sessions.end_all(member_id)


async def _find_member_id(services: Services, email: str) -> str:
    """
    Raises:
        Validation: `email` is not a valid e-mail address.
        NotFound: no person has this e-mail address.
    """
    member = await services.members.find_by_email(valid_email(email))
    if member is None:
        raise NotFound("no person has this e-mail address")
    return member.id
