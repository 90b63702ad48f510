"""Position of a verification, stored in a file. A run can continue after an interruption, and nothing is written to the verified database."""

import asyncio
import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ledger.store import ENTRIES
from guerdon.verification.checkpoints import Recount
from guerdon.verification.documents import Stage
from guerdon.verification.report import VerificationReport
from guerdon.verification.trial_balance import TrialBalance

SAVE_EVERY_SECONDS = 1.0


class VerificationPosition(Struct):
    """Position of a run: everything that is needed to continue it, including the violations found so far."""

    stage: Literal["accounts", Stage] = "accounts"
    last: str = ""
    """Id of the last document of the stage that is done."""
    done: int = 0
    """Number of documents that were read."""
    total: int = 0
    """Estimated number of documents when the run began."""
    report: VerificationReport = msgspec.field(default_factory=VerificationReport)
    trial_balance: TrialBalance = msgspec.field(default_factory=TrialBalance)
    recounts: list[Recount] = msgspec.field(name="cuts", default_factory=list[Recount])


class _SavedRun(Struct):
    """Content of the file. Its names stay the same, so that a run can continue with a later version."""

    database_id: str = msgspec.field(name="books")
    position: VerificationPosition = msgspec.field(name="place")


class StateFile:
    """File with the position of one run."""

    def __init__(self, file: Path, database_id: str) -> None:
        self._file = file
        self._database_id = database_id
        self._saved_at = asyncio.get_running_loop().time()

    @classmethod
    async def of(cls, database: Database, file: Path) -> "StateFile":
        return cls(file, await _database_id(database))

    def load(self) -> VerificationPosition | None:
        """Return the position of an interrupted run, or None.

        Raises:
            StartupRefused: the run belongs to another database, or the file cannot be read.
        """
        try:
            saved = msgspec.json.decode(self._file.read_bytes(), type=_SavedRun)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise StartupRefused(f"{self._file} cannot be read ({error}); start again without --resume") from None
        if saved.database_id != self._database_id:
            raise StartupRefused(f"{self._file} belongs to a verification of another database; start again without --resume")
        return saved.position

    def save_periodically(self, position: VerificationPosition) -> None:
        """Save the position, at most every `SAVE_EVERY_SECONDS`.

        Raises:
            StartupRefused: the file cannot be written.
        """
        now = asyncio.get_running_loop().time()
        if now - self._saved_at >= SAVE_EVERY_SECONDS:
            self._saved_at = now
            self._save(position)

    def _save(self, position: VerificationPosition) -> None:
        """Replace the file in one step, so that a killed process leaves either the old or the new file."""
        draft = self._file.with_suffix(".new")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as opened:
                opened.write(msgspec.json.encode(_SavedRun(self._database_id, position)))
            draft.replace(self._file)
        except OSError as error:
            raise StartupRefused(
                f"{self._file} cannot be written: {error.strerror}; choose another directory with --data-dir"
            ) from None

    def remove(self) -> None:
        """Remove the file at the end of a run."""
        self._file.unlink(missing_ok=True)


async def _database_id(database: Database) -> str:
    """Return the UUID of the collection of entries. Another database, or a restored one, has another UUID."""
    async for found in await database.raw.list_collections(filter={"name": ENTRIES}):
        return bytes(found["info"]["uuid"]).hex()
    return "none"
