"""`guerdon keys rotate`, `revoke-signing` and `list-signing`: manage the keys that sign access tokens.

The commands change one file and need no database, so a leaked key can be revoked during an outage.
"""

import fcntl
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from guerdon.access.key_file import CHECK_SECONDS
from guerdon.access.signing_keys import SigningKey, revoked, rotated, state_of
from guerdon.access.token_keys import TokenKeys, decode_set, encode_set, new_signing_key
from guerdon.access.tokens import LEEWAY_SECONDS
from guerdon.cli.audit import log_command_event
from guerdon.cli.key_files import token_keys_path, write_private
from guerdon.clock import SystemClock, rfc3339
from guerdon.config import Settings, load
from guerdon.errors import StartupRefused, Validation
from guerdon.ids import IdSource

MARGIN_SECONDS = 295
"""Time to copy the file to the other hosts, added to the time that caches and processes need."""

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Directory in which `guerdon up` keeps its keys [GUERDON_DATA_DIR].")
]
Kid = Annotated[str, typer.Argument(help="Id of the signing key, as `guerdon keys list-signing` shows it.")]
Wait = Annotated[
    int | None,
    typer.Option(min=1, max=30 * 86_400, help="Seconds until the new key signs; by default long enough for all caches and hosts."),
]


def rotate(wait_seconds: Wait = None, data_dir: DataDir = None) -> None:
    """Publish a new signing key now, sign with it after a wait, and retire the current key when its last token has expired. No restart is
    needed: the file of keys is written once, and the processes follow its times.
    """
    settings = load(data_dir=data_dir)
    min_wait = settings.jwks_max_age_seconds + int(CHECK_SECONDS)
    wait = min_wait + MARGIN_SECONDS if wait_seconds is None else wait_seconds
    if wait < min_wait:
        raise Validation.at(
            "--wait-seconds", f"must be at least {min_wait} seconds: caches and processes may use the old keys for that time"
        )
    now_ms, new_key = SystemClock().now_ms(), new_signing_key()
    overlap_ms = _overlap_ms(settings)
    keys = _change(_key_file(settings), lambda old: rotated(old, new_key, now_ms, wait_ms=wait * 1000, overlap_ms=overlap_ms))
    _log_event("signing_key_rotated", new_key.kid)
    _print(keys, now_ms)


def revoke_signing(kid: Kid, data_dir: DataDir = None) -> None:
    """Revoke a signing key. Every process refuses its tokens within seconds. Sessions continue with new tokens."""
    settings = load(data_dir=data_dir)
    now_ms, new_key = SystemClock().now_ms(), new_signing_key()
    overlap_ms = _overlap_ms(settings)
    keys = _change(_key_file(settings), lambda old: revoked(old, kid, new_key, now_ms, overlap_ms=overlap_ms))
    _log_event("signing_key_revoked", kid)
    _print(keys, now_ms)


def list_signing(data_dir: DataDir = None) -> None:
    """List the signing keys and their times, without private parts."""
    _print(_read(_key_file(load(data_dir=data_dir))), SystemClock().now_ms())


def _overlap_ms(settings: Settings) -> int:
    """Return the time after the last signature of a key for which its tokens may still be valid."""
    return (settings.access_token_ttl_seconds + LEEWAY_SECONDS) * 1000


def _key_file(settings: Settings) -> Path:
    """
    Raises:
        StartupRefused: the keys are in the environment, or do not exist.
    """
    if settings.token_keys_file is not None:
        return settings.token_keys_file.resolve()
    if settings.token_keys is not None:
        raise StartupRefused(
            "the token keys are in GUERDON_TOKEN_KEYS, which a command cannot change; use GUERDON_TOKEN_KEYS_FILE instead"
        )
    path = token_keys_path(settings.data_dir)
    if not path.exists():
        raise StartupRefused(
            f"there are no token keys at {path}: set GUERDON_TOKEN_KEYS_FILE, or pass the data directory of `guerdon up` with --data-dir"
        )
    return path


def _read(path: Path) -> list[SigningKey]:
    try:
        return decode_set(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{path} cannot be read: {type(error).__name__}") from None


def _change(path: Path, change: Callable[[list[SigningKey]], list[SigningKey]]) -> list[SigningKey]:
    """Replace the key set in the file by the result of `change`, under the lock of the file, and return the new keys."""
    try:
        with _locked(path):
            text = encode_set(change(_read(path)))
            # TokenKeys refuses an invalid set, so a set that the API processes would refuse is not written.
            keys = TokenKeys(text).described()
            write_private(path, text + "\n")
    except OSError as error:
        raise StartupRefused(f"{path} cannot be written: {error.strerror or type(error).__name__}") from None
    return keys


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the lock of `path`. It is a separate file, because `path` is replaced by a rename."""
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _log_event(name: str, kid: str) -> None:
    log_command_event(name, "done", request_id=IdSource(SystemClock()).new("cmd"), subject={"kid": kid})


def _print(keys: Sequence[SigningKey], now_ms: int) -> None:
    for key in keys:
        start = "always" if key.signs_from is None else rfc3339(key.signs_from)
        end = "further notice" if key.verifies_until is None else rfc3339(key.verifies_until)
        typer.echo(f"{key.kid}  {state_of(key, keys, now_ms):9}  signs from {start}  verifies until {end}")
