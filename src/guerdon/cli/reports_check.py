"""`guerdon reports check`: compare the views with the ledger and the events."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from guerdon.cli.database import run_with_services
from guerdon.cli.replay import EXIT_LEFT_OUT
from guerdon.config import load
from guerdon.reports.check.service import CheckReport, NotChecked, check_views

COMMAND = "guerdon reports check"
EXIT_NOT_CHECKED = 1
EXIT_DIFFERENT = EXIT_LEFT_OUT

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]


def check(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Compute every sum of the views a second time from the ledger and the events, and compare. The service may run meanwhile.

    Exit code 1: the views cannot be compared, because they are not built yet or too far behind. Exit code 3: the views differ.
    """
    try:
        report = run_with_services(
            load(data_dir=data_dir),
            COMMAND,
            lambda services: check_views(services.database, services.views, services.ledger.calendar),
        )
    except NotChecked as reason:
        typer.echo(f"not checked: {reason}")
        raise typer.Exit(EXIT_NOT_CHECKED) from None
    typer.echo(msgspec.json.encode(report).decode() if as_json else text_of(report))
    if not report.equal:
        raise typer.Exit(EXIT_DIFFERENT)


def text_of(report: CheckReport) -> str:
    lines = [
        f"version {report.view_version}: {report.accounts} accounts, {report.members} members and {report.values} sums compared",
        f"{report.pending} documents are not in the views yet, and were added for the comparison",
    ]
    for asset, accounts in report.trial_balance.items():
        balances = ", ".join(f"{name} {balance}" for name, balance in accounts.items())
        lines.append(f"trial balance of {asset}: {balances}; together {sum(accounts.values())}")
    for difference in report.first:
        number = report.differences[difference.view]
        lines.append(f"{difference.view}: {number} difference{'' if number == 1 else 's'}, the first at {difference.where}")
        lines.append(f"  {difference.detail}")
    lines.append("equal" if report.equal else "the views differ; rebuild them with `guerdon reports rebuild`")
    return "\n".join(lines)
