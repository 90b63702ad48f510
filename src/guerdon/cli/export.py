"""`guerdon export`: write a list or a report to a file."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, cast, get_args

import msgspec
import typer
from msgspec import Struct

from guerdon.cli.audit import audited
from guerdon.cli.database import local_database, local_services
from guerdon.clock import rfc3339
from guerdon.config import load
from guerdon.errors import StartupRefused
from guerdon.exports.formats import FORMATS, XLSX_ROWS_MAX, FileFormat
from guerdon.exports.models import ListName
from guerdon.exports.sources import ExportRequest
from guerdon.exports.tables import Pages, Table
from guerdon.wiring.services import Services

Name = Annotated[
    str, typer.Argument(help="entries, members, events, vouchers, campaigns, wallets, or a report of `guerdon reports list`.")
]
Format = Annotated[FileFormat, typer.Option("--format", help="Format of the file.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="File to write. By default NAME.FORMAT in this directory; - is standard output.")
]
Query = Annotated[
    list[str] | None,
    typer.Option(
        "--query", help="Filter of the list or parameter of the report, for example from=2026-11-01T00:00:00Z. Repeatable."
    ),
]
Personal = Annotated[bool, typer.Option("--personal", help="Add the columns with personal data to the list members.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Directory of the embedded database [GUERDON_DATA_DIR].")]
_STANDARD_OUTPUT = Path("-")


class ExportedFile(Struct, frozen=True):
    """Result of the command."""

    file: str
    rows: int
    bytes: int
    sha256: str
    as_of: str


def export(
    name: Name,
    *,
    form: Format = "csv",
    out: Out = None,
    query: Query = None,
    personal: Personal = False,
    force: Force = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Write a list or a report to a file. The file appears when it is complete. The audit log records the command."""
    is_list = name in get_args(ListName)
    request = ExportRequest(
        cast(ListName, name) if is_list else None, None if is_list else name, form, _parameters(query or []), personal
    )
    path = out or Path(f"{name}.{form}")
    if path != _STANDARD_OUTPUT and path.exists() and not force:
        raise StartupRefused(f"{path} exists; name another file with --out, or replace it with --force")
    with local_database(load(data_dir=data_dir), "guerdon export") as settings:

        async def run() -> ExportedFile:
            async with local_services(settings) as services:
                subject = {"name": name[:40], "format": form, "personal": "yes" if personal else "no"}
                return await audited(services, "export", subject, _export(services, request, path))

        done = asyncio.run(run())
    text = (
        msgspec.json.encode(done).decode()
        if as_json
        else f"{done.file}: {done.rows:,} rows, {done.bytes:,} bytes, sha256 {done.sha256}"
    )
    typer.echo(text, err=path == _STANDARD_OUTPUT)


def _parameters(given: Sequence[str]) -> dict[str, str | int | bool]:
    """
    Raises:
        StartupRefused: a parameter has no value.
    """
    found: dict[str, str | int | bool] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise StartupRefused(f"--query {each[:60]}: write NAME=VALUE, for example asset=PTS")
        found[name] = int(value) if value.isascii() and value.isdecimal() and len(value) < 19 else value
    return found


async def _export(services: Services, request: ExportRequest, path: Path) -> ExportedFile:
    sources = services.exporter.sources
    await sources.check(request)
    digest, size, rows = hashlib.sha256(), 0, 0

    async def counted(pages: Pages) -> Pages:
        nonlocal rows
        async with aclosing(pages):
            async for page in pages:
                rows += len(page)
                if request.format == "xlsx" and rows > XLSX_ROWS_MAX:
                    raise StartupRefused(f"xlsx holds at most {XLSX_ROWS_MAX:,} rows; use csv or parquet, or narrow the query")
                yield page

    async with services.database.client.start_session() as session:
        await services.database.client.admin.command("ping", session=session)
        table, as_of = await sources.open(request, services.clock.now_ms(), session)
        pieces: AsyncGenerator[bytes] = FORMATS[request.format].encode(Table(table.columns, counted(table.pages)))
        with _opened(path) as file:
            async with aclosing(pieces):
                async for piece in pieces:
                    file.write(piece)
                    digest.update(piece)
                    size += len(piece)
    return ExportedFile(str(path), rows, size, digest.hexdigest(), rfc3339(as_of))


@contextmanager
def _opened(path: Path) -> Generator[BinaryIO]:
    """Yield the file to write. It gets its name at the end, and only its owner can read it."""
    if path == _STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield cast(BinaryIO, file)
        part.replace(path)
    except OSError as error:
        raise StartupRefused(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
