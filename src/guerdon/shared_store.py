"""Client of a Valkey or Redis server: counters and copies that processes share. Nothing in it is the truth."""

import hashlib
from collections.abc import Sequence
from typing import Any, cast

from valkey.asyncio import Valkey
from valkey.exceptions import NoScriptError

from guerdon.errors import StartupRefused

_TLS = ("valkeys://", "rediss://")
_PLAIN = ("valkey://", "redis://", "unix://")


class Script:
    """A Lua script, which the server runs as one atomic step."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha1 = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        """Id of the script in the server."""


def open_client(url: str, *, setting: str, timeout_seconds: float) -> Any:
    """Return a client; it connects with the first command. With TLS it checks the certificate and its host name.

    Raises:
        StartupRefused: `url` is not the URL of a server. The message names the setting and not the URL, which may hold a password.
    """
    if not url.startswith((*_TLS, *_PLAIN)):
        raise StartupRefused(f"{setting} must be a valkey://, valkeys://, redis:// or rediss:// address")
    checks = {"ssl_check_hostname": True} if url.startswith(_TLS) else {}
    try:
        return cast(Any, Valkey).from_url(url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds, **checks)
    except ValueError:
        raise StartupRefused(
            f"{setting} is not a valid address: write valkey://user:password@host:port/db, with user and password percent-encoded"
        ) from None


async def run_script(client: Any, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
    """Run a script once for each (keys, arguments) in one exchange, and return the result or the error of each."""
    rows = await _evaluate(client, script, calls)
    if any(isinstance(row, NoScriptError) for row in rows):
        # A server that has just started does not have the script, so it has run none of these.
        await client.script_load(script.text)
        rows = await _evaluate(client, script, calls)
    return rows


async def _evaluate(client: Any, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for keys, arguments in calls:
        pipeline.evalsha(script.sha1, len(keys), *keys, *arguments)
    return cast(list[Any], await pipeline.execute(raise_on_error=False))
