"""Segments of a member as decisions read them: the references for the read of a commit, and the names in its view. Pure.

Memberships are kept in two slots. The document `SERVING` names the slot of the newest finished run; the next run writes the other slot. A
read of the document and of both rows in one snapshot therefore sees either all of one run or all of the next.
"""

from collections.abc import Mapping
from typing import Any

from guerdon.ledger.models import DocumentRef, View

MEMBER_SEGMENTS = "member_segments"
"""Collection of the memberships, with the document `SERVING`."""
SERVING = "programme"
"""Id of the document that names the slot that is read."""
SLOTS = (0, 1)


def row_id(slot: int, member: str) -> str:
    """Return the id of a member's row in a slot."""
    return f"{slot}/{member}"


def segment_ids(member: str) -> list[str]:
    """Return the ids of all documents that the segments of a member depend on."""
    return [SERVING, *(row_id(slot, member) for slot in SLOTS)]


def segment_refs(member: str) -> list[DocumentRef]:
    """Return the documents that a command reads for the segments of a member."""
    return [DocumentRef(MEMBER_SEGMENTS, each, SERVING if each == SERVING else member) for each in segment_ids(member)]


def segments_of(member: str, view: View) -> tuple[str, ...]:
    """Return the names of a member's segments, in alphabetical order. Empty before the first run, and for a member who is newer than the last."""
    found = {each: view.documents.get((MEMBER_SEGMENTS, each)) for each in segment_ids(member)}
    return segments_among(found, member)


def segments_among(documents: Mapping[str, dict[str, Any] | None], member: str) -> tuple[str, ...]:
    """Return the same from documents by id."""
    serving = documents.get(SERVING)
    row = None if serving is None else documents.get(row_id(serving["slot"], member))
    return () if row is None else tuple(row.get("segments", ()))
