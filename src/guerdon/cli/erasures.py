"""`guerdon erasures export`, `verify` and `reapply`: export and verify the log of erasures, and apply it to a restored backup."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from guerdon.cli.audit import audited
from guerdon.cli.database import run_with_services
from guerdon.config import load
from guerdon.errors import StartupRefused
from guerdon.privacy.models import CertificateView, StoredCertificate
from guerdon.privacy.rules import stored_certificate, view_certificate
from guerdon.wiring.services import Services

T = TypeVar("T")
PAGE = 500
EXIT_DOUBT = 1

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
LogFile = Annotated[Path, typer.Argument(help="Output of `guerdon erasures export`.")]

erasures_app = typer.Typer(no_args_is_help=True, help="Export, re-apply and verify the log of erased members.")


@erasures_app.command("export")
def export_erasures(data_dir: DataDir = None) -> None:
    """Print the certificates of all erasures, one JSON object per line. Keep them apart from the backups of the database."""
    _run(data_dir, _print_all)


async def _print_all(services: Services) -> None:
    after = ""
    while page := await services.erasures.list_certificates(after, PAGE):
        for certificate in page:
            typer.echo(msgspec.json.encode(view_certificate(certificate)).decode())
        after = page[-1].id


@erasures_app.command("reapply")
def reapply_erasures(file: LogFile, data_dir: DataDir = None) -> None:
    """Erase again every member whom a restored backup has brought back. Run it before the service starts. It can be run again at any time."""
    certificates = list(_read(file))

    async def reapply(services: Services) -> int:
        return sum([await services.erasures.reapply(each) for each in certificates])

    def work(services: Services) -> Awaitable[int]:
        return audited(services, "erasures reapply", {"certificates": str(len(certificates))}, reapply(services))

    erased_again = _run(data_dir, work)
    typer.echo(f"{len(certificates):,} certificates, {erased_again:,} people erased again")


@erasures_app.command("verify")
def verify_erasures(file: LogFile, data_dir: DataDir = None) -> None:
    """Check certificates against the database: each is on record, the person is erased, and the ledger is as the certificate says. This
    relies on the hash chains that `guerdon audit` and `guerdon verify` check.

    Exit code 1: a certificate does not hold.
    """
    certificates = list(_read(file))

    async def find_doubts(services: Services) -> list[tuple[str, str]]:
        return [(each.id, doubt) for each in certificates for doubt in await services.erasures.find_contradictions(each)]

    doubts = _run(data_dir, find_doubts)
    for member_id, doubt in doubts:
        typer.echo(f"{member_id}: {doubt}", err=True)
    typer.echo(f"{len(certificates):,} certificates, {len({member_id for member_id, _ in doubts}):,} in doubt")
    if doubts:
        raise typer.Exit(EXIT_DOUBT)


def _read(file: Path) -> Iterator[StoredCertificate]:
    """
    Raises:
        StartupRefused: the file cannot be read, or a line is not a certificate.
        Validation: a certificate does not agree with its digest.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise StartupRefused(f"{file} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        try:
            view = msgspec.json.decode(line, type=CertificateView)
        except msgspec.MsgspecError as error:
            raise StartupRefused(f"line {number} of {file} is not a certificate: {error}") from None
        yield stored_certificate(view)


def _run(data_dir: Path | None, work: Callable[[Services], Awaitable[T]]) -> T:
    return run_with_services(load(data_dir=data_dir), "guerdon erasures", work)
