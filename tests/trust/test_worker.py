"""The worker beside `guerdon up`: one, started again when it is killed, and gone when `up` is."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from guerdon.cli.main import UP_STOP_SECONDS
from tests.trust.deployment import Deployment
from tests.trust.figures import record
from tests.trust.groups import ALONE

SECONDS = 30.0
LOADING_SECONDS, GONE_SECONDS = 60.0, 2.0
"""A worker that is still loading asks only then whether it has a parent."""
pytestmark = [pytest.mark.trust, pytest.mark.timeout(300)]


async def until(condition: Callable[[], bool], seconds: float = SECONDS) -> float:
    """Return the seconds until the condition held."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"it did not happen within {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def workers_of(deployment: Deployment) -> list[int]:
    return deployment._children("guerdon\0worker\0")


def runs(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def is_ready(pid: int) -> bool:
    """Whether the process has its handler for SIGTERM, which a worker installs when it has loaded everything."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [caught] = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")]
    return bool(caught & 1 << (signal.SIGTERM - 1))


def facts_of(pid: int) -> tuple[bytes, bytes]:
    """Command line and environment."""
    return Path(f"/proc/{pid}/cmdline").read_bytes(), Path(f"/proc/{pid}/environ").read_bytes()


async def ready_worker(deployment: Deployment) -> int:
    """The pid of the one worker, once it is at work."""
    await until(lambda: [is_ready(pid) for pid in workers_of(deployment)] == [True])
    [pid] = workers_of(deployment)
    return pid


def family_of(deployment: Deployment) -> list[int]:
    return deployment._children("")


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path / "data")


@ALONE
async def test_exactly_one_worker_runs_and_none_is_orphaned(deployment: Deployment) -> None:
    try:
        await deployment.start()
        first = await ready_worker(deployment)
        assert first not in deployment._workers(), "it would be taken for an API process"
        command, settings = facts_of(first)
        assert b"\0GUERDON_MONGODB_URL=mongodb://127.0.0.1" in settings
        assert b"\0GUERDON_TOKEN_KEYS_FILE=" in settings
        assert b"\0GUERDON_TOKEN_KEYS=" not in settings, "the file may change"
        assert b"\0GUERDON_MASTER_KEYS=" in settings
        assert b"mongodb://" not in command

        os.kill(first, signal.SIGKILL)
        back = await until(lambda: bool(set(workers_of(deployment)) - {first}))
        # Killed with it in the middle of its loading, and then when it is at work.
        orphaned = await gone_with_up(deployment, LOADING_SECONDS)
        await deployment.start()
        await ready_worker(deployment)
        gone = await gone_with_up(deployment, GONE_SECONDS)

        await deployment.start()
        await ready_worker(deployment)
        family, began = family_of(deployment), time.monotonic()
        assert deployment.stop() == 0
        stopped = time.monotonic() - began
        assert not any(runs(pid) for pid in family)
        record("worker of up: back after a kill", f"{back:.1f} s", f"< {SECONDS:.0f} s")
        record("worker of up: gone after up was killed", f"{gone:.1f} s", f"< {GONE_SECONDS:.0f} s")
        record("worker of up: stopped after", f"{stopped:.1f} s", f"< {UP_STOP_SECONDS} s")
        assert stopped < UP_STOP_SECONDS, "it was killed, not asked"
        print(json.dumps({
            "check": "worker of up", "back_seconds": round(back, 1), "gone_while_loading_seconds": round(orphaned, 1),
            "gone_seconds": round(gone, 1), "stop_seconds": round(stopped, 1), "result": "ok",
        }))  # fmt: skip
    finally:
        deployment.kill()


async def gone_with_up(deployment: Deployment, within_seconds: float) -> float:
    """kill -9 `guerdon up`; return the seconds until its worker was gone."""
    [worker], family = workers_of(deployment), family_of(deployment)
    deployment.kill()
    seconds = await until(lambda: not runs(worker), within_seconds)
    await until(lambda: not any(runs(pid) for pid in family))
    return seconds


async def test_unresponsive_worker_is_killed(deployment: Deployment) -> None:
    """A stopped process does not hear SIGTERM."""
    try:
        await deployment.start()
        worker = await ready_worker(deployment)
        os.kill(worker, signal.SIGSTOP)
        began = time.monotonic()
        assert deployment.stop() == 0
        record("worker that ignores SIGTERM: gone after", f"{time.monotonic() - began:.1f} s")
        assert not runs(worker)
    finally:
        deployment.kill()
