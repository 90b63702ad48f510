"""Commands that are applied together or not at all. Pure."""

from collections.abc import Sequence
from typing import Any

from guerdon.calendar import Calendar
from guerdon.errors import GuerdonError, IdempotencyKeyReused, ReferenceReused
from guerdon.ledger.decide import State, WritePlan, apply_decision, find_replay
from guerdon.ledger.models import Command, Decision, Entry, View


def atomic_command(parts: Sequence[Command], calendar: Calendar) -> Command:
    """Return a command that applies all parts or none. Each part sees the effects of those before it.

    If all keys are known, the first results are returned. A mixture of known and new keys is refused as a reuse. The error of a refused part
    has the part as its `subject`.
    """

    def decide(view: View) -> Decision:
        earlier = _find_replays(parts, view)
        if earlier:
            return Decision(replayed=earlier)
        state = State(dict(view.accounts), {}, dict(view.documents), view.now_ms, calendar)
        # Without recorded keys, because none of them is known.
        part_view, scratch = View(state.accounts, {}, state.documents, view.now_ms), WritePlan()
        decisions: list[Decision] = []
        for part in parts:
            try:
                decision = part.decide(part_view)
                apply_decision(decision, scratch, state)
            except GuerdonError as error:
                error.subject = part
                raise
            decisions.append(decision)
        return _joined(decisions)

    documents = {(ref.collection, ref.id): ref for part in parts for ref in part.documents}
    return Command(
        owners=tuple({owner for part in parts for owner in part.owners}),
        accounts=tuple({account for part in parts for account in part.accounts}),
        decide=decide,
        unique_keys=tuple(key for part in parts for key in part.unique_keys),
        documents=tuple(documents.values()),
        size_bytes=sum(part.size_bytes for part in parts),
    )


def _find_replays(parts: Sequence[Command], view: View) -> tuple[Entry, ...]:
    """Return the entries of an earlier run of all parts; none if all of them are new.

    Raises:
        IdempotencyKeyReused: A key occurs twice, belongs to another request, or is known while others are new.
        ReferenceReused: A reference occurs twice, or another command has used it.
    """
    earlier: list[tuple[Command, Entry]] = []
    seen: set[bytes] = set()
    for part in parts:
        idempotency = part.idempotency
        assert idempotency is not None
        try:
            entry = find_replay(view, idempotency)
            if idempotency.key_digest in seen:
                raise IdempotencyKeyReused("a key occurs twice in the request")
            if idempotency.reference_digest in seen:
                raise ReferenceReused("a reference occurs twice in the request")
        except GuerdonError as error:
            error.subject = part
            raise
        seen.update(idempotency.unique_keys)
        if entry is not None:
            earlier.append((part, entry))
    if earlier and len(earlier) < len(parts):
        reused = IdempotencyKeyReused("the key was used before, in a request without the other commands")
        reused.subject = earlier[0][0]
        raise reused
    return tuple(entry for _, entry in earlier)


def _joined(decisions: Sequence[Decision[Any]]) -> Decision:
    opens = {account.id: account for decision in decisions for account in decision.opens}
    return Decision(
        tuple(transaction for decision in decisions for transaction in decision.transactions),
        tuple(opens.values()),
        tuple(insert for decision in decisions for insert in decision.inserts),
        tuple(change for decision in decisions for change in decision.changes),
    )
