"""`guerdon audit`: the audit log as JSON lines, checked on the way; and how commands write into it."""

import asyncio
import re
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from guerdon.audit_log.models import view_record
from guerdon.audit_log.rules import faults
from guerdon.audit_log.service import TERMINAL
from guerdon.cli.local import local_database, local_services
from guerdon.clock import SystemClock
from guerdon.config import load
from guerdon.errors import StartupRefused
from guerdon.logs import make_logger, tell_security
from guerdon.wiring.services import Services

T = TypeVar("T")
EXIT_BROKEN = 1
_SECURITY = {
    "keys create": "key_created", "keys revoke": "key_revoked", "admin create": "role_changed",
    "admin reset": "password_reset_issued", "admin remove-totp": "second_factor_removed",
    "keys rotate-master": "master_keys_rotated", "erasures reapply": "erasures_reapplied",
}  # fmt: skip
"""By command: the security event that it is. Others leave no more than their records."""
_SHOWN = ("key_id", "scopes", "member_id")
_WORD = re.compile(r"[A-Za-z0-9:*, _-]{1,500}\Z")

After = Annotated[int, typer.Option("--after", min=0, help="Start after the record with this number.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]


def export_audit(after: After = 0, data_dir: DataDir = None) -> None:
    """Print the audit log, one JSON object per line, oldest first, and check its hash chain.

    Exit code 1: the hash chain is broken.
    """
    with local_database(load(data_dir=data_dir), "guerdon audit") as settings:

        async def within() -> list[str]:
            async with local_services(settings) as services:
                return await _export(services, after)

        broken = asyncio.run(within())
    for sentence in broken:
        typer.echo(sentence, err=True)
    if broken:
        raise typer.Exit(EXIT_BROKEN)


async def _export(services: Services, after: int) -> list[str]:
    last = await services.audit_log.get(after) if after else None
    if after and last is None:
        raise StartupRefused(f"there is no record {after}")
    broken: list[str] = []
    async for record in services.audit_log.read(after):
        broken.extend(faults([record], last))
        typer.echo(msgspec.json.encode(view_record(record)).decode())
        last = record
    return broken


async def audited(services: Services, action: str, subject: dict[str, str], work: Awaitable[T]) -> T:
    """Do what a command asks for, between two records: that it was asked, and that it was done."""
    request_id = services.ids.new("cmd")
    await services.audit_log.append("asked", TERMINAL, action, subject, request_id=request_id)
    result = await work
    await services.audit_log.append("answered", TERMINAL, action, subject, request_id=request_id)
    if action in _SECURITY:
        shown = {name: text for name, text in subject.items() if name in _SHOWN and _WORD.match(text)}
        tell(_SECURITY[action], "done", request_id=request_id, subject=shown)
    return result


def tell(name: str, result: str, *, request_id: str, subject: dict[str, str]) -> None:
    """Write a security event of a command to standard error, since standard output holds what was asked for."""
    log = make_logger(SystemClock(), "info", sys.stderr)
    tell_security(log, name, actor=TERMINAL, subject=subject, result=result, request_id=request_id)
