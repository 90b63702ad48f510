"""Common parts of the benchmark commands: temporary directory, progress messages and exit code."""

import os
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.processes import BenchFailed

EXIT_FAILED = 1
QUIET_LOAD = 0.5
BUSY_WARNING = "others were using this machine, so take the ratios and not the figures"


def run_in(parent: Path | None, work: Callable[[Path], None]) -> None:
    """Run inside a directory below `parent`; exit with 1 if a response was wrong or the verification failed."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with _work_dir(parent) as directory:
            work(directory)
    except BenchFailed as error:
        print(f"bench failed: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print("bench: stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Return the description of the machine and its load; call it before the run."""
    busy = os.getloadavg()[0]
    return {
        "machine": f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, shared by generator, API and mongod",
        "load": f"load average before the run {busy:.1f}" + (f": {BUSY_WARNING}" if busy > QUIET_LOAD else ""),
    }


@contextmanager
def _work_dir(parent: Path | None) -> Generator[Path]:
    """Create a directory and remove it at the end."""
    directory = Path(tempfile.mkdtemp(prefix="guerdon-bench-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
