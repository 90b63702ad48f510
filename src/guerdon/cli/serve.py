"""HTTP server of `guerdon up` and `guerdon serve`, in its own processes."""

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
"""Maximum number of connections of one API process. Granian counts connections, not requests; more connections wait in the queue of the system."""
HEADER_READ_TIMEOUT_MS = IDLE_SECONDS * 1000
"""Maximum time from the opening of a connection, or the end of a response, to the end of the next request head. It ends slow heads and idle
connections."""
HEAD_BYTES_MAX = 32 * 1024
"""Maximum size of a request head; a longer head is answered with 431."""
READY_SECONDS = 60.0
STOP_SECONDS = 15
POLL_SECONDS = 0.02


def require_free_port(host: str, port: int) -> None:
    """
    Raises:
        StartupRefused: another process listens on this port.
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
        StartupRefused: the database or keys are not configured.
    """
    if settings.mongodb_url is None:
        raise StartupRefused("set GUERDON_MONGODB_URL, or use `guerdon up`, which starts its own database")
    if settings.token_keys is None:
        raise StartupRefused("set GUERDON_TOKEN_KEYS_FILE; create the file with `guerdon keys new-token-keys`")
    if settings.master_keys is None:
        raise StartupRefused("set GUERDON_MASTER_KEYS_FILE; create the file with `guerdon keys new-master-keys`")


def serve(
    settings: Settings, *, host: str, port: int, workers: int, on_ready: Callable[[str], None], stop_seconds: int = STOP_SECONDS
) -> None:
    """Serve until a signal arrives, and call `on_ready` with the URL once the API is ready.

    API processes that do not stop within `stop_seconds` of it are killed. They read their settings from the environment, so the settings are written there.
    """
    environment = environment_of(settings, ("mongodb_url", "token_keys", "token_keys_file", "master_keys"))
    for name in ("GUERDON_MONGODB_URL", "GUERDON_TOKEN_KEYS", "GUERDON_MASTER_KEYS"):
        os.environ.pop(name, None)
        os.environ.pop(f"{name}_FILE", None)
    os.environ.update(environment)
    _raise_file_limit()
    server = Granian(
        "guerdon.server:create_server",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        factory=True,
        # Gateways use HTTP/1.1. With the detection of HTTP/2, a connection that sends nothing would stay open permanently.
        http=HTTPModes.http1,
        loop=Loops.uvloop,
        backlog=4096,
        backpressure=BACKPRESSURE,
        websockets=False,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_READ_TIMEOUT_MS, max_buffer_size=HEAD_BYTES_MAX),
        log_level=LogLevels.warning,
        respawn_failed_workers=True,
        workers_kill_timeout=stop_seconds,
    )
    url = f"http://{host}:{port}"
    watcher = threading.Thread(target=_wait_until_ready, args=(url, on_ready), daemon=True)
    watcher.start()
    server.serve()


def _raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit: each connection is a file, and the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _wait_until_ready(url: str, on_ready: Callable[[str], None]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/health/ready", timeout=2) as response:
                if json.load(response).get("status") == "ok":
                    on_ready(url)
                    return
        except (urllib.error.URLError, OSError, ValueError):
            time.sleep(POLL_SECONDS)
