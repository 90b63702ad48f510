"""Where a verification stands, on disk: so that it goes on after a crash, without writing into the books that it proves."""

import asyncio
import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ledger.store import ENTRIES
from guerdon.verification.checkpoints import RemovedPart
from guerdon.verification.report import VerificationReport

SAVE_EVERY_SECONDS = 1.0


class VerificationPosition(Struct):
    """How far a run has come: everything that it must know to go on, the violations found so far with it."""

    stage: Literal["accounts", "events", "holds", "reversals", "refusals", "vouchers"] = "accounts"
    last: str = ""
    """The last id of the stage that is done."""
    done: int = 0
    total: int = 0
    """Documents that were there when the run began, about."""
    report: VerificationReport = msgspec.field(default_factory=VerificationReport)
    cuts: list[RemovedPart] = []


class _File(Struct):
    books: str
    place: VerificationPosition


class StateFile:
    """Keeps the place of one run."""

    def __init__(self, file: Path, books: str) -> None:
        self._file = file
        self._books = books
        self._saved_at = asyncio.get_running_loop().time()

    @classmethod
    async def of(cls, database: Database, file: Path) -> "StateFile":
        return cls(file, await _name_of(database))

    def load(self) -> VerificationPosition | None:
        """Return where the last run was cut off, or None when there is no such run.

        Raises:
            StartupRefused: that run was over other books, or the file cannot be read.
        """
        try:
            saved = msgspec.json.decode(self._file.read_bytes(), type=_File)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise StartupRefused(f"{self._file} cannot be read ({error}); start anew without --resume") from None
        if saved.books != self._books:
            raise StartupRefused(f"{self._file} belongs to a verification of another database; start anew without --resume")
        return saved.place

    def save_now_and_then(self, place: VerificationPosition) -> None:
        """Save a place from which the run can go on, but not more often than it is worth.

        Raises:
            StartupRefused: it cannot be written.
        """
        now = asyncio.get_running_loop().time()
        if now - self._saved_at >= SAVE_EVERY_SECONDS:
            self._saved_at = now
            self._save(place)

    def _save(self, place: VerificationPosition) -> None:
        """Replace the file in one step: whoever is killed leaves the old or the new one."""
        draft = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(msgspec.json.encode(_File(self._books, place)))
            draft.replace(self._file)
        except OSError as error:
            raise StartupRefused(
                f"{self._file} cannot be written: {error.strerror}; name another directory with --data-dir"
            ) from None

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)


async def _name_of(database: Database) -> str:
    """The identity of the collection of entries: another database, or one that was restored, has another."""
    async for found in await database.raw.list_collections(filter={"name": ENTRIES}):
        return bytes(found["info"]["uuid"]).hex()
    return "none"
