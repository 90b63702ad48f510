"""What every command of this folder needs: a directory that is gone afterwards, words on the way, and the exit code."""

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
    """Work in a directory below `parent`; end with 1 when an answer was wrong or the books are."""
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
    """What the figures were measured on, and whether anybody else was at work there. To be asked before the run."""
    busy = os.getloadavg()[0]
    return {
        "machine": f"{os.cpu_count()} cores ({_processor()}), Python {platform.python_version()}, shared by generator, API and mongod",
        "load": f"load average before the run {busy:.1f}" + (f": {BUSY_WARNING}" if busy > QUIET_LOAD else ""),
    }


@contextmanager
def _work_dir(parent: Path | None) -> Generator[Path]:
    """A directory that is gone afterwards, whatever happens."""
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
