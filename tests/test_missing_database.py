"""Commands on a data directory or a server without the database: only those that write the first data create one.

The table covers every command, so a new one must state what it does. Other places that had the fault: `checkpoint` also wrote a key,
a mistyped `GUERDON_MONGODB_DATABASE` created a database on the server, and `worker` and `keys list-signing` did not name the directory.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pymongo import MongoClient
from typer.core import TyperGroup

from guerdon.cli.main import app
from tests.commands import run_here
from tests.invariants.retail import guerdon, head, write_csv

KEY = "0" * 12
REFUSING = {
    "verify": [],
    "verify --account": ["--account", "mem_1:PTS"],
    "verify --json": ["--json"],
    "checkpoint": [],
    "checkpoint --public-keys": ["--public-keys"],
    "audit": [],
    "replay-decision": ["order-1"],
    "simulate": ["cmp_1"],
    "keys list": [],
    "keys revoke": [KEY],
    "keys rotate-master": [],
    "keys rotate": [],
    "keys revoke-signing": ["kid"],
    "keys list-signing": [],
    "admin reset": ["--email", "ada@example.com"],
    "admin remove-totp": ["--email", "ada@example.com"],
    "erasures export": [],
    "erasures verify": ["{log}"],
    "erasures reapply": ["{log}"],
    "worker": [],
    "close": ["2026-01"],
    "export": ["entries"],
    "reports check": [],
    "reports list": [],
    "reports rebuild": [],
    "reports show": ["roll-forward", "--asset", "PTS"],
}
FILES_ONLY = {"keys rotate", "keys revoke-signing", "keys list-signing"}
"""These commands use a file of the data directory, and no database."""
CREATING = {"up", "serve", "replay", "keys create", "admin create"}
WITHOUT_DATABASE = {"keys new-token-keys", "keys new-master-keys"}


def command_names(command: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from command_names(child, f"{prefix} {name}")
    else:
        yield prefix.strip()


def arguments_of(name: str, log: Path) -> list[str]:
    return [*name.partition(" --")[0].split(), *(each.format(log=log) for each in REFUSING[name])]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """An empty log of erasures."""
    file = tmp_path / "erasures.jsonl"
    file.write_text("")
    return file


def test_every_command_is_in_the_table() -> None:
    listed = {name.partition(" --")[0] for name in REFUSING} | CREATING | WITHOUT_DATABASE
    assert set(command_names(typer.main.get_command(app))) == listed


@pytest.mark.parametrize("name", REFUSING)
@pytest.mark.parametrize("exists", [True, False], ids=["an empty directory", "no directory"])
def test_command_on_a_directory_without_a_database_refuses_and_creates_nothing(
    name: str, exists: bool, tmp_path: Path, log: Path
) -> None:
    directory = tmp_path / "mistyped"
    if exists:
        directory.mkdir(mode=0o700)
    run = run_here(*arguments_of(name, log), "--data-dir", str(directory))
    assert (run.status, run.out) == (2, ""), run
    assert str(directory) in run.err
    assert "--data-dir" in run.err
    assert (list(directory.iterdir()) if exists else directory.exists()) in ([], False)


def test_default_directory_and_the_variable_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(tmp_path / ".guerdon") in run_here("verify").err
    assert str(tmp_path / "other" / "mongodb") in run_here("verify", GUERDON_DATA_DIR="other").err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in REFUSING if name not in {*FILES_ONLY, "worker", "checkpoint --public-keys"}])
def test_command_on_a_server_without_the_database_refuses_and_creates_nothing(
    name: str, tmp_path: Path, log: Path, mongodb_url: str, token_keys: str
) -> None:
    places = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": "guerdn", "GUERDON_CHECKPOINT_KEY": token_keys}
    run = run_here(*arguments_of(name, log), "--data-dir", str(tmp_path), **places)
    assert (run.status, run.out) == (2, ""), run
    assert "'guerdn'" in run.err
    assert "GUERDON_MONGODB_DATABASE" in run.err
    with MongoClient[dict[str, Any]](mongodb_url) as client:
        assert "guerdn" not in client.list_database_names()


async def test_commands_that_write_the_first_data_create_the_database_and_say_so(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    file = write_csv(tmp_path / "purchases.csv.gz", head(7))
    run = await guerdon("replay", str(file), "--data-dir", str(directory), "--json")
    assert (run.status, json.loads(run.out)["refused"]) == (0, 0), run
    assert f"creating a new database in {directory}" in run.err
    run = await guerdon("keys", "create", "--name", "till", "--scopes", "*", "--data-dir", str(directory))
    assert run.status == 0, run
    assert "creating" not in run.err
    run = await guerdon("keys", "list", "--data-dir", str(directory))
    assert (run.status, "till" in run.out) == (0, True), run
