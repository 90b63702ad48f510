"""`guerdon audit`: export the audit log as JSON lines and check its hash chain; record commands in the audit log."""

import asyncio
import re
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from guerdon.audit_log.models import view_record
from guerdon.audit_log.rules import find_faults
from guerdon.audit_log.service import TERMINAL
from guerdon.cli.database import local_database, local_services
from guerdon.clock import SystemClock
from guerdon.config import load
from guerdon.errors import StartupRefused
from guerdon.logs import log_security_event, make_logger
from guerdon.wiring.services import Services

T = TypeVar("T")
EXIT_BROKEN = 1
_SECURITY_EVENTS = {
    "keys create": "key_created", "keys revoke": "key_revoked", "admin create": "role_changed",
    "admin reset": "password_reset_issued", "admin remove-totp": "second_factor_removed",
    "keys rotate-master": "master_keys_rotated", "erasures reapply": "erasures_reapplied",
}  # fmt: skip
"""Name of the security event by command. Other commands are recorded in the audit log only."""
_LOGGED_FIELDS = ("key_id", "scopes", "member_id")
_LOGGED_VALUE = re.compile(r"[A-Za-z0-9:*, _-]{1,500}\Z")

After = Annotated[int, typer.Option("--after", min=0, help="Start after the record with this number.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]


def export_audit(after: After = 0, data_dir: DataDir = None) -> None:
    """Print the audit log, one JSON object per line, oldest first, and check its hash chain.

    Exit code 1: the hash chain is broken.
    """
    with local_database(load(data_dir=data_dir), "guerdon audit") as settings:

        async def run() -> list[str]:
            async with local_services(settings) as services:
                return await _export(services, after)

        broken = asyncio.run(run())
    for fault in broken:
        typer.echo(fault, err=True)
    if broken:
        raise typer.Exit(EXIT_BROKEN)


async def _export(services: Services, after: int) -> list[str]:
    last = await services.audit_log.get(after) if after else None
    if after and last is None:
        raise StartupRefused(f"the audit record {after} does not exist")
    broken: list[str] = []
    async for record in services.audit_log.read(after):
        broken.extend(find_faults([record], last))
        typer.echo(msgspec.json.encode(view_record(record)).decode())
        last = record
    return broken


async def audited(services: Services, action: str, subject: dict[str, str], work: Awaitable[T]) -> T:
    """Await `work` between two audit records, one before it and one after it, and return its result.

    A command with a security event also logs that event.
    """
    request_id = services.ids.new("cmd")
    await services.audit_log.append("asked", TERMINAL, action, subject, request_id=request_id)
    result = await work
    await services.audit_log.append("answered", TERMINAL, action, subject, request_id=request_id)
    if action in _SECURITY_EVENTS:
        logged = {name: text for name, text in subject.items() if name in _LOGGED_FIELDS and _LOGGED_VALUE.match(text)}
        log_command_event(_SECURITY_EVENTS[action], "done", request_id=request_id, subject=logged)
    return result


def log_command_event(name: str, result: str, *, request_id: str, subject: dict[str, str]) -> None:
    """Write a security event of a command to standard error. Standard output contains only the output of the command."""
    log = make_logger(SystemClock(), "info", sys.stderr)
    log_security_event(log, name, actor=TERMINAL, subject=subject, result=result, request_id=request_id)
