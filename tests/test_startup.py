"""What start-up refuses: a standalone server, a weak write concern, a route without a policy, a taken port or data directory."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.http.operation import Request, Response
from guerdon.system.openapi import operations_of

ROOT = Path(__file__).parents[1]
REFUSAL_SECONDS = 10


class Unguarded:
    """A resource whose author forgot to say who may call it."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.text = "everything"


def test_a_route_without_a_policy_stops_the_start() -> None:
    with pytest.raises(TypeError, match="declares no policy"):
        operations_of("/v1/everything", Unguarded(), None)


def guerdon(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUERDON_")}
    return subprocess.run(
        [sys.executable, "-m", "guerdon", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT / "src"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """A mongod without a replica set."""
    mongod = embedded.find_mongod(folder)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    dbpath = folder / "standalone"
    dbpath.mkdir()
    command = [str(mongod.binary), "--dbpath", str(dbpath), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
    process = subprocess.Popen([*command, "--quiet"], env=mongod.environment, stdout=subprocess.DEVNULL)
    url = f"mongodb://127.0.0.1:{port}/"
    try:
        with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=30_000) as client:
            client.admin.command("ping")
        yield url
    finally:
        process.kill()
        process.wait()


def test_a_standalone_server_is_refused_in_words(tmp_path: Path) -> None:
    with standalone(tmp_path) as url:
        began = time.monotonic()
        keys = {"GUERDON_TOKEN_KEYS": TokenKeys.generate(), "GUERDON_MASTER_KEYS": MasterKeys.generate()}
        refused = guerdon("serve", "--port", "18999", GUERDON_MONGODB_URL=url, **keys)
        assert time.monotonic() - began < REFUSAL_SECONDS
    assert refused.returncode == 2
    assert "standalone" in refused.stderr
    assert "--replSet" in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_a_weak_default_write_concern_is_refused(database: Database) -> None:
    command = "setDefaultRWConcern"
    await database.client.admin.command(command, 1, defaultWriteConcern={"w": 1})
    try:
        with pytest.raises(StartupRefused, match="default write concern"):
            await database.check()
    finally:
        await database.client.admin.command(command, 1, defaultWriteConcern={"w": "majority"})
    await database.check()


@pytest.mark.parametrize("option", ["w=1", "w=0", "w=2"])
def test_a_weak_write_concern_in_the_url_is_refused(option: str) -> None:
    with pytest.raises(StartupRefused, match="write concern"):
        Database(f"mongodb://127.0.0.1:1/?{option}", "guerdon")


def test_a_taken_port_and_a_taken_data_directory_are_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        refused = guerdon("up", "--port", port, "--data-dir", str(tmp_path))
        assert refused.returncode == 2
        assert f"127.0.0.1:{port}" in refused.stderr
        assert guerdon("up", "--port", port, "--data-dir", str(tmp_path)).stderr == refused.stderr
    lock = embedded.DataDirLock.acquire(tmp_path, command="guerdon up")
    lock.announce(url="http://127.0.0.1:8000")
    try:
        refused = guerdon("up", "--port", port, "--data-dir", str(tmp_path))
    finally:
        lock.release()
    assert refused.returncode == 2
    assert str(os.getpid()) in refused.stderr
    assert "http://127.0.0.1:8000" in refused.stderr


def test_production_refuses_what_is_for_trying(tmp_path: Path) -> None:
    refused = guerdon("up", "--data-dir", str(tmp_path), GUERDON_PROFILE="production")
    assert (refused.returncode, "GUERDON_MONGODB_URL" in refused.stderr) == (2, True)
    mine = {"GUERDON_MONGODB_URL": "mongodb://guerdon:tRx9-vQ2_kLm4.ZbW7@127.0.0.1:1/", "GUERDON_TOKEN_KEYS": TokenKeys.generate()}
    refused = guerdon("up", "--data-dir", str(tmp_path), GUERDON_PROFILE="production", **mine)
    assert (refused.returncode, "GUERDON_MASTER_KEYS_FILE" in refused.stderr) == (2, True)
    mine["GUERDON_MASTER_KEYS"] = MasterKeys.generate()
    refused = guerdon("up", "--data-dir", str(tmp_path), GUERDON_PROFILE="production", **mine)
    assert (refused.returncode, "--no-demo" in refused.stderr) == (2, True)


def test_production_names_each_secret_that_is_not_safe_and_repeats_none(tmp_path: Path) -> None:
    keys = tmp_path / "token_keys.json"
    keys.write_text(TokenKeys.generate())
    keys.chmod(0o644)
    given = {
        "GUERDON_MONGODB_URL": "mongodb://guerdon:hunter2@db.internal/",
        "GUERDON_TOKEN_KEYS_FILE": str(keys),
        "GUERDON_MASTER_KEYS": json.dumps({"keys": [{"kty": "oct", "k": "A" * 43}]}),
    }
    for command in (["serve"], ["worker"], ["up", "--data-dir", str(tmp_path)]):
        refused = guerdon(*command, GUERDON_PROFILE="production", **given)
        assert refused.returncode == 2
        for named in ("GUERDON_MONGODB_URL", "GUERDON_TOKEN_KEYS_FILE", "0644", "chmod", "GUERDON_MASTER_KEYS"):
            assert named in refused.stderr, refused.stderr
        assert not [
            word for word in ("hunter2", "AAAAAAAA", json.loads(keys.read_text())["keys"][0]["d"]) if word in refused.stderr
        ]


def test_elsewhere_it_is_said_and_not_refused(tmp_path: Path) -> None:
    keys = tmp_path / "token_keys.json"
    keys.write_text(TokenKeys.generate())
    keys.chmod(0o644)
    said = guerdon("worker", "--data-dir", str(tmp_path / "none"), GUERDON_TOKEN_KEYS_FILE=str(keys))
    assert "production would refuse this: GUERDON_TOKEN_KEYS_FILE" in said.stderr
    assert "set GUERDON_MONGODB_URL" in said.stderr
