"""`guerdon up` and its database, with real processes: restarts, giving up, Ctrl-C, and who may use the data directory."""

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from guerdon import embedded
from guerdon.cli.main import EXIT_DATABASE_LOST
from guerdon.embedded.mongod import restart
from guerdon.errors import DataDirectoryBusy, StartupRefused
from tests.commands import run_here
from tests.invariants.retail import environment
from tests.test_embedded import LINUX
from tests.test_startup import as_process, free_port
from tests.trust.deployment import Deployment
from tests.trust.load import Load

STOP_SECONDS_MAX = 10.0


def events_of(deployment: Deployment, name: str) -> list[dict[str, Any]]:
    """The lines of the log with this event."""
    lines = (json.loads(line) for line in deployment.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == name]


@LINUX
async def test_killed_database_is_restarted_and_keeps_its_directory(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "data")
    try:
        await deployment.start()
        made = await deployment.command("keys", "create", "--name", "load", "--scopes", "*")
        load = Load([deployment.url], made.out.splitlines()[-1], 1)
        load.wallets = await load.open_wallets(2)
        url = deployment.mongodb_url()
        for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            await deployment.new_mongod(deployment.kill_mongod(how))
            assert deployment.mongodb_url() == url
            assert await load.probe(load.wallets[0]) < 60
        assert [line["status"] for line in events_of(deployment, "database_ended")] == [-9, 0, -9]
        assert len(events_of(deployment, "database_restarted")) == 3
        assert (await deployment.command("verify")).status == 0

        # The lock file is deleted: the second process must not end the database of the first as if it were an orphan.
        first = deployment.mongod()
        (deployment.data_dir / "guerdon.lock").unlink()
        for arguments in (["up", "--no-demo", "--port", str(free_port())], ["keys", "list"], ["verify"]):
            refused = as_process(*arguments, "--data-dir", str(deployment.data_dir))
            assert (refused.status, refused.out) == (2, ""), refused
            assert "whose lock file" in refused.err
            assert "was deleted. Stop that process" in refused.err
        assert deployment.mongod() == first
        await deployment.ready()

        # A database that hangs does not keep the process from ending.
        deployment.kill_mongod(signal.SIGSTOP)
        assert deployment.interrupt() < STOP_SECONDS_MAX
    finally:
        deployment.kill()
    lock = embedded.DataDirLock.acquire(tmp_path / "data", command="guerdon up")
    lock.release()


@LINUX
async def test_database_that_cannot_be_restarted_ends_the_process_with_a_message(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "data")
    try:
        await deployment.start()
        for file in ("WiredTiger.turtle", "WiredTiger.wt"):
            (deployment.data_dir / "mongodb" / file).write_bytes(b"broken" * 1000)
        deployment.kill_mongod()
        assert await deployment.ended(within_seconds=90) == EXIT_DATABASE_LOST
    finally:
        deployment.kill()
    assert [line["failures"] for line in events_of(deployment, "database_not_restarted")] == [1, 2, 3]
    said = deployment.log.read_text()
    assert (
        "guerdon: the embedded database has failed 3 times in a row, so this process ends. mongod ended with status -9.\nThen: mongod ended with status"
        in said
    )
    assert f"The last lines of {deployment.data_dir / 'mongod.log'}" in said
    assert "WiredTiger" in said


@LINUX
async def test_ctrl_c_ends_the_process_while_the_database_is_being_restarted(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "data")
    try:
        await deployment.start()
        before = deployment.kill_mongod()
        deadline = time.monotonic() + 60
        while deployment.mongod() in (None, before):
            assert time.monotonic() < deadline
        assert deployment.interrupt() < STOP_SECONDS_MAX
    finally:
        deployment.kill()
    assert embedded.holder(tmp_path / "data") is None


def test_deleted_lock_file_does_not_free_the_directory(tmp_path: Path) -> None:
    lock = embedded.DataDirLock.acquire(tmp_path, command="guerdon up")
    (tmp_path / "guerdon.lock").unlink()
    for _ in range(2):  # The first attempt leaves a new file.
        with pytest.raises(DataDirectoryBusy, match=r"lock file .* was deleted"):
            embedded.DataDirLock.acquire(tmp_path, command="guerdon up")
        assert embedded.holder(tmp_path) is embedded.LOCK_FILE_DELETED
    lock.release()
    assert embedded.holder(tmp_path) is None
    embedded.DataDirLock.acquire(tmp_path, command="guerdon up").release()


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o770, 0o704, 0o777, 0o1777])
def test_data_directory_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    directory.chmod(mode)
    for command in (["up", "--no-demo", "--port", str(free_port())], ["keys", "create", "--name", "till", "--scopes", "*"]):
        refused = run_here(*command, "--data-dir", str(directory))
        assert refused.status == 2
        assert f"{directory} is open to other users (mode {mode:04o})" in refused.err
        assert f"`chmod 700 {directory}`" in refused.err
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize("mode", [0o700, 0o750])
def test_private_data_directory_is_accepted(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    embedded.DataDirLock.acquire(tmp_path, command="guerdon up").release()


def test_low_limit_of_open_files_is_named_as_the_cause(tmp_path: Path) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    command = [sys.executable, "-m", "guerdon", "up", "--no-demo", "--port", str(free_port()), "--data-dir", str(tmp_path)]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False, preexec_fn=lower)
    assert ended.returncode == 2
    assert "may open only 128 files (`ulimit -n`)" in ended.stderr
    assert "ulimit -n 4096" in ended.stderr


@LINUX
def test_soft_limit_of_open_files_is_raised_for_the_database(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        mongo = embedded.start(tmp_path)
        try:
            limits = Path(f"/proc/{mongo.pid}/limits").read_text()
            assert f"{hard} " in next(line for line in limits.splitlines() if line.startswith("Max open files"))
        finally:
            mongo.stop()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_interrupted_restart_leaves_no_database(tmp_path: Path) -> None:
    mongo = embedded.start(tmp_path)
    mongo.kill()
    interrupted = threading.Event()
    interrupted.set()
    with pytest.raises(StartupRefused, match="interrupted"):
        restart(tmp_path, mongo, interrupted)
    embedded.start(tmp_path).stop()
