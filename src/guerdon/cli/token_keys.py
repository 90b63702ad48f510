"""`guerdon keys rotate`, `revoke-signing`, `list-signing`: the keys that sign access tokens, changed by one write of their file.

These commands need no database, so that a leaked key can be revoked whatever else is down.
"""

import fcntl
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from guerdon.access.key_file import LOOK_SECONDS
from guerdon.access.signing_keys import SigningKey, revoked, rotated, state_of
from guerdon.access.token_keys import TokenKeys, decode_set, encode_set, new_signing_key
from guerdon.access.tokens import LEEWAY_SECONDS
from guerdon.cli.auditing import tell
from guerdon.cli.local import token_keys_path, write_private
from guerdon.clock import SystemClock, rfc3339
from guerdon.config import Settings, load
from guerdon.errors import StartupRefused, Validation
from guerdon.ids import IdSource

MARGIN_SECONDS = 295
"""Time to bring the file to the other hosts, beyond what caches and processes need."""

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Directory in which `guerdon up` keeps its keys [GUERDON_DATA_DIR].")
]
Kid = Annotated[str, typer.Argument(help="Id of the signing key, as `guerdon keys list-signing` shows it.")]
Wait = Annotated[
    int | None,
    typer.Option(min=1, max=30 * 86_400, help="Seconds until the new key signs; by default long enough for all caches and hosts."),
]


def rotate(wait_seconds: Wait = None, data_dir: DataDir = None) -> None:
    """Publish a new signing key now, sign with it after a wait, and retire the present key when its last token has expired. No restart is
    needed: the file of keys is written once, and the processes follow its times.
    """
    settings = load(data_dir=data_dir)
    least = settings.jwks_max_age_seconds + int(LOOK_SECONDS)
    wait = least + MARGIN_SECONDS if wait_seconds is None else wait_seconds
    if wait < least:
        raise Validation.at("--wait-seconds", f"others may keep the old set for {least} seconds; wait at least as long")
    now_ms, fresh = SystemClock().now_ms(), new_signing_key()
    overlap_ms = _overlap_ms(settings)
    keys = _change(_file_of(settings), lambda old: rotated(old, fresh, now_ms, wait_ms=wait * 1000, overlap_ms=overlap_ms))
    _tell("signing_key_rotated", fresh.kid)
    _print(keys, now_ms)


def revoke_signing(kid: Kid, data_dir: DataDir = None) -> None:
    """Revoke a signing key. Every process refuses its tokens within seconds. Sessions continue with new tokens."""
    settings = load(data_dir=data_dir)
    now_ms, fresh = SystemClock().now_ms(), new_signing_key()
    overlap_ms = _overlap_ms(settings)
    keys = _change(_file_of(settings), lambda old: revoked(old, kid, fresh, now_ms, overlap_ms=overlap_ms))
    _tell("signing_key_revoked", kid)
    _print(keys, now_ms)


def list_signing(data_dir: DataDir = None) -> None:
    """List the signing keys and their times, without private parts."""
    _print(_read(_file_of(load(data_dir=data_dir))), SystemClock().now_ms())


def _overlap_ms(settings: Settings) -> int:
    """So long after its last signature a key's tokens may still be shown."""
    return (settings.access_token_ttl_seconds + LEEWAY_SECONDS) * 1000


def _file_of(settings: Settings) -> Path:
    """
    Raises:
        StartupRefused: the keys stand in the environment, or there are none.
    """
    if settings.token_keys_file is not None:
        return settings.token_keys_file.resolve()
    if settings.token_keys is not None:
        raise StartupRefused("the token keys stand in GUERDON_TOKEN_KEYS; only those of GUERDON_TOKEN_KEYS_FILE can be changed")
    path = token_keys_path(settings.data_dir)
    if not path.exists():
        raise StartupRefused("set GUERDON_TOKEN_KEYS_FILE, or name the data directory of `guerdon up` with --data-dir")
    return path


def _read(path: Path) -> list[SigningKey]:
    try:
        return decode_set(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{path} cannot be read: {type(error).__name__}") from None


def _change(path: Path, change: Callable[[list[SigningKey]], list[SigningKey]]) -> list[SigningKey]:
    """Replace the file's set by what `change` makes of it, while nobody else does the same."""
    try:
        with _alone(path):
            text = encode_set(change(_read(path)))
            # What would be refused by the processes is not written.
            keys = TokenKeys(text).described()
            write_private(path, text + "\n")
    except OSError as error:
        raise StartupRefused(f"{path} cannot be written: {error.strerror or type(error).__name__}") from None
    return keys


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Hold the lock of the file, which is another file: this one is replaced by a rename."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _tell(name: str, kid: str) -> None:
    tell(name, "done", request_id=IdSource(SystemClock()).new("cmd"), subject={"kid": kid})


def _print(keys: Sequence[SigningKey], now_ms: int) -> None:
    for key in keys:
        start = "always" if key.signs_from is None else rfc3339(key.signs_from)
        end = "further notice" if key.verifies_until is None else rfc3339(key.verifies_until)
        typer.echo(f"{key.kid}  {state_of(key, keys, now_ms):9}  signs from {start}  verifies until {end}")
