"""Child processes of a run, each with a log, awaited until they respond and stopped at the end."""

import functools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from bench.load import DRAIN_SECONDS, Plan, Sample
from guerdon import embedded

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
STOP_SECONDS = 20.0


class BenchFailed(Exception):
    """The run cannot continue, or its result is invalid."""


class Target:
    """A server under load: its port, token, processes and database."""

    def __init__(self, name: str, port: int, token: str, pids: list[int], *, books: str | None = None) -> None:
        self.name = name
        self.port = port
        self.token = token
        self.pids = pids
        self.books = books or name


class Processes:
    """Context manager that stops its processes. Logs are in `work_dir`."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def spawn(self, name: str, *arguments: str, **extra: str) -> subprocess.Popen[bytes]:
        """Start a Python program; `extra` is added to its environment."""
        log = self._stack.enter_context((self._work_dir / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, *arguments],
            # The child ends even if the benchmark is killed. There is only one thread, so the call after the fork is safe.
            preexec_fn=functools.partial(embedded.die_with_parent, os.getpid()),  # noqa: PLW1509 (the one moment to ask for it)
            env=environment(**extra),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the servers in order.
        )
        self._stack.callback(_stop, process)
        return process

    def await_http(self, process: subprocess.Popen[bytes], name: str, url: str) -> None:
        """
        Raises:
            BenchFailed: it does not answer in time, or has ended.
        """
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(url, timeout=2).close()  # noqa: S310 (our own loopback address)
                return
            except urllib.error.HTTPError as error:
                if error.code < 500:  # It responds, even if it refuses the request.
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise BenchFailed(f"the {name} server does not answer\n{self.log_tail(name)}")

    def log_tail(self, name: str, lines: int = 15) -> str:
        """Return the end of a server's output, for an error message."""
        try:
            with (self._work_dir / f"{name}.log").open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - 8192, 0))
                return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""


def run_guerdon(*arguments: str, **extra: str) -> str:
    """Run a command of the product and return its standard output.

    Raises:
        BenchFailed: The exit code was not 0.
    """
    done = subprocess.run(
        [sys.executable, "-m", "guerdon", *arguments],
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=7200,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"guerdon {arguments[0]} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def load(plan: Plan) -> Sample:
    """Run one plan in its own generator process."""
    limit = plan.warmup_seconds + plan.seconds + DRAIN_SECONDS + 30
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        input=msgspec.json.encode(plan),
        env=environment(),
        capture_output=True,
        timeout=limit,
        check=False,
    )
    if done.returncode:
        raise BenchFailed(f"the load generator has failed\n{done.stderr[-2000:].decode('utf-8', 'replace')}")
    return msgspec.json.decode(done.stdout, type=Sample)


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without settings of Guerdon, so that the product uses its defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUERDON_")}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
    return {**kept, "PYTHONPATH": path, **extra}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(root: int) -> list[int]:
    """Return `root` and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="latin-1").strip()
    except OSError:
        return ""


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server; if it does not end, kill it and all its descendants."""
    if process.poll() is None:
        family = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(family):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.wait()
