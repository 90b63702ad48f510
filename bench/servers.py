"""Servers of `python -m bench`: the product with its defaults, four processes of it, and the baseline."""

import secrets
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import baseline
from bench.processes import Processes, Target, descendants, free_port, name_of, run_guerdon
from guerdon import embedded

WORKERS = 4


class Servers:
    """Context manager of the product, the baseline and their mongod; it stops all processes."""

    def __init__(self, work_dir: Path) -> None:
        self.processes = Processes(work_dir)
        self.data_dir = work_dir / "data"
        self.ready_seconds = 0.0
        self._four: Target | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.processes)
            self._start()
            stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.processes.__exit__(kind, error, trace)

    def _start(self) -> None:
        started = time.monotonic()
        port = free_port()
        arguments = ("-m", "guerdon", "up", "--no-demo", "--port", str(port), "--data-dir", str(self.data_dir))
        up = self.processes.spawn("product", *arguments)
        self.processes.await_http(up, "product", f"http://127.0.0.1:{port}/health/ready")
        self.ready_seconds = time.monotonic() - started
        self.mongodb_url = str((embedded.holder(self.data_dir) or {})["mongodb_url"])
        created = self.guerdon("keys", "create", "--name", "bench", "--scopes", "wallets:write")
        family = descendants(up.pid)
        self.mongod_pids = [pid for pid in family if name_of(pid) == "mongod"]
        api = [pid for pid in family if pid not in self.mongod_pids]
        self.product = Target("product", port, created.strip().splitlines()[-1], api)

        port, token = free_port(), secrets.token_urlsafe(32)
        extra = {baseline.URL: self.mongodb_url, baseline.TOKEN: token}
        other = self.processes.spawn("baseline", "-m", "bench.baseline", "--port", str(port), **extra)
        self.processes.await_http(other, "baseline", f"http://127.0.0.1:{port}/noop")
        self.baseline = Target("baseline", port, token, descendants(other.pid))

    @property
    def four(self) -> Target:
        """Return four processes on the product's database, started at first use, so that they do not affect earlier rows."""
        if self._four is None:
            port = free_port()
            secrets = self.data_dir / "secrets"
            keys = {f"GUERDON_{name.upper()}_FILE": str(secrets / f"{name}.json") for name in ("token_keys", "master_keys")}
            extra = {"GUERDON_MONGODB_URL": self.mongodb_url, **keys}
            arguments = ("-m", "guerdon", "serve", "--port", str(port), "--workers", str(WORKERS))
            serve = self.processes.spawn("four processes", *arguments, **extra)
            self.processes.await_http(serve, "four processes", f"http://127.0.0.1:{port}/health/ready")
            # The first process that is ready responds; give the others time to start.
            time.sleep(2)
            self._four = Target("four processes", port, self.product.token, descendants(serve.pid), books="product")
        return self._four

    def guerdon(self, *arguments: str) -> str:
        """Run a command of the product on the run's data directory and return its standard output."""
        return run_guerdon(*arguments, "--data-dir", str(self.data_dir))
