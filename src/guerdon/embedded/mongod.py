"""One mongod process: started, made a replica set, waited for, stopped."""

import contextlib
import errno
import json
import os
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from guerdon.embedded import host
from guerdon.embedded.binary import Mongod, find_mongod
from guerdon.embedded.datadir import readable
from guerdon.errors import StartupRefused

REPLICA_SET = "guerdon"
_START_SECONDS = 60.0
# How long a node may look for itself in a configuration that names another port before we correct the file under it.
_SELF_SEARCH_SECONDS = 1.5
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_NOT_YET_INITIALIZED = 94
_EXIT_NET_ERROR = 48
_PARAMETERS = (
    "diagnosticDataCollectionEnabled=false",
    # A process that is killed between its writes and its commit leaves a transaction open, and with it the wallets it was moving.
    # The server gives up on it after this time; no command of ours lives longer.
    "transactionLifetimeLimitSeconds=5",
)


class EmbeddedMongo:
    """A mongod that this process started. `url` is for drivers; `pid` is for people."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.port = port
        self.url = f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"

    def alive(self) -> bool:
        """Tell whether mongod still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Shut mongod down cleanly and wait for its end (about 1 s; SIGKILL after 15 s). Harmless when it has ended."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(host.STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End mongod at once. What the majority acknowledged is kept: the next start replays the journal."""
        self._process.kill()
        self._process.wait()

    def status(self) -> int | None:
        """The exit status, negative for a signal; None while mongod runs."""
        return self._process.poll()


class _PortTaken(Exception):
    """Somebody was faster on the port we had chosen."""


class _ConfigurationCorrected(Exception):
    """The replica set's configuration was corrected on disk; mongod must load it anew."""


@dataclass(frozen=True)
class _Launch:
    """One attempt: what runs, where, and until when we wait for it."""

    mongo: EmbeddedMongo
    log: Path
    log_offset: int
    deadline: float

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.mongo.port}"


def start(data_dir: Path, *, cache_mib: int = 256) -> EmbeddedMongo:
    """Start mongod on `data_dir` and return when it is a writable primary: about a second, at most a minute.

    The caller must hold the `DataDirLock` of `data_dir` and be on a thread that lives as long as the database should.
    `cache_mib`: size of the storage engine's cache in MiB; mongod takes no less than 256.

    Raises:
        StartupRefused: the directory cannot be used, no mongod runs here, or it failed (then with its last log lines).
    """
    data_dir = data_dir.absolute()
    dbpath = data_dir / "mongodb"
    log = data_dir / "mongod.log"
    with readable(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        dbpath.mkdir(mode=0o700, exist_ok=True)
        if not os.access(dbpath, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(dbpath))
    mongod = find_mongod(data_dir)
    host.end_predecessor(dbpath)
    with readable(data_dir):
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_name("mongod.log.1"))
    port = host.choose_port(_remembered_port(data_dir))
    deadline = time.monotonic() + _START_SECONDS
    for _ in range(5):
        with readable(data_dir):
            launch = _launch(mongod, data_dir, (port, cache_mib), deadline)
        try:
            _await_primary(launch)
            with readable(data_dir):
                _remember_port(data_dir, port)
        except _PortTaken:
            launch.mongo.stop()
            port = host.choose_port(None)
        except _ConfigurationCorrected:
            launch.mongo.kill()  # SIGTERM would wait for the same answer that does not come.
        except BaseException:
            launch.mongo.stop()
            raise
        else:
            return launch.mongo
    raise StartupRefused(f"mongod found no free port on 127.0.0.1, or its configuration does not settle; see {log}.")


def _launch(mongod: Mongod, data_dir: Path, size: tuple[int, int], deadline: float) -> _Launch:
    port, cache_mib = size
    log = data_dir / "mongod.log"
    arguments = {
        "--dbpath": str(data_dir / "mongodb"),
        "--port": str(port),
        "--bind_ip": "127.0.0.1",
        "--replSet": REPLICA_SET,
        "--wiredTigerCacheSizeGB": f"{max(cache_mib, 256) / 1024:.3f}",
        "--logpath": str(log),
    }
    options = [part for pair in arguments.items() for part in pair]
    command = [str(mongod.binary), *options, "--logappend", "--nounixsocket", "--noscripting"]
    for parameter in _PARAMETERS:
        command += ["--setParameter", parameter]
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        offset = os.fstat(descriptor).st_size
        process = subprocess.Popen(
            command,
            env=mongod.environment,
            cwd=data_dir,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            preexec_fn=partial(host.become_mongod, os.getpid()),
            # Ctrl-C goes to the terminal's whole foreground group; the database must outlive the requests in flight.
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return _Launch(EmbeddedMongo(process, port), log, offset, deadline)


def _await_primary(launch: _Launch) -> None:
    """Wait until the node is a writable primary, initiating or correcting the replica set on the way."""
    while not host.listens(launch.mongo.port):
        _check(launch)
    client: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1",
        launch.mongo.port,
        directConnection=True,
        serverSelectionTimeoutMS=1000,
        connectTimeoutMS=1000,
        socketTimeoutMS=20_000,
        retryReads=False,
        retryWrites=False,
    )
    connected = time.monotonic()
    try:
        while True:
            _check(launch)
            # The node closes connections when it changes its state, and refuses what it cannot do yet: ask again.
            with contextlib.suppress(ConnectionFailure, OperationFailure):
                if _step(client, launch, patient=time.monotonic() < connected + _SELF_SEARCH_SECONDS):
                    return
    except PyMongoError as error:
        raise StartupRefused(f"mongod did not get ready: {error}{_log_tail(launch)}") from error
    finally:
        client.close()


