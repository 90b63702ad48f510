"""`guerdon up` and `guerdon serve`: the HTTP server in its own worker processes, and the word `ready` when it answers."""

import json
import os
import resource
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels

from guerdon.config import Settings, environment_of
from guerdon.errors import StartupRefused
from guerdon.middlewares.kept_connections import IDLE_SECONDS

BACKPRESSURE = 16_384
"""Connections that one worker takes at most, whatever they do: Granian counts them, not requests. What comes on top waits in the system's queue."""
HEADER_READ_TIMEOUT_MS = IDLE_SECONDS * 1000
"""From the opening of a connection, or the end of an answer, to the end of the next request's head: slow heads and idle connections alike."""
HEAD_BYTES_MAX = 32 * 1024
"""What a connection may keep in memory before its request is understood; a head that is longer is answered 431."""
READY_SECONDS = 60.0
STOP_SECONDS = 15
POLL_SECONDS = 0.02


def require_free_port(host: str, port: int) -> None:
    """
    Raises:
        StartupRefused: somebody listens there already.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartupRefused(f"cannot listen on {host}:{port} ({error.strerror}); choose another port with --port") from None


def require_configured(settings: Settings) -> None:
    """
    Raises:
        StartupRefused: `guerdon serve` brings no database and no keys of its own.
    """
    if settings.mongodb_url is None:
        raise StartupRefused("set GUERDON_MONGODB_URL, or use `guerdon up`, which starts a database of its own")
    if settings.token_keys is None:
        raise StartupRefused("set GUERDON_TOKEN_KEYS_FILE: make one with `guerdon keys new-token-keys`")
    if settings.master_keys is None:
        raise StartupRefused("set GUERDON_MASTER_KEYS_FILE: make one with `guerdon keys new-master-keys`")


def serve(settings: Settings, *, host: str, port: int, workers: int, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal arrives. The workers read the settings from the environment, so those found here are put there."""
    found = environment_of(settings, ("mongodb_url", "token_keys", "token_keys_file", "master_keys"))
    for name in ("GUERDON_MONGODB_URL", "GUERDON_TOKEN_KEYS", "GUERDON_MASTER_KEYS"):
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    os.environ.update(found)
    _raise_file_limit()
    server = Granian(
        "guerdon.server:create_server",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        factory=True,
        # The gateway in front speaks HTTP/1.1 to us. Detecting HTTP/2 would let a connection that says nothing stay for ever.
        http=HTTPModes.http1,
        loop=Loops.uvloop,
        backlog=4096,
        backpressure=BACKPRESSURE,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_TIMEOUT_MS, max_buffer_size=HEAD_BYTES_MAX),
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
    )
    url = f"http://{host}:{port}"
    watcher = threading.Thread(target=_announce, args=(url, on_ready), daemon=True)
    watcher.start()
    server.serve()


def _raise_file_limit() -> None:
    """A connection is a file; the usual soft limit of 1024 is meant for programs that still use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _announce(url: str, on_ready: Callable[[str], None]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=2) as answer:
                if json.load(answer).get("status") == "ok":
                    on_ready(url)
                    return
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(POLL_SECONDS)
