"""A process on a machine with a wrong clock decides by the time of the database. Everything that uses the time is covered.

Other places that used the time of the machine: log-ins and access tokens, holds, campaigns, vouchers, rate limits, the sweeper and the
reviews of tiers, `guerdon keys list`, and `guerdon checkpoint`.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from guerdon.clock import DatabaseClock, SystemClock, to_datetime
from guerdon.config import Settings, load
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ledger.store import ENTRIES
from guerdon.logs import make_logger
from guerdon.server import follow_clocks
from guerdon.verification.service import verify
from guerdon.wiring.jobs import jobs_of
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, Log, ManualClock, WrongClock, client_of, problem
from tests.commands import guerdon_here
from tests.factories import Factory
from tests.test_startup import free_port

SECONDS = 60.0
DAY_MS = 86_400_000
WRONG = pytest.mark.parametrize("ahead_ms", [DAY_MS, -DAY_MS], ids=["a day ahead", "a day behind"])


@asynccontextmanager
async def process(settings: Settings, machine: WrongClock) -> AsyncIterator[tuple[Services, Caller]]:
    """Another process of the deployment, on a machine with this clock."""
    clock = DatabaseClock(machine)
    async with open_services(settings, clock) as services:
        app = build_app(services, settings, make_logger(clock, "info", Log()))
        async with client_of(app) as client:
            yield services, Caller(client)


async def jobs_run(services: Services, settings: Settings) -> None:
    for job in jobs_of(services, settings, make_logger(services.clock, "info", Log())):
        if job.name in ("sweep", "tiers"):
            await job.run()


@WRONG
async def test_process_with_a_wrong_clock_decides_by_the_time_of_the_database(
    service: Caller, factory: Factory, settings: Settings, database: Database, ahead_ms: int
) -> None:
    wallet = await factory.wallet(7)
    dated = {"amount": 500, "expires_at": soon(hours=12)}
    assert (await service.post(f"/v1/wallets/{wallet}/credit", dated)).status_code == 201
    hold = await service.post("/v1/holds", {"wallet": wallet, "amount": 7, "expires_in_seconds": 900})
    assert hold.status_code == 201
    gone = {"amount": 30, "expires_at": soon(seconds=0.5)}
    assert (await service.post(f"/v1/wallets/{wallet}/credit", gone)).status_code == 201
    machine = WrongClock(SystemClock(), ahead_ms=ahead_ms)
    async with process(settings, machine) as (wrong, anonymous):
        caller = anonymous.with_token(service.token or "")
        await available(caller, wallet, 500)
        await jobs_run(wrong, settings)
        before_ms = SystemClock().now_ms()
        debit = await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})
        assert (debit.status_code, debit.json()["available"]) == (201, 499), debit.text
        assert (await caller.post(f"/v1/holds/{hold.json()['id']}/capture", {})).status_code == 201
        entries = [row async for row in database.raw[ENTRIES].find({"owner": wallet.partition(":")[0], "seq": {"$exists": False}})]
        assert entries
        assert all(row["at"] < SystemClock().now_ms() + 1_000 for row in entries)
        assert max(row["at"] for row in entries) > before_ms - 1_000
    report = await verify(database)
    assert (report.violations, report.ahead) == (0, 0)
    assert await factory.balance(wallet) == 499
    await factory.assert_books_balance()


async def available(caller: Caller, wallet: str, amount: int) -> None:
    """Wait until this amount of the wallet can be spent."""
    deadline = time.monotonic() + SECONDS
    while (view := (await caller.get(f"/v1/wallets/{wallet}")).json())["available"] != amount:
        assert time.monotonic() < deadline, str(view)


def soon(*, hours: float = 0, seconds: float = 0) -> str:
    return to_datetime(SystemClock().now_ms() + int(hours * 3_600_000 + seconds * 1000)).isoformat()


@WRONG
async def test_tokens_of_a_process_with_a_wrong_clock_are_valid_elsewhere(
    anonymous: Caller, settings: Settings, ahead_ms: int
) -> None:
    body = {"email": "ada@example.com", "password": "correct horse battery"}
    assert (await anonymous.post("/v1/auth/register", body, key=None)).status_code == 201
    here = (await anonymous.post("/v1/auth/login", body, key=None)).json()["access_token"]
    async with process(settings, WrongClock(SystemClock(), ahead_ms=ahead_ms)) as (_, there):
        assert (await there.with_token(here).get("/v1/me")).status_code == 200
        token = (await there.post("/v1/auth/login", body, key=None)).json()["access_token"]
        assert (await anonymous.with_token(token).get("/v1/me")).status_code == 200


@WRONG
async def test_difference_makes_the_process_not_ready_while_it_lasts(database: Database, settings: Settings, ahead_ms: int) -> None:
    machine, log = WrongClock(SystemClock()), Log()
    clock = DatabaseClock(machine)
    async with (
        open_services(settings, clock) as services,
        client_of(build_app(services, settings, make_logger(clock, "info", log))) as client,
    ):
        caller = Caller(client, await services.access.create_key("tests", ["*"]))
        assert services.clock_sync is not None
        logger = make_logger(clock, "info", log)
        await services.clock_sync.follow(logger)
        assert (await caller.get("/health/ready")).status_code == 200
        assert await skew_metrics(caller) == (pytest.approx(0, abs=0.5), 0)

        machine.ahead_ms = ahead_ms  # From now on, before the next measurement.
        refused = problem(await caller.get("/health/ready"), 503, "clock-skewed")
        assert refused["skew_ms"] == pytest.approx(ahead_ms, abs=500)
        assert ("ahead of" if ahead_ms > 0 else "behind") in refused["detail"]
        assert (await caller.get("/health/live")).status_code == 200
        for _ in range(3):
            await services.clock_sync.follow(logger)
        skew, count = await skew_metrics(caller)
        assert skew == pytest.approx(ahead_ms / 1000, abs=0.5)
        assert count == 4
        assert services.clock.now_ms() == pytest.approx(SystemClock().now_ms(), abs=1_000)

        machine.ahead_ms = 1_000
        assert (await caller.get("/health/ready")).status_code == 200
        await services.clock_sync.follow(logger)
        await services.clock_sync.follow(logger)
    assert [line["event"] for line in log.lines if line["event"].startswith("clock")] == ["clock_skew", "clock_skew_ended"]
    assert [line["skew_ms"] for line in log.lines if line["event"] == "clock_skew"] == [pytest.approx(ahead_ms, abs=500)]


async def skew_metrics(caller: Caller) -> tuple[float, float]:
    lines = dict(line.rsplit(" ", 1) for line in (await caller.get("/metrics")).text.splitlines() if not line.startswith("#"))
    return float(lines["guerdon_clock_skew_seconds"]), float(lines["guerdon_clock_skewed_measurements_total"])


async def test_serving_process_measures_regularly(services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerdon.server.MEASURE_SECONDS", 0.01)
    machine, log = WrongClock(SystemClock()), Log()
    clock = DatabaseClock(machine)
    async with open_services(settings, clock) as here, follow_clocks(here, make_logger(clock, "info", log)):
        assert here.clock_sync is not None
        machine.ahead_ms = DAY_MS
        while here.clock_sync.skewed_measurements < 3:
            await services.database.ping()


async def test_jobs_that_follow_the_time_wait_while_the_clocks_differ(
    service: Caller, factory: Factory, settings: Settings
) -> None:
    wallet = await factory.wallet()
    assert (await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 30, "expires_at": soon(seconds=0.3)})).status_code == 201
    await available(service, wallet, 0)
    machine = WrongClock(SystemClock(), ahead_ms=DAY_MS)
    async with process(settings, machine) as (wrong, _):
        sweeper = next(job for job in jobs_of(wrong, settings, make_logger(wrong.clock, "info", Log())) if job.name == "sweep")
        assert await sweeper.run() == 0
        machine.ahead_ms = 0
        assert await sweeper.run() == 1
    await factory.assert_books_balance()


async def test_simulated_clock_adds_to_the_time_of_the_database(service: Caller, settings: Settings) -> None:
    assert (await service.post("/v1/test/clock/advance", {"seconds": 3_600}, key=None)).status_code == 200
    async with process(settings, WrongClock(SystemClock(), ahead_ms=DAY_MS)) as (wrong, _):
        assert wrong.clock.now_ms() == pytest.approx(SystemClock().now_ms() + 3_600_000, abs=1_000)


async def test_verify_names_entries_that_are_dated_after_the_time_of_the_database(
    service: Caller, factory: Factory, services: Services, clock: ManualClock
) -> None:
    wallet = await factory.wallet(5)
    assert (await verify(services.database)).ahead == 0
    clock.advance(days=1)
    assert (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 2})).status_code == 201
    report = await verify(services.database)
    assert (report.violations, report.ahead, report.first_ahead) == (0, 1, f"{wallet}#{2:012d}")
    run = await guerdon_here("verify", GUERDON_MONGODB_URL=url_of(services), GUERDON_MONGODB_DATABASE=services.database.raw.name)
    assert run.status == 0
    assert f"1 entries are dated after the time of the database, first {wallet}#{2:012d}" in run.out
    # A simulated clock explains such entries.
    assert (await service.post("/v1/test/clock/advance", {"seconds": 90_000}, key=None)).status_code == 200
    assert (await verify(services.database)).ahead == 0


def url_of(services: Services) -> str:
    [(host, port)] = services.database.client.nodes
    return f"mongodb://{host}:{port}/?replicaSet=guerdon"


@pytest.mark.parametrize("value", ["99", "60001", "abc"])
def test_unreasonable_limit_is_refused(value: str) -> None:
    with pytest.raises(StartupRefused, match="GUERDON_CLOCK_SKEW_MAX_MS"):
        load({"GUERDON_CLOCK_SKEW_MAX_MS": value})


SHIFTED = """
import time
_time, _time_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: _time() + 86_400, lambda: _time_ns() + 86_400_000_000_000
"""
"""Stands in for `faketime` where that is not installed: every Python process that finds it on its path is a day ahead."""


@contextmanager
def serving_a_day_ahead(folder: Path, settings: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Yield the URL and the log of `guerdon serve` in a process of its own whose clock is a day ahead."""
    port, log = free_port(), folder / "serve.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUERDON_")}
    prefix: list[str] = []
    if faketime := shutil.which("faketime"):
        prefix = [faketime, "-f", "+1d"]
    else:
        (folder / "sitecustomize.py").write_text(SHIFTED)
        kept["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [kept.get("PYTHONPATH")])])
    with log.open("w") as file:
        command = [*prefix, sys.executable, "-m", "guerdon", "serve", "--port", str(port)]
        server = subprocess.Popen(command, env={**kept, **settings}, stdout=file, stderr=file)
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        server.terminate()
        server.wait(30)


def test_real_process_with_a_wrong_clock(
    tmp_path: Path, mongodb_url: str, token_keys: str, master_keys: str, usual_settings: Settings
) -> None:
    database = {"GUERDON_MONGODB_URL": mongodb_url, "GUERDON_MONGODB_DATABASE": "guerdon_clock"}
    settings = {**database, "GUERDON_TOKEN_KEYS": token_keys, "GUERDON_MASTER_KEYS": master_keys}
    with serving_a_day_ahead(tmp_path, settings) as (url, log), httpx.Client(base_url=url) as client:
        deadline = time.monotonic() + 60
        while (answer := ask(client)) is None:
            assert time.monotonic() < deadline, log.read_text()
        assert (answer.status_code, answer.json()["code"]) == (503, "clock-skewed"), log.read_text()
        assert answer.json()["skew_ms"] == pytest.approx(DAY_MS, abs=1_000)
        body = {"email": "ada@example.com", "password": "correct horse battery"}
        registered = client.post("/v1/auth/register", json=body)
        assert registered.status_code == 201, registered.text
        created_at = registered.json()["created_at"]
        assert created_at < to_datetime(SystemClock().now_ms() + 60_000).isoformat()
        assert '"event":"clock_skew"' in log.read_text()


def ask(client: httpx.Client) -> Any:
    try:
        return client.get("/health/ready")
    except httpx.TransportError:
        time.sleep(0.05)
        return None
