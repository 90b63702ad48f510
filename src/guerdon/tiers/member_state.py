"""A member's standing among a command's documents: how it is read, and written with the history of its tier. Pure."""

import msgspec

from guerdon.campaigns.domain import MEMBER_STATES, MemberState, PurchaseRefunds, TierStep
from guerdon.ledger.models import DocumentChange, DocumentRef, View
from guerdon.tiers.models import PROGRAMME, TIER_CHANGES, TIER_SETS, TierSets
from guerdon.tiers.rules import TierProgress

TIERS_REF = DocumentRef(TIER_SETS, PROGRAMME, PROGRAMME)
_CLEARED = ("tier", "tier_since", "due_at")


def member_state_lock(owner: str) -> str:
    """A name among a command's accounts that no account has: commands that move one member's standing do not race in one process."""
    return f"{owner}:standing"


def member_state_ref(owner: str) -> DocumentRef:
    return DocumentRef(MEMBER_STATES, owner, owner)


def member_state_of(owner: str, view: View) -> MemberState:
    """What is known of the member; of a new one, nothing."""
    document = view.documents.get((MEMBER_STATES, owner))
    return MemberState(id=owner, owner=owner) if document is None else msgspec.convert(document, MemberState)


def tiers_of(view: View) -> TierSets | None:
    document = view.documents.get((TIER_SETS, PROGRAMME))
    return None if document is None else msgspec.convert(document, TierSets)


def member_state_change(before: MemberState, after: MemberState) -> DocumentChange:
    """Write a standing that was `before` when it was read."""
    moved = msgspec.structs.replace(after, count=before.count + 1)
    change = counted_change(MEMBER_STATES, moved, before.count or None)
    for name in _CLEARED:
        if getattr(before, name) is not None and getattr(after, name) is None:
            change.fields[name] = None  # A field with its default is left out of the fields, and would keep its stored value.
    return change


def counted_change(collection: str, document: MemberState | PurchaseRefunds, count: int | None) -> DocumentChange:
    """Write a document whose `count` was `count` when it was read, and None when it did not exist."""
    fields = msgspec.to_builtins(document)
    return DocumentChange(collection, fields.pop("_id"), fields.pop("owner"), fields, counted=True, count=count)


def history_of(progress: TierProgress) -> list[tuple[str, dict[str, object]]]:
    """The changes of the tier as documents to insert."""
    return [(TIER_CHANGES, msgspec.to_builtins(change)) for change in progress.changes]


def tier_step(progress: TierProgress, event_id: str) -> TierStep | None:
    """What the event itself has made of the tier."""
    for change in progress.changes:
        if change.event == event_id:
            return TierStep(change.before, change.after)
    return None
