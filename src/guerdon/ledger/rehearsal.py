"""Dry runs: commands are decided as in a commit, and nothing is written."""

from collections.abc import Sequence

from pymongo.errors import PyMongoError

from guerdon.calendar import Calendar
from guerdon.clock import Clock
from guerdon.database import Document
from guerdon.errors import DatabaseUnavailable, GuerdonError
from guerdon.ledger.decide import decide_batch
from guerdon.ledger.models import Command, CommandOutcome, CommandResult, T
from guerdon.ledger.store import Found, Store
from guerdon.money import ScaleOf


class Rehearsal:
    """A series of dry runs on one state in memory. Each command sees the effects of those before it, as if they had been committed."""

    def __init__(self, store: Store, clock: Clock, calendar: Calendar, scale_of: ScaleOf) -> None:
        self._store = store
        self._clock = clock
        self._calendar = calendar
        self._scale_of = scale_of
        self._state: Found = ({}, {}, {})

    async def submit(self, command: Command[T]) -> CommandOutcome[T]:
        """Decide one command and return its outcome.

        Raises:
            GuerdonError: The refusal that `decide` raised.
            Retry: The state that the command was made from has changed.
            DatabaseUnavailable: The database did not answer.
        """
        [result] = await self.submit_all([command])
        if isinstance(result, GuerdonError):
            try:
                raise result
            finally:
                del result  # The traceback of the error refers to this frame: a reference cycle until a collection.
        return result

    async def submit_all(self, commands: Sequence[Command[T]]) -> list[CommandResult[T]]:
        """Decide commands one after another, and return the result that each would have.

        Raises:
            DatabaseUnavailable: The database did not answer.
        """
        if not commands:
            return []
        try:
            accounts, recorded, documents = await self._store.read(commands)
        except PyMongoError as error:
            raise DatabaseUnavailable("the database does not answer", retry_after_seconds=1) from error
        # What an earlier command has changed or read stays as it is.
        accounts.update(self._state[0])
        recorded.update(self._state[1])
        documents.update(self._state[2])
        self._state = accounts, recorded, documents
        plan = decide_batch(commands, self._state, self._clock.now_ms(), self._calendar, scale_of=self._scale_of)
        return plan.results

    def document(self, collection: str, document_id: str) -> Document | None:
        """Return a document that a command has read or would have written, or None."""
        return self._state[2].get((collection, document_id))
