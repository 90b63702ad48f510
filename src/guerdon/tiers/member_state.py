"""Member state as a document of a command: reading it, and writing it with the tier history. Pure."""

import msgspec

from guerdon.campaigns.domain import (
    EVENT_VOIDS,
    EVENTS,
    MEMBER_STATES,
    ChainLink,
    ExpiredLot,
    MemberState,
    PurchaseRefunds,
    TierStep,
)
from guerdon.ledger.models import Decision, DocumentChange, DocumentRef, T, View
from guerdon.proofs import GENESIS, digest_of, without_empty
from guerdon.tiers.models import PROGRAMME, TIER_CHANGES, TIER_SETS, TierSets
from guerdon.tiers.rules import TierProgress

_OPTIONAL = tuple(name for name in MemberState.__struct_fields__ if name not in {"id", "owner"})
TIERS_REF = DocumentRef(TIER_SETS, PROGRAMME, PROGRAMME)
_LEFT_BY_EVENTS = ("purchases", "last_purchase_at", "purchase_times", "qualifying", "achieved")
"""Fields of the member state that only events and voids change."""
_LEAVES_STATE = frozenset({EVENTS, EVENT_VOIDS})


def member_state_lock(owner: str) -> str:
    """Return a name for a command's accounts that belongs to no account.

    It serialises the commands of one process that change the state of one member.
    """
    return f"{owner}:standing"


def member_state_ref(owner: str) -> DocumentRef:
    return DocumentRef(MEMBER_STATES, owner, owner)


def member_state_of(owner: str, view: View) -> MemberState:
    """Return the stored member state, or an empty one for a new member."""
    document = view.documents.get((MEMBER_STATES, owner))
    return MemberState(id=owner, owner=owner) if document is None else msgspec.convert(document, MemberState)


def tiers_of(view: View) -> TierSets | None:
    document = view.documents.get((TIER_SETS, PROGRAMME))
    return None if document is None else msgspec.convert(document, TierSets)


def member_state_change(before: MemberState, after: MemberState) -> DocumentChange:
    """Return the change from the member state as it was read to a new one."""
    changed = msgspec.structs.replace(after, count=before.count + 1)
    change = counted_change(MEMBER_STATES, changed, before.count or None)
    for name in _OPTIONAL:
        if getattr(before, name) and not getattr(changed, name):
            # A field with its default is left out of the fields, and would keep its stored value.
            change.fields[name] = msgspec.to_builtins(getattr(changed, name))
    return change


def counted_change(collection: str, document: MemberState | PurchaseRefunds | ExpiredLot, count: int | None) -> DocumentChange:
    """Return the change of a document whose `count` was `count` when it was read; None if it did not exist."""
    fields = msgspec.to_builtins(document)
    return DocumentChange(collection, fields.pop("_id"), fields.pop("owner"), fields, counted=True, count=count)


def history_of(progress: TierProgress) -> list[tuple[str, dict[str, object]]]:
    """Return the tier changes as documents to insert."""
    return [(TIER_CHANGES, msgspec.to_builtins(change)) for change in progress.changes]


def tier_step(progress: TierProgress, event_id: str) -> TierStep | None:
    """Return the tier change that the event itself has caused, or None."""
    for change in progress.changes:
        if change.event == event_id:
            return TierStep(change.before, change.after)
    return None


def chained(decision: Decision[T], owner: str, view: View, refunds: str | None = None) -> tuple[Decision[T], str]:
    """Append the events, voids and tier changes that a decision inserts to the member's chain; return it and the digest of the newest.

    `refunds` is the digest of the refunds that an event or a void leaves, which is the last of the documents.
    """
    state = member_state_of(owner, view)
    stored = view.documents.get((MEMBER_STATES, owner), {})
    change = next((each for each in decision.changes if each.collection == MEMBER_STATES), None) or member_state_change(
        state, state
    )
    number, head = state.links, state.head or GENESIS
    inserts: list[tuple[str, dict[str, object]]] = []
    # An event names the tier change that it has caused, so it comes after it.
    for collection, document in sorted(decision.inserts, key=lambda insert: insert[0] in _LEAVES_STATE):
        if collection in _LEAVES_STATE or collection == TIER_CHANGES:
            number += 1
            link = ChainLink(number=number, prev=head)
            if collection in _LEAVES_STATE:
                left = {name: {**stored, **change.fields}.get(name) for name in _LEFT_BY_EVENTS}
                link = msgspec.structs.replace(link, state=digest_of(without_empty(left)), refunds=refunds)
            linked = {**document, "proof": msgspec.to_builtins(link)}
            head = digest_of(linked)
            inserts.append((collection, linked))
        else:
            inserts.append((collection, document))
    if number == state.links:
        return decision, head
    change = msgspec.structs.replace(change, fields={**change.fields, "links": number, "head": head})
    changes = (*(each for each in decision.changes if each.collection != MEMBER_STATES), change)
    return msgspec.structs.replace(decision, inserts=tuple(inserts), changes=changes), head
