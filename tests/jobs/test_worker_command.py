"""`guerdon worker` as an operator runs it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from guerdon.database import Database
from tests.commands import guerdon_here
from tests.conftest import DATABASE
from tests.invariants.retail import environment, guerdon
from tests.views.projecting import until_true

SECONDS = 150.0


def is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


@asynccontextmanager
async def ready_worker(url: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guerdon", "worker", *arguments,
        env=environment(GUERDON_MONGODB_URL=url, GUERDON_MONGODB_DATABASE=DATABASE),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert worker.stdout is not None
        assert await asyncio.wait_for(worker.stdout.readline(), SECONDS) == b"ready worker\n"
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_worker_reports_ready_and_stops_cleanly(mongodb_url: str, number: signal.Signals) -> None:
    async with ready_worker(mongodb_url) as worker:
        worker.send_signal(number)
        out, err = await asyncio.wait_for(worker.communicate(), SECONDS)
        assert (worker.returncode, out) == (0, b"")
        lines = [json.loads(line) for line in err.splitlines()]
        assert lines[0]["event"] == "no_checkpoints"
        assert "error" not in {line["level"] for line in lines}


@pytest.mark.parametrize(
    ("pool", "begun"), [("ledger", {"lease"}), ("views", {"view"}), ("all", {"lease", "view"}), ("imports", set())]
)
async def test_worker_does_the_work_of_its_pool(database: Database, mongodb_url: str, pool: str, begun: set[str]) -> None:
    async with ready_worker(mongodb_url, "--pool", pool) as worker:

        async def found() -> set[str]:
            jobs = await database.raw["leases"].find_one({"_id": "sweep"})
            views = await database.raw["view_generations"].find_one({"generations.state": "serving"})
            return {name for name, row in (("lease", jobs), ("view", views)) if row is not None}

        await until_true(lambda: _equals(found, begun))
        worker.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(worker.communicate(), SECONDS)
        assert worker.returncode == 0
        assert await found() == begun
    events = {json.loads(line)["event"] for line in err.splitlines()}
    assert ("no_work" in events) == (pool == "imports")
    assert ("no_checkpoints" in events) == (pool in {"ledger", "all"})


async def _equals(found: Callable[[], Awaitable[set[str]]], wanted: set[str]) -> bool:
    return await found() == wanted


async def test_unknown_pool_is_refused(mongodb_url: str) -> None:
    refused = await guerdon_here("worker", "--pool", "kitchen", GUERDON_MONGODB_URL=mongodb_url)
    assert (refused.status, "kitchen" in refused.err) == (2, True)


async def test_worker_of_up_ignores_ctrl_c_until_it_is_terminated(mongodb_url: str) -> None:
    """The terminal sends SIGINT to everybody; `guerdon up` ends the API first, then the worker, then the database."""
    async with ready_worker(mongodb_url, "--parent-pid", str(os.getpid())) as worker:
        worker.send_signal(signal.SIGINT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.wait(), 1)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), SECONDS) == 0


async def test_worker_without_a_database_is_refused_with_an_explanation(tmp_path: Path) -> None:
    refused = await guerdon_here("worker", "--data-dir", str(tmp_path))
    assert (refused.status, refused.out) == (2, "")
    assert "GUERDON_MONGODB_URL" in refused.err
    assert "--data-dir" in refused.err
    assert is_empty(tmp_path)


async def test_worker_in_production_requires_the_settings_of_the_api(mongodb_url: str) -> None:
    refused = await guerdon_here("worker", GUERDON_PROFILE="production", GUERDON_MONGODB_URL=mongodb_url)
    assert (refused.status, "GUERDON_TOKEN_KEYS_FILE" in refused.err) == (2, True)


async def test_worker_without_its_parent_does_not_start(mongodb_url: str) -> None:
    """`guerdon up` may be killed while its worker is still loading."""
    orphan = await guerdon("worker", "--parent-pid", str(os.getpid() + 1), seconds=SECONDS, GUERDON_MONGODB_URL=mongodb_url)
    assert (orphan.status, orphan.out) == (1, "")
