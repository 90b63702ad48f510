"""`guerdon worker`: background jobs in a process of their own; and how `guerdon up` keeps one beside the API."""

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
from guerdon.cli.local import checkpoint_file, checkpoint_key, hold_to_profile, master_keys, own_token_keys
from guerdon.clock import SystemClock
from guerdon.config import Settings, environment_of, load
from guerdon.errors import StartupRefused
from guerdon.logs import adopt_libraries, make_logger
from guerdon.server import clock_followed
from guerdon.wiring.jobs import jobs_of
from guerdon.wiring.services import open_services
from guerdon.workers.service import Runner

RESTART_SECONDS_MIN, RESTART_SECONDS_MAX = 1.0, 30.0
STEADY_SECONDS = 60.0
"""A worker that has lived so long is started again without delay when it dies."""
STOP_SECONDS = 12.0
"""A little more than a worker needs at most to end its jobs."""

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Data directory of a running `guerdon up` [GUERDON_DATA_DIR].")]
ParentPid = Annotated[int | None, typer.Option("--parent-pid", hidden=True, help="Stop when this process ends.")]


def worker(data_dir: DataDir = None, parent_pid: ParentPid = None) -> None:
    """Run the background jobs until a signal arrives. Several workers share the jobs. `guerdon up` starts a worker of its own."""
    if parent_pid is not None:
        # As the API's workers do: whoever is left over would go on with a database that is ending too.
        embedded.die_with_parent(parent_pid, by=signal.SIGKILL)
        # Ctrl-C goes to the whole terminal; `guerdon up` asks us to stop when the API has.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = load(data_dir=data_dir)
    hold_to_profile(settings)
    asyncio.run(_work(_with_database(settings), heed_interrupts=parent_pid is None))


def _with_database(settings: Settings) -> Settings:
    """
    Raises:
        StartupRefused: no database is named, and none is running.
    """
    if settings.mongodb_url is not None:
        # A worker issues no tokens, so outside of production it does not need the deployment's keys.
        keys = settings.token_keys or TokenKeys.generate()
        return load(data_dir=settings.data_dir, token_keys=keys)
    held = embedded.holder(settings.data_dir) or {}
    if not held.get("mongodb_url"):
        raise StartupRefused("set GUERDON_MONGODB_URL, or name the data directory of a running `guerdon up` with --data-dir")
    return load(
        data_dir=settings.data_dir,
        mongodb_url=held["mongodb_url"],
        **own_token_keys(settings),
        master_keys=master_keys(settings),
        checkpoint_key=checkpoint_key(settings, make=True),
        checkpoint_file=checkpoint_file(settings),
    )


async def _work(settings: Settings, *, heed_interrupts: bool) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT) if heed_interrupts else (signal.SIGTERM,):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    clock = SystemClock()
    log = make_logger(clock, settings.log_level, sys.stderr)
    adopt_libraries(log)
    if settings.checkpoint_key is None:
        log.warning("no_checkpoints", detail="GUERDON_CHECKPOINT_KEY is not set: the books are not signed")
    async with open_services(settings, clock) as services:
        runner = Runner(services.database, services.ids, log, jobs_of(services, settings, log))
        async with clock_followed(services, log):
            typer.echo("ready worker")
            await runner.run(stopping)


@contextmanager
def worker_beside(settings: Settings) -> Generator[Callable[[], None]]:
    """Yield what starts the worker process; at the end stop it."""
    companion = _Companion(settings)
    try:
        yield companion.start
    finally:
        companion.stop()


class _Companion:
    """One worker process: started again when it dies, stopped when asked, and gone when this process is."""

    def __init__(self, settings: Settings) -> None:
        self._environment = _environment(settings)
        self._log = make_logger(SystemClock(), settings.log_level, sys.stderr)
        self._stopping = threading.Event()
        self._spawning = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        # A child dies with the thread that started it, so this one goes on until there is no child.
        self._thread = threading.Thread(target=self._supervise, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._spawning:
            self._stopping.set()
        if self._child is not None:
            self._child.terminate()
            self._thread.join(STOP_SECONDS)
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
        """Start a worker and return its exit status, negative for a signal."""
        with self._spawning:
            if self._stopping.is_set():
                return 0
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "guerdon", "worker", "--parent-pid", str(os.getpid())],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                # It logs to standard error, which it shares with us; that it is ready is nothing to our reader.
                stdout=subprocess.DEVNULL,
                # Nothing of ours is inheritable, and so Python uses posix_spawn(). Its other way needs a pipe for a moment, and
                # an API process that is forked in that moment would hold the pipe open, and us here, as long as it lives.
                close_fds=False,
            )
        return self._child.wait()


def _environment(settings: Settings) -> dict[str, str]:
    """This process's environment with these very settings, however they were found. Secrets stand in no command line."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUERDON_")}
    return kept | environment_of(settings, settings.model_fields_set)