def _step(client: MongoClient[dict[str, Any]], launch: _Launch, *, patient: bool) -> bool:
    """Do the next thing the node needs; True when it is a writable primary on our port."""
    hello = client.admin.command("hello")
    if hello.get("isWritablePrimary") and hello.get("me") == launch.host:
        status = client.admin.command("serverStatus", repl=0, metrics=0, wiredTiger=0)
        return int(status["pid"]) == launch.mongo.pid  # Else another mongod answers on the port; ours is about to fail.
    # The document itself, not replSetGetConfig: that says "not yet initialized" as well while a node is still loading
    # an existing configuration, and replSetInitiate would then hang until it is loaded.
    stored = client.local["system.replset"].find_one({"_id": REPLICA_SET})
    if stored is None:
        members = [{"_id": 0, "host": launch.host}]
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
    elif stored["members"][0]["host"] != launch.host:
        _correct_host(client, launch, patient=patient)
    return False


def _correct_host(client: MongoClient[dict[str, Any]], launch: _Launch, *, patient: bool) -> None:
    """Write our host into a configuration that names the port of an earlier run.

    A node that is not in its own configuration ends in state REMOVED and takes a forced reconfiguration. But on the way
    there it asks whoever has the old port now "are you me?", and waits 30 s for one who accepts and never answers, as a
    web server does. Then the stored document is corrected instead (the local database takes writes in every state) and
    the node started anew.
    """
    try:
        current = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED or patient:
            raise
        change = {"$set": {"members.0.host": launch.host}, "$inc": {"version": 1}}
        client.local["system.replset"].update_one({"_id": REPLICA_SET}, change)
        client.admin.command("fsync")  # A write concern with j waits for nothing in this state, and SIGKILL comes next.
        raise _ConfigurationCorrected from error
    current["members"][0]["host"] = launch.host
    current["version"] += 1
    client.admin.command("replSetReconfig", current, force=True)


def _check(launch: _Launch) -> None:
    """Sleep one poll; raise when mongod has ended or the time is up."""
    time.sleep(host.POLL_SECONDS)
    if not launch.mongo.alive():
        status = launch.mongo.status()
        if status == _EXIT_NET_ERROR:
            raise _PortTaken
        raise StartupRefused(f"mongod ended with status {status} while starting.{_log_tail(launch)}")
    if time.monotonic() > launch.deadline:
        raise StartupRefused(f"mongod was not ready within {_START_SECONDS:.0f} s.{_log_tail(launch)}")


def _log_tail(launch: _Launch) -> str:
    """The last lines mongod wrote in this run: errors first choice, since a crash ends in pages of back trace."""
    try:
        with launch.log.open("rb") as file:
            file.seek(max(launch.log_offset, launch.log.stat().st_size - 512 * 1024))
            lines = [_plain(line) for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return f" Its log cannot be read: {error}."
    errors = [text for severity, text in lines if severity in {"E", "F", ""}]
    chosen = (errors or [text for _, text in lines])[-6:]
    return f" The last lines of {launch.log}:\n" + "\n".join(f"  {text}" for text in chosen)


def _plain(line: str) -> tuple[str, str]:
    """Severity ("" when it is not a log line) and a readable form of one line of mongod's JSON log."""
    try:
        entry = json.loads(line)
        attributes = json.dumps(entry["attr"]) if "attr" in entry else ""
        return str(entry["s"]), f"{entry['msg']} {attributes}"[:600].rstrip()
    except (ValueError, KeyError, TypeError):
        return "", line[:600]


def _remembered_port(data_dir: Path) -> int | None:
    try:
        port: Any = json.loads((data_dir / "mongod.json").read_text("utf-8"))["port"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # A lost or broken note costs a reconfiguration, no more.
    return port if isinstance(port, int) and 0 < port < 65536 else None


def _remember_port(data_dir: Path, port: int) -> None:
    note = data_dir / "mongod.json"
    fresh = note.with_name("mongod.json.new")
    fresh.write_text(json.dumps({"port": port}), "utf-8")
    fresh.replace(note)
