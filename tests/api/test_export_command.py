"""`guerdon export` as an operator runs it."""

import csv
import hashlib
import io
import json
from pathlib import Path

import duckdb
import pytest

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.clients import Caller
from tests.commands import guerdon_here
from tests.exporting import Exports
from tests.factories import Factory
from tests.invariants.retail import guerdon, places


def files_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_file_at_the_terminal_is_that_of_the_api(
    service: Caller, services: Services, settings: Settings, factory: Factory, tmp_path: Path
) -> None:
    """In a process of its own."""
    wallet = await factory.wallet(9_876_543_210)
    out = tmp_path / "entries.csv"
    run = await guerdon("export", "entries", "--query", f"wallet={wallet}", "--out", str(out), "--json", **places(settings))
    assert (run.status, run.err) == (0, ""), run.err
    content = out.read_bytes()
    export = await Exports(service, services).done(list="entries", query={"wallet": wallet})
    assert content == await Exports(service, services).content(export)
    assert run.summary == {
        "file": str(out), "rows": 1, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "as_of": run.summary["as_of"],
    }  # fmt: skip
    assert out.stat().st_mode & 0o077 == 0, "only its owner can read it"
    records = [each for each in (await service.get("/v1/audit")).json()["items"] if each["action"] == "export"]
    assert [(each["phase"], each["actor"]) for each in records] == [("answered", "terminal"), ("asked", "terminal")]
    assert records[0]["subject"] == {"name": "entries", "format": "csv", "personal": "no"}


async def test_every_format_and_standard_output(settings: Settings, factory: Factory, service: Caller, tmp_path: Path) -> None:
    assert (await service.post("/v1/members", {"external_id": "ada", "email": "ada@example.com"})).status_code == 201
    await factory.wallet(5, "GBP")
    for form in ("csv", "parquet", "xlsx"):
        out = tmp_path / f"wallets.{form}"
        run = await guerdon_here("export", "wallets", "--format", form, "--out", str(out), **places(settings))
        assert (run.status, run.out.startswith(f"{out}: 1 rows, ")) == (0, True), run.err
    with duckdb.connect() as connection:
        [row] = connection.read_parquet(str(tmp_path / "wallets.parquet")).fetchall()
    assert row[2:5] == ("GBP", 2, 5)
    run = await guerdon("export", "members", "--personal", "--out", "-", "--json", **places(settings))
    rows = list(csv.DictReader(io.StringIO(run.out)))
    assert [row["email"] for row in rows if row["external_id"] == "ada"] == ["ada@example.com"]
    assert json.loads(run.err)["rows"] == len(rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "there is no such report"),
        (("entries", "--query", "asset"), "write NAME=VALUE"),
        (("entries", "--query", "asset=NONE"), "the asset NONE does not exist"),
        (("entries", "--query", "since=2026"), "/query/since: is not a known field"),
        (("wallets", "--personal"), "only the list members"),
        (("wallets", "--out", "/nowhere/file.csv"), "cannot be written"),
    ],
)
async def test_a_refusal_is_one_sentence(
    settings: Settings, database: object, arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    more = () if "--out" in arguments else ("--out", str(tmp_path / "file"))
    run = await guerdon_here("export", *arguments, *more, **places(settings))
    assert (run.status, run.out) == (2, "")
    assert words in run.err
    assert files_in(tmp_path) == []


async def test_an_existing_file_is_replaced_only_on_request(settings: Settings, database: object, tmp_path: Path) -> None:
    out = tmp_path / "wallets.csv"
    out.write_text("mine")
    run = await guerdon_here("export", "wallets", "--out", str(out), **places(settings))
    assert (run.status, out.read_text()) == (2, "mine")
    assert "--force" in run.err
    run = await guerdon_here("export", "wallets", "--out", str(out), "--force", **places(settings))
    assert (run.status, out.read_text()[:3]) == (0, "id,"), run.err
