"""`guerdon worker`: run the background jobs in a separate process; the worker process of `guerdon up`."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from guerdon import embedded
from guerdon.access.token_keys import TokenKeys
from guerdon.cli.database import check_profile
from guerdon.cli.key_files import checkpoint_file, checkpoint_key, master_keys, own_token_keys
from guerdon.clock import DatabaseClock, SystemClock
from guerdon.config import Settings, environment_of, load
from guerdon.errors import StartupRefused
from guerdon.logs import adopt_libraries, make_logger
from guerdon.server import follow_clocks
from guerdon.wiring.jobs import POOLS_WITHOUT_JOBS, Pool, projector_of, report_runner_of, runner_of
from guerdon.wiring.services import open_services

RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 1.0, 30.0
STEADY_SECONDS = 60.0
"""A worker that has run for this long resets the delay before the next restart."""

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Data directory of a running `guerdon up` [GUERDON_DATA_DIR].")]
PoolOption = Annotated[
    Pool,
    typer.Option(
        "--pool",
        help="Work of this process: jobs of the ledger and of rewards, views for reports and exports, webhooks, imports, or all of it.",
    ),
]
ParentPid = Annotated[int | None, typer.Option("--parent-pid", hidden=True, help="Stop when this process ends.")]


def worker(pool: PoolOption = Pool.ALL, data_dir: DataDir = None, parent_pid: ParentPid = None) -> None:
    """Run background work until a signal arrives. Several workers share it. `guerdon up` starts a worker of its own."""
    if parent_pid is not None:
        # As for API processes: a worker that outlives its parent would use a database that is being stopped.
        embedded.die_with_parent(parent_pid, by=signal.SIGKILL)
        # Ctrl-C is sent to all processes of the terminal; `guerdon up` stops the worker after the API.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = load(data_dir=data_dir)
    check_profile(settings)
    asyncio.run(_run_pool(_with_database(settings), pool, handle_interrupts=parent_pid is None))


def _with_database(settings: Settings) -> Settings:
    """
    Raises:
        StartupRefused: no database is configured, and no `guerdon up` is running.
    """
    if settings.mongodb_url is not None:
        # A worker issues no tokens, so outside of production it does not need the keys of the deployment.
        keys = settings.token_keys or TokenKeys.generate()
        return load(data_dir=settings.data_dir, token_keys=keys)
    held = embedded.holder(settings.data_dir) or {}
    if not held.get("mongodb_url"):
        raise StartupRefused(
            f"no `guerdon up` is running in {settings.data_dir.absolute()}: set GUERDON_MONGODB_URL, or pass the data directory of a running "
            "`guerdon up` with --data-dir"
        )
    return load(
        data_dir=settings.data_dir,
        mongodb_url=held["mongodb_url"],
        **own_token_keys(settings),
        master_keys=master_keys(settings),
        checkpoint_key=checkpoint_key(settings, make=True),
        checkpoint_file=checkpoint_file(settings),
    )


async def _run_pool(settings: Settings, pool: Pool, *, handle_interrupts: bool) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT) if handle_interrupts else (signal.SIGTERM,):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    clock = DatabaseClock(SystemClock())
    log = make_logger(clock, settings.log_level, sys.stderr)
    adopt_libraries(log)
    if pool in POOLS_WITHOUT_JOBS:
        log.warning("no_work", pool=pool, detail="this pool has no work in this version; the process waits")
    async with open_services(settings, clock) as services, follow_clocks(services, log), asyncio.TaskGroup() as group:
        if pool in {Pool.LEDGER, Pool.ALL}:
            if settings.checkpoint_key is None:
                log.warning("no_checkpoints", detail="GUERDON_CHECKPOINT_KEY is not set: no checkpoints of the ledger are signed")
            group.create_task(runner_of(services, settings, log).run(stopping))
        if pool in {Pool.VIEWS, Pool.ALL}:
            group.create_task(projector_of(services, log).run(stopping))
            group.create_task(report_runner_of(services, log).run(stopping))
        typer.echo("ready worker")
        await stopping.wait()


@contextmanager
def worker_beside(settings: Settings, *, stop_seconds: float) -> Generator[Callable[[], None]]:
    """Yield a function that starts a worker process; stop the process at the end, and kill it after `stop_seconds`."""
    supervisor = _WorkerSupervisor(settings)
    try:
        yield supervisor.start
    finally:
        supervisor.stop(stop_seconds)


class _WorkerSupervisor:
    """Supervisor of one worker process. It restarts the process when it dies, and the kernel ends the process together with this one."""

    def __init__(self, settings: Settings) -> None:
        self._environment = _environment(settings)
        self._log = make_logger(SystemClock(), settings.log_level, sys.stderr)
        self._stopping = threading.Event()
        self._spawning = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        # The kernel ends a child together with the thread that started it, so this thread runs until the child has ended.
        self._thread = threading.Thread(target=self._supervise, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float) -> None:
        with self._spawning:
            self._stopping.set()
        if self._child is not None:
            self._child.terminate()
            self._thread.join(seconds)
            self._child.kill()
            self._child.wait()

    def _supervise(self) -> None:
        pause_seconds = RESTART_SECONDS_MIN
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                status: int | str = self._run()
            except OSError as error:
                status = f"not started: {error.strerror}"
            if time.monotonic() - began > STEADY_SECONDS:
                pause_seconds = RESTART_SECONDS_MIN
            if not self._stopping.is_set():
                self._log.error("worker_ended", status=status, restart_seconds=pause_seconds)
            self._stopping.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RESTART_SECONDS_MAX)

    def _run(self) -> int:
        """Start a worker, wait for its end and return its exit status, negative for a signal."""
        with self._spawning:
            if self._stopping.is_set():
                return 0
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "guerdon", "worker", "--parent-pid", str(os.getpid())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                # The worker logs to standard error, which it shares with this process. Its "ready" line on standard output is not shown.
                stdout=subprocess.DEVNULL,
                # No descriptor of this process is inheritable, so all can stay open, and Python uses posix_spawn(). Otherwise Python opens
                # a pipe: an API process that is forked at that moment would keep the pipe open and block this thread until it ends.
                close_fds=False,
            )
        return self._child.wait()


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment of this process with `settings` in it. Secrets are passed in the environment, not on the command line."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GUERDON_")}
    return inherited | environment_of(settings, settings.model_fields_set)
