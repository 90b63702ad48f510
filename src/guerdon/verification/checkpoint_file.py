"""Checkpoint file outside of the database: append-only, one JSON object per line."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from guerdon.errors import StartupRefused


class Line(Struct, frozen=True):
    """Line of the checkpoint file."""

    number: int
    jws: str
    """The signed checkpoint in JWS compact form (RFC 7515)."""


def read_lines(file: Path) -> list[Line]:
    """
    Raises:
        StartupRefused: the file cannot be read, or is not a checkpoint file.
    """
    try:
        return _decode(file, file.read_bytes())
    except OSError as error:
        raise StartupRefused(f"the checkpoint file {file} cannot be read: {error.strerror}") from None


def append_missing(file: Path, lines: Sequence[Line]) -> str | None:
    """Append the missing checkpoints of `lines`, the complete list, to the file.

    If the file has a checkpoint that is not in `lines`, append nothing and return a description of the difference; otherwise return None.

    Raises:
        StartupRefused: the file cannot be written, or is not a checkpoint file.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            raw = opened.read()
            existing = _decode(file, raw)
            expected = {line.number: line for line in lines}
            for line in existing:
                if expected.get(line.number) != line:
                    return f"the database does not have checkpoint {line.number} of {file}, or has a different one"
            last = existing[-1].number if existing else 0
            missing = b"".join(msgspec.json.encode(line) + b"\n" for line in lines if line.number > last)
            if missing:
                opened.seek(raw.rfind(b"\n") + 1)  # A writer that was killed may have left an incomplete line.
                opened.truncate()
                opened.write(missing)
                opened.flush()
                os.fsync(opened.fileno())
    except OSError as error:
        raise StartupRefused(f"the checkpoint file {file} cannot be written: {error.strerror}") from None
    return None


def _decode(file: Path, raw: bytes) -> list[Line]:
    """Decode the complete lines. A last line without an end is ignored: its writer was killed."""
    complete = raw[: raw.rfind(b"\n") + 1]
    try:
        return [msgspec.json.decode(line, type=Line) for line in complete.splitlines()]
    except msgspec.MsgspecError as error:
        raise StartupRefused(f"{file} is not a checkpoint file: {error}") from None
