"""`guerdon admin …` for people who cannot help themselves any more."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from guerdon.cli.auditing import audited
from guerdon.cli.local import local_database, local_services
from guerdon.config import load
from guerdon.errors import NotFound
from guerdon.members.rules import valid_email
from guerdon.wiring.services import Services

T = TypeVar("T")
COMMAND = "guerdon admin"

Email = Annotated[str, typer.Option(help="E-mail address of the log-in.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]


def reset_password(email: Email, data_dir: DataDir = None) -> None:
    """Create a token for POST /v1/auth/reset. It is the last line of standard output, and is valid once, for 30 minutes."""

    async def work(services: Services) -> str:
        member_id = await _member_with(services, email)
        return await audited(services, "admin reset", {"member_id": member_id}, services.password_resets.issue(member_id))

    typer.echo(_with_database(data_dir, work))


def remove_totp(email: Email, data_dir: DataDir = None) -> None:
    """Remove the second factor of a person who has lost the authenticator and the recovery codes. All sessions of that person end."""

    async def work(services: Services) -> str:
        member_id = await _member_with(services, email)
        if await services.second_factors.get(member_id) is None:
            raise NotFound("whoever has this address has no second factor")
        await audited(services, "admin remove-totp", {"member_id": member_id}, _forget(services, member_id))
        return member_id

    typer.echo(f"{_with_database(data_dir, work)} has no second factor any more")


async def _forget(services: Services, member_id: str) -> None:
    await services.second_factors.forget(member_id)
    await services.sessions.end_all(member_id)


async def _member_with(services: Services, email: str) -> str:
    """
    Raises:
        Validation: the address is none.
        NotFound: nobody has it.
    """
    member = await services.members.find_by_email(valid_email(email))
    if member is None:
        raise NotFound("nobody has this address")
    return member.id


def _with_database(data_dir: Path | None, work: Callable[[Services], Awaitable[T]]) -> T:
    with local_database(load(data_dir=data_dir), COMMAND) as settings:

        async def within() -> T:
            async with local_services(settings) as services:
                return await work(services)

        return asyncio.run(within())
