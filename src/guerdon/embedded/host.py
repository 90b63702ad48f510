"""Operating-system support for mongod: a free port, an end together with the parent process, and mongods of earlier runs."""

import contextlib
import ctypes
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from guerdon.errors import StartupRefused

STOP_SECONDS = 15.0
FILES_MIN = 1024
"""Open files that mongod and its clients need. With 128 it starts, and ends when the collections are created."""
POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1

# Loaded at import, because few calls are safe between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


forking = threading.RLock()
"""Held while this process forks. A thread that starts a program holds it until the program runs: otherwise a child that another thread forks at that
moment inherits the pipe on which the thread waits, and the thread waits until that child ends.
"""
os.register_at_fork(before=forking.acquire, after_in_parent=forking.release, after_in_child=forking.release)


def require_open_files() -> None:
    """Check that enough files can be opened.

    Raises:
        StartupRefused: the limit of the process is too low; the message names it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_MIN:
        raise StartupRefused(
            f"This process may open only {hard} files (`ulimit -n`), and the embedded database needs at least {FILES_MIN}. Raise the limit, for "
            f"example with `ulimit -n 4096` in the shell, `LimitNOFILE=` of systemd or `--ulimit nofile=4096` of a container."
        )


def die_with_parent(parent: int | None = None, *, by: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to send this process the signal `by` when its parent ends. Does nothing outside Linux.

    A worker process must call it first. "Parent" is the thread that forked, so that thread must live as long as the process. If the parent has already
    ended, the process exits at once with status 1.

    `parent` is the pid of the parent, if the caller knows it. Otherwise the parent that multiprocessing has recorded is used, if any.
    """
    if _libc is None:
        return
    before = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    # If the parent ended before prctl, no signal is sent. "ppid is 1" is no sufficient test: in a container the parent is often pid 1, and
    # orphans may be adopted by a subreaper.
    if os.getppid() != (before if parent is None else parent):
        os._exit(1)
    recorded = multiprocessing.parent_process() if parent is None else None
    if recorded is not None and not recorded.is_alive():
        os._exit(1)


def become_mongod(parent: int) -> None:
    """Prepare the child process between fork and exec."""
    # The Python handler of the parent would swallow a SIGTERM that arrives before exec, and mongod would inherit an ignored or blocked
    # SIGTERM.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    die_with_parent(parent)


def choose_port(remembered: int | None) -> int:
    """Return the remembered port if it is free, otherwise another free port.

    Raises:
        StartupRefused: no free port was found.
    """
    if remembered is not None and _is_free(remembered):
        return remembered
    # Below the range of ports for outgoing connections (from 32768): an outgoing connection could use the port at the next start, and a
    # client that retries a port without a listener can end up connected to itself.
    for _ in range(100):
        port = random.randrange(20000, 32000)
        if _is_free(port):
            return port
    raise StartupRefused("No free port between 20000 and 32000 on 127.0.0.1 was found for mongod.")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # The same option as mongod: only a listener blocks the port, not connections in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Return True if a process listens on the port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def end_predecessor(dbpath: Path) -> None:
    """End a mongod on `dbpath` whose parent has ended: send SIGTERM and, after 15 s, SIGKILL, and wait for its end.

    Raises:
        StartupRefused: the process does not end.
    """
    pid = predecessor(dbpath)
    if pid is None:
        return
    started = time.monotonic()
    _send_signal(pid, signal.SIGTERM, dbpath)
    killed = False
    while _runs_on(pid, dbpath):
        waited = time.monotonic() - started
        if waited > STOP_SECONDS and not killed:
            killed = True
            _send_signal(pid, signal.SIGKILL, dbpath)
        if waited > 2 * STOP_SECONDS:
            raise StartupRefused(f"An earlier mongod (pid {pid}) still uses {dbpath} and does not end. Stop it first.")
        time.sleep(POLL_SECONDS)


def predecessor(dbpath: Path) -> int | None:
    """Return the pid of a running mongod on `dbpath`, or None."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((dbpath / "mongod.lock").read_text("ascii"))
        if _runs_on(pid, dbpath):
            return pid
    # A mongod that was orphaned immediately after its start may not have written its pid yet.
    with contextlib.suppress(OSError):
        for name in (entry.name for entry in Path("/proc").iterdir()):
            if name.isdigit() and _runs_on(int(name), dbpath):
                return int(name)
    return None


def _runs_on(pid: int, dbpath: Path) -> bool:
    """Return True if the process is a mongod with this --dbpath. A zombie has no command line, so it is not counted."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if Path(os.fsdecode(arguments[0])).name != "mongod":
            return False
        return Path(os.fsdecode(arguments[arguments.index(b"--dbpath") + 1])).samefile(dbpath)
    except (OSError, ValueError, IndexError):
        return False


def _send_signal(pid: int, number: signal.Signals, dbpath: Path) -> None:
    if not _runs_on(pid, dbpath):  # Checked immediately before the signal: the pid may have been reused.
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
