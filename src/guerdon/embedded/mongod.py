"""One mongod process: start it, initiate its replica set, wait until it is ready, and stop it."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from guerdon.embedded import host
from guerdon.embedded.binary import Mongod, find_mongod
from guerdon.embedded.datadir import files_of, readable
from guerdon.errors import StartupRefused

REPLICA_SET = "guerdon"
_START_SECONDS = 60.0
# Time for which a node may search for itself in a configuration with another port before the stored configuration is corrected.
_SELF_SEARCH_SECONDS = 1.5
START_STOP_SECONDS = 3.0
"""Time that a mongod whose start has failed gets to end."""
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_FREE_BYTES_MIN = 64 * 1024 * 1024
_NOT_YET_INITIALIZED = 94
_EXIT_NET_ERROR = 48
_PARAMETERS = (
    "diagnosticDataCollectionEnabled=false",
    # A process that is killed between its writes and its commit leaves a transaction open, which blocks the wallets in it. The server aborts
    # the transaction after this time; no command takes longer.
    "transactionLifetimeLimitSeconds=5",
)


class EmbeddedMongo:
    """mongod that this process has started. `url` is the connection string for drivers."""

    def __init__(self, process: subprocess.Popen[bytes], mongod: Mongod, port: int, cache_mib: int) -> None:
        self._process = process
        self.mongod = mongod
        self.cache_mib = cache_mib
        self.pid = process.pid
        self.port = port
        self.url = f"mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}"

    def alive(self) -> bool:
        """Return True while mongod runs."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for the end of mongod and return its exit status, negative for a signal."""
        return self._process.wait()

    def stop(self, seconds: float | None = None) -> None:
        """Shut mongod down cleanly and wait for its end (about 1 s). Does nothing if it has ended.

        After `seconds` (15 by default) it is killed, which loses no acknowledged write.
        """
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(host.STOP_SECONDS if seconds is None else seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End mongod at once. Acknowledged writes are kept: the next start replays the journal."""
        self._process.kill()
        self._process.wait()

    def status(self) -> int | None:
        """Return the exit status, negative for a signal, or None while mongod runs."""
        return self._process.poll()


class _PortTaken(Exception):
    """Another process has taken the chosen port."""


class _ConfigurationCorrected(Exception):
    """The configuration of the replica set was corrected on disk; mongod must be restarted to load it."""


@dataclass(frozen=True)
class _Launch:
    """One attempt to start mongod."""

    mongo: EmbeddedMongo
    log: Path
    log_offset: int
    """Size of the log before the start."""
    deadline: float
    """Time of the monotonic clock at which the start has failed."""
    interrupted: threading.Event
    """Set when the start is no longer wanted."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.mongo.port}"


def start(data_dir: Path, *, cache_mib: int = 256) -> EmbeddedMongo:
    """Start mongod on `data_dir` and return when it is a writable primary: after about a second, at most a minute.

    The caller must hold the `DataDirLock` of `data_dir`, and its thread must live as long as the database.
    `cache_mib` is the cache size of the storage engine in MiB; the minimum is 256.

    Raises:
        StartupRefused: the directory cannot be used, no mongod runs on this machine, or mongod failed (with its last log lines).
    """
    data_dir = data_dir.absolute()
    dbpath = files_of(data_dir)
    log = data_dir / "mongod.log"
    with readable(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        dbpath.mkdir(mode=0o700, exist_ok=True)
        if not os.access(dbpath, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(dbpath))
    host.require_open_files()
    mongod = find_mongod(data_dir)
    host.end_predecessor(dbpath)
    port = host.choose_port(_remembered_port(data_dir))
    deadline = time.monotonic() + _START_SECONDS
    for _ in range(5):
        try:
            mongo = _start_once(mongod, data_dir, (port, cache_mib), deadline, threading.Event())
            with readable(data_dir):
                _remember_port(data_dir, port)
        except _PortTaken:
            port = host.choose_port(None)
        except _ConfigurationCorrected:
            continue
        else:
            return mongo
    raise StartupRefused(
        f"mongod found no free port on 127.0.0.1, or its replica set configuration could not be corrected; see {log}."
    )


def restart(data_dir: Path, ended: EmbeddedMongo, interrupted: threading.Event) -> EmbeddedMongo:
    """Start again a mongod of this process that has ended, on the same port, so that its clients find it.

    The thread must live as long as the database. `interrupted` ends the attempt.

    Raises:
        StartupRefused: mongod failed (with its last log lines), its port is in use, or the attempt was interrupted.
    """
    size = (ended.port, ended.cache_mib)
    try:
        return _start_once(ended.mongod, data_dir.absolute(), size, time.monotonic() + _START_SECONDS, interrupted)
    except (_PortTaken, _ConfigurationCorrected):
        raise StartupRefused(f"the port {ended.port} of mongod is in use by another process") from None


def _start_once(
    mongod: Mongod, data_dir: Path, size: tuple[int, int], deadline: float, interrupted: threading.Event
) -> EmbeddedMongo:
    """Start mongod with a port and a cache size, and return when it is a writable primary. A mongod that fails has ended."""
    log = data_dir / "mongod.log"
    with readable(data_dir):
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_name("mongod.log.1"))
        launch = _launch(mongod, data_dir, size, deadline, interrupted)
    try:
        _await_primary(launch)
    except _ConfigurationCorrected:
        launch.mongo.kill()  # After SIGTERM, mongod would wait for the same missing answer.
        raise
    except BaseException:
        launch.mongo.stop(START_STOP_SECONDS)
        raise
    return launch.mongo


def _launch(mongod: Mongod, data_dir: Path, size: tuple[int, int], deadline: float, interrupted: threading.Event) -> _Launch:
    port, cache_mib = size
    log = data_dir / "mongod.log"
    arguments = {
        "--dbpath": str(files_of(data_dir)),
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
        with host.forking:
            process = subprocess.Popen(
                command,
                env=mongod.environment,
                cwd=data_dir,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                preexec_fn=partial(host.become_mongod, os.getpid()),
                # Ctrl-C is sent to the foreground process group of the terminal; the database must outlive the running requests.
                start_new_session=True,
            )
    finally:
        os.close(descriptor)
    return _Launch(EmbeddedMongo(process, mongod, port, cache_mib), log, offset, deadline, interrupted)


def _await_primary(launch: _Launch) -> None:
    """Wait until the node is a writable primary; initiate or correct the replica set as needed."""
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
            # The node closes connections when its state changes, and refuses commands that it cannot run yet: retry.
            with contextlib.suppress(ConnectionFailure, OperationFailure):
                if _step(client, launch, patient=time.monotonic() < connected + _SELF_SEARCH_SECONDS):
                    return
    except PyMongoError as error:
        raise StartupRefused(f"mongod did not become ready: {error}{log_tail(launch.log, launch.log_offset)}") from error
    finally:
        client.close()


def _step(client: MongoClient[dict[str, Any]], launch: _Launch, *, patient: bool) -> bool:
    """Take the next step towards a writable primary; return True when the node is one on the chosen port."""
    hello = client.admin.command("hello")
    if hello.get("isWritablePrimary") and hello.get("me") == launch.host:
        status = client.admin.command("serverStatus", repl=0, metrics=0, wiredTiger=0)
        return int(status["pid"]) == launch.mongo.pid  # Otherwise another mongod uses the port, and this one is about to fail.
    # The document is read directly. replSetGetConfig also returns "not yet initialized" while a node loads an existing configuration, and
    # replSetInitiate would then block until it is loaded.
    stored = client.local["system.replset"].find_one({"_id": REPLICA_SET})
    if stored is None:
        members = [{"_id": 0, "host": launch.host}]
        client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
    elif stored["members"][0]["host"] != launch.host:
        _correct_host(client, launch, patient=patient)
    return False


def _correct_host(client: MongoClient[dict[str, Any]], launch: _Launch, *, patient: bool) -> None:
    """Write the current host into a configuration that contains the port of an earlier run.

    A node that is not in its own configuration enters the state REMOVED, in which it accepts a forced reconfiguration. Before that, it connects to the
    old port to find out whether it is itself, and waits 30 s if another process accepts the connection without answering, such as a web server. In that
    case the stored document is corrected instead (the local database accepts writes in every state), and mongod is restarted.
    """
    try:
        current = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED or patient:
            raise
        change = {"$set": {"members.0.host": launch.host}, "$inc": {"version": 1}}
        client.local["system.replset"].update_one({"_id": REPLICA_SET}, change)
        client.admin.command("fsync")  # In this state the write concern j does not wait, and the process is killed next.
        raise _ConfigurationCorrected from error
    current["members"][0]["host"] = launch.host
    current["version"] += 1
    client.admin.command("replSetReconfig", current, force=True)


def _check(launch: _Launch) -> None:
    """Wait for one poll interval.

    Raises:
        StartupRefused: mongod has ended, or the time is up.
    """
    if launch.interrupted.wait(host.POLL_SECONDS):
        raise StartupRefused("the start of mongod was interrupted")
    if not launch.mongo.alive():
        status = launch.mongo.status()
        if status == _EXIT_NET_ERROR:
            raise _PortTaken
        raise StartupRefused(f"mongod ended with status {status} while starting.{log_tail(launch.log, launch.log_offset)}")
    if time.monotonic() > launch.deadline:
        raise StartupRefused(f"mongod was not ready within {_START_SECONDS:.0f} s.{log_tail(launch.log, launch.log_offset)}")


def log_tail(log: Path, offset: int) -> str:
    """Return the last log lines after `offset`: errors if there are any, because a crash ends with a long backtrace.

    A full disk is named first: mongod cannot log that.
    """
    full = _full_disk(log.parent)
    try:
        with log.open("rb") as file:
            file.seek(max(offset, log.stat().st_size - 512 * 1024))
            lines = [_readable(line) for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        return f"{full} Its log cannot be read: {error}."
    errors = [text for severity, text in lines if severity in {"E", "F", ""}]
    chosen = (errors or [text for _, text in lines])[-6:]
    return f"{full} The last lines of {log}:\n" + "\n".join(f"  {text}" for text in chosen)


def _full_disk(data_dir: Path) -> str:
    free = shutil.disk_usage(data_dir).free
    return f" The disk of {data_dir} is full: {free // 2**20} MiB are free." if free < _FREE_BYTES_MIN else ""


def _readable(line: str) -> tuple[str, str]:
    """Return the severity and a readable form of one line of the JSON log; the severity of other lines is ""."""
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
        return None  # A missing or damaged file only causes a reconfiguration.
    return port if isinstance(port, int) and 0 < port < 65536 else None


def _remember_port(data_dir: Path, port: int) -> None:
    file = data_dir / "mongod.json"
    draft = file.with_name("mongod.json.new")
    draft.write_text(json.dumps({"port": port}), "utf-8")
    draft.replace(file)
