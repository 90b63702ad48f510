"""What the machine gives a child process (a port, an end together with its parent) and what an earlier run left on it."""

import contextlib
import ctypes
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

from guerdon.errors import StartupRefused

STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1

# Loaded at import, not in the child: between fork and exec only the simplest calls are safe.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int | None = None, *, by: signal.Signals = signal.SIGTERM) -> None:
    """Ask the kernel to send this process the signal `by` when its parent dies. Does nothing outside Linux.

    For worker processes, call it first thing in the worker. "Parent" means the thread that forked: it must live long.
    If the parent is gone already, the process exits at once with status 1.

    `parent`: the pid the parent is known to have, where the caller knows it. Without it, the parent that
    multiprocessing recorded is asked for, if there is one.
    """
    if _libc is None:
        return
    before = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    # The parent may have died before prctl; then no signal will ever come. "ppid is 1" would not do as a test: in a
    # container the parent is often pid 1 itself, and orphans may go to a subreaper instead.
    if os.getppid() != (before if parent is None else parent):
        os._exit(1)
    recorded = multiprocessing.parent_process() if parent is None else None
    if recorded is not None and not recorded.is_alive():
        os._exit(1)


def become_mongod(parent: int) -> None:
    """Run in the child between fork and exec."""
    # The parent's Python handler for SIGTERM would swallow a death signal that comes before exec; and an ignored or
    # blocked SIGTERM would be inherited by mongod.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    die_with_parent(parent)


def choose_port(remembered: int | None) -> int:
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


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def end_predecessor(dbpath: Path) -> None:
    """Wait for a mongod on our dbpath whose parent died; help it with SIGTERM and, after 15 s, with SIGKILL."""
    pid = predecessor(dbpath)
    if pid is None:
        return
    began = time.monotonic()
    _signal_ours(pid, signal.SIGTERM, dbpath)
    killed = False
    while _is_ours(pid, dbpath):
        waited = time.monotonic() - began
        if waited > STOP_SECONDS and not killed:
            killed = True
            _signal_ours(pid, signal.SIGKILL, dbpath)
        if waited > 2 * STOP_SECONDS:
            raise StartupRefused(f"An earlier mongod (pid {pid}) still uses {dbpath} and does not end. Stop it first.")
        time.sleep(POLL_SECONDS)


def predecessor(dbpath: Path) -> int | None:
    """The pid of a running mongod on our dbpath, if any."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((dbpath / "mongod.lock").read_text("ascii"))
        if _is_ours(pid, dbpath):
            return pid
    # One that was orphaned in its first moments has not written its pid yet, but goes on to do so.
    with contextlib.suppress(OSError):
        for name in (entry.name for entry in Path("/proc").iterdir()):
            if name.isdigit() and _is_ours(int(name), dbpath):
                return int(name)
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
