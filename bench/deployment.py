"""One mongod with several databases, each served by its own `guerdon serve`."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pymongo import MongoClient

from bench.processes import Processes, Target, descendants, free_port, run_guerdon
from guerdon import embedded


class Deployment:
    """Context manager that stops its processes. `cache_mib` is the cache of mongod; `guerdon up` uses 256."""

    def __init__(self, work_dir: Path, cache_mib: int) -> None:
        self.processes = Processes(work_dir)
        self._data_dir = work_dir / "data"
        self._keys_files = {name: work_dir / f"{name}_keys.json" for name in ("token", "master")}
        self._cache_mib = cache_mib

    def __enter__(self) -> Self:
        self._lock = embedded.DataDirLock.acquire(self._data_dir, command="bench")
        try:
            self._mongo = embedded.start(self._data_dir, cache_mib=self._cache_mib)
        except BaseException:
            self._lock.release()
            raise
        self.url = self._mongo.url
        self.mongod_pids = [self._mongo.pid]
        self.client: MongoClient[dict[str, Any]] = MongoClient(self.url)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.processes.__exit__(kind, error, trace)
        finally:
            self.client.close()
            # The data is not needed again, so do not wait until it is on disk.
            self._mongo.kill()
            self._lock.release()

    def guerdon(self, database: str, *arguments: str) -> str:
        """Run a command of the product on one of the databases and return its standard output."""
        return run_guerdon(*arguments, GUERDON_DATA_DIR=str(self._data_dir), **self._settings(database))

    def serve(self, database: str, scopes: str, *, name: str | None = None, **extra: str) -> Target:
        """Start the product on one of the databases, in one process. `extra` are further settings of a target with its own name."""
        name = name or database
        for kind, file in self._keys_files.items():
            if not file.exists():
                file.write_text(run_guerdon("keys", f"new-{kind}-keys"), encoding="ascii")
        token = self.guerdon(database, "keys", "create", "--name", "bench", "--scopes", scopes).strip().splitlines()[-1]
        port = free_port()
        settings = self._settings(database)
        process = self.processes.spawn(name, "-m", "guerdon", "serve", "--port", str(port), **settings, **extra)
        self.processes.await_http(process, name, f"http://127.0.0.1:{port}/health/ready")
        return Target(name, port, token, descendants(process.pid), books=database)

    def _settings(self, database: str) -> dict[str, str]:
        keys = {f"GUERDON_{name.upper()}_KEYS_FILE": str(file) for name, file in self._keys_files.items() if file.exists()}
        return {"GUERDON_MONGODB_URL": self.url, "GUERDON_MONGODB_DATABASE": database, **keys}
