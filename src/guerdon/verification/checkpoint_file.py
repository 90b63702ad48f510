"""The file of checkpoints outside of the database: one JSON object a line, only ever appended to."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from guerdon.errors import StartupRefused


class Line(Struct, frozen=True):
    """A checkpoint in the file."""

    number: int
    jws: str


def read_lines(file: Path) -> list[Line]:
    """
    Raises:
        StartupRefused: the file cannot be read, or is not a file of checkpoints.
    """
    try:
        return _decode(file, file.read_bytes())
    except OSError as error:
        raise StartupRefused(f"the checkpoint file {file} cannot be read: {error.strerror}") from None


def append_missing(file: Path, lines: Sequence[Line]) -> str | None:
    """Append those of `lines`, which are all there are, that the file lacks; return what is wrong when the file knows others.

    Raises:
        StartupRefused: the file cannot be written, or is not a file of checkpoints.
    """
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+b") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            raw = opened.read()
            known = _decode(file, raw)
            ours = {line.number: line for line in lines}
            for line in known:
                if ours.get(line.number) != line:
                    return f"the database does not have checkpoint {line.number} of {file}, or has another one"
            last = known[-1].number if known else 0
            more = b"".join(msgspec.json.encode(line) + b"\n" for line in lines if line.number > last)
            if more:
                opened.seek(raw.rfind(b"\n") + 1)  # Over what a writer that was killed has left of a line.
                opened.truncate()
                opened.write(more)
                opened.flush()
                os.fsync(opened.fileno())
    except OSError as error:
        raise StartupRefused(f"the checkpoint file {file} cannot be written: {error.strerror}") from None
    return None


def _decode(file: Path, raw: bytes) -> list[Line]:
    """The complete lines; one without an end was being written when its writer was killed."""
    whole = raw[: raw.rfind(b"\n") + 1]
    try:
        return [msgspec.json.decode(line, type=Line) for line in whole.splitlines()]
    except msgspec.MsgspecError as error:
        raise StartupRefused(f"{file} is not a file of checkpoints: {error}") from None
