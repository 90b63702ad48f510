"""`guerdon close`: close a month and print its digest."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from guerdon.audit_log.service import TERMINAL
from guerdon.cli.audit import audited
from guerdon.cli.database import run_with_services
from guerdon.closings.models import ClosingCreate, ClosingView
from guerdon.closings.store import view_closing
from guerdon.config import load
from guerdon.errors import StartupRefused
from guerdon.wiring.services import Services

COMMAND = "guerdon close"

Month = Annotated[str, typer.Argument(help="Month that has ended, such as 2026-11.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the closed month with all its figures as one JSON document.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]


def close_month(month: Month, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Close a month: freeze its figures with their digest. A month that is closed already is printed as it is.

    The month must have ended 90 seconds ago, the month before it must be closed unless it is the first, and a worker must have brought the views
    up to date.
    """
    try:
        msgspec.convert({"month": month}, ClosingCreate)
    except msgspec.ValidationError:
        raise StartupRefused(f"{month[:40]!r} is not a month; write it like 2026-11") from None
    closing, made = run_with_services(load(data_dir=data_dir), COMMAND, lambda services: _close(services, month))
    typer.echo(msgspec.json.encode(closing).decode() if as_json else _text_of(closing, made=made))


async def _close(services: Services, month: str) -> tuple[ClosingView, bool]:
    request_id = services.ids.new("cmd")
    closing, made = await audited(services, "close", {"month": month}, services.closings.close(TERMINAL, month, request_id))
    return view_closing(closing), made


def _text_of(closing: ClosingView, *, made: bool) -> str:
    lines = [f"{closing.month} {'is closed' if made else f'was closed at {closing.closed_at}'}, sha256 {closing.sha256}"]
    for each in closing.assets:
        roll, deferred = each.roll_forward, each.deferred_revenue
        lines.append(f"  {each.asset}: opening {roll.opening:,}, closing {roll.closing:,} minor units")
        if deferred.currency is not None:
            lines.append(
                f"      deferred revenue: opening {deferred.total.opening:,}, closing {deferred.total.closing:,} minor units of {deferred.currency}"
            )
    return "\n".join(lines)
