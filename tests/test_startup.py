"""What start-up refuses: a standalone server, a weak write concern, a route without a policy, a taken port or data directory."""

import json
import os
import socket
import subprocess
import sys
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
from tests.commands import run_here
from tests.invariants.retail import Run, environment

SECONDS = 150


class Unguarded:
    """A resource whose author forgot to say who may call it."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.text = "everything"


def test_a_route_without_a_policy_stops_the_start() -> None:
    with pytest.raises(TypeError, match="declares no policy"):
        operations_of("/v1/everything", Unguarded(), None)


def as_process(*arguments: str, **more: str) -> Run:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "guerdon", *arguments]
    ended = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=SECONDS, check=False)
    return Run(ended.returncode, ended.stdout, ended.stderr)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def standalone(folder: Path) -> Iterator[str]:
    """A mongod without a replica set."""
    mongod = embedded.find_mongod(folder)
    port = free_port()
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


def test_standalone_server_is_refused_with_an_explanation(tmp_path: Path) -> None:
    with standalone(tmp_path) as url:
        keys = {"GUERDON_TOKEN_KEYS": TokenKeys.generate(), "GUERDON_MASTER_KEYS": MasterKeys.generate()}
        refused = run_here("serve", "--port", str(free_port()), GUERDON_MONGODB_URL=url, **keys)
    assert refused.status == 2
    assert "standalone" in refused.err
    assert "--replSet" in refused.err
    assert "Traceback" not in refused.err


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
        refused = as_process("up", "--port", port, "--data-dir", str(tmp_path))
        assert refused.status == 2
        assert f"127.0.0.1:{port}" in refused.err
        assert as_process("up", "--port", port, "--data-dir", str(tmp_path)) == refused, "the directory is free again"
    lock = embedded.DataDirLock.acquire(tmp_path, command="guerdon up")
    lock.announce(url="http://127.0.0.1:8000")
    try:
        refused = run_here("up", "--port", port, "--data-dir", str(tmp_path))
    finally:
        lock.release()
    assert refused.status == 2
    assert str(os.getpid()) in refused.err
    assert "http://127.0.0.1:8000" in refused.err


def test_production_refuses_development_features(tmp_path: Path) -> None:
    refused = run_here("up", "--data-dir", str(tmp_path), GUERDON_PROFILE="production")
    assert (refused.status, "GUERDON_MONGODB_URL" in refused.err) == (2, True)
    mine = {"GUERDON_MONGODB_URL": "mongodb://guerdon:tRx9-vQ2_kLm4.ZbW7@127.0.0.1:1/", "GUERDON_TOKEN_KEYS": TokenKeys.generate()}
    refused = run_here("up", "--data-dir", str(tmp_path), GUERDON_PROFILE="production", **mine)
    assert (refused.status, "GUERDON_MASTER_KEYS_FILE" in refused.err) == (2, True)
    mine["GUERDON_MASTER_KEYS"] = MasterKeys.generate()
    refused = run_here("up", "--data-dir", str(tmp_path), GUERDON_PROFILE="production", **mine)
    assert (refused.status, "--no-demo" in refused.err) == (2, True)


def test_production_names_each_unsafe_secret_without_quoting_it(tmp_path: Path) -> None:
    keys = tmp_path / "token_keys.json"
    keys.write_text(TokenKeys.generate())
    keys.chmod(0o644)
    given = {
        "GUERDON_MONGODB_URL": "mongodb://guerdon:hunter2@db.internal/",
        "GUERDON_TOKEN_KEYS_FILE": str(keys),
        "GUERDON_MASTER_KEYS": json.dumps({"keys": [{"kty": "oct", "k": "A" * 43}]}),
    }
    for command in (["serve"], ["worker"], ["up", "--data-dir", str(tmp_path)]):
        refused = as_process(*command, GUERDON_PROFILE="production", **given)
        assert refused.status == 2
        for named in ("GUERDON_MONGODB_URL", "GUERDON_TOKEN_KEYS_FILE", "0644", "chmod", "GUERDON_MASTER_KEYS"):
            assert named in refused.err, refused.err
        assert not [word for word in ("hunter2", "AAAAAAAA", json.loads(keys.read_text())["keys"][0]["d"]) if word in refused.err]


def test_unsafe_secret_outside_production_causes_only_a_warning(tmp_path: Path) -> None:
    keys = tmp_path / "token_keys.json"
    keys.write_text(TokenKeys.generate())
    keys.chmod(0o644)
    said = run_here("worker", "--data-dir", str(tmp_path / "none"), GUERDON_TOKEN_KEYS_FILE=str(keys))
    assert "production would refuse this: GUERDON_TOKEN_KEYS_FILE" in said.err
    assert "set GUERDON_MONGODB_URL" in said.err
