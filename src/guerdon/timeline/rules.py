"""Order of a timeline, and the causes of its items. Pure.

Every item has a fixed position: its time, its type, and a name that orders items of one type and time. A page continues below a position, so items
that are recorded meanwhile change no later page. The time is that of the recording, which no later item can precede within its source.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from guerdon.campaigns.domain import RecordedEvent
from guerdon.ledger.models import Entry
from guerdon.tiers.models import TierChange
from guerdon.timeline.models import ItemType, Why
from guerdon.vouchers.models import Voucher

RANKS: dict[ItemType, int] = {"event": 0, "voucher": 1, "entry": 2, "tier": 3}
"""Order of items with the same time, from cause to effect."""
POSITION = re.compile(r"([0-9]{1,15})/(event|voucher|entry|tier)/([0-9]{1,12}|[A-Z][A-Z0-9]{1,11}:[0-9]{1,12}|vch_[0-9a-f]{32})\Z")
_AWARD_KINDS = frozenset({"award", "clawback", "confirmation"})
"""Kinds of entries that only events write. Callers can choose the metadata of other kinds."""


class TimelinePosition(NamedTuple):
    """TimelinePosition of an item. Positions are compared as tuples; the newest is the largest."""

    at: int
    rank: int
    name: str = ""
    """Asset of an entry, id of a voucher, or empty."""
    number: int = 0
    """`seq` of an entry, number of an event in the member's chain, or number of a tier change."""


Document = Entry | RecordedEvent | Voucher | TierChange


class Placed(NamedTuple):
    """A document with its position."""

    position: TimelinePosition
    document: Document


def position_text(position: TimelinePosition) -> str:
    """Return the text of a position, for a cursor."""
    kind = next(kind for kind, rank in RANKS.items() if rank == position.rank)
    name = {"entry": f"{position.name}:{position.number}", "voucher": position.name}.get(kind, str(position.number))
    return f"{position.at}/{kind}/{name}"


def parse_position(text: str) -> TimelinePosition | None:
    """Return the position of a text, or None for any other text."""
    match = POSITION.match(text)
    if match is None:
        return None
    at, kind, name = int(match[1]), match[2], match[3]
    form = "voucher" if name.startswith("vch_") else "entry" if ":" in name else "number"
    if form != {"voucher": "voucher", "entry": "entry"}.get(kind, "number"):
        return None
    if kind == "voucher":
        return TimelinePosition(at, RANKS["voucher"], name)
    if kind == "entry":
        asset, _, seq = name.partition(":")
        return TimelinePosition(at, RANKS["entry"], asset, int(seq))
    return TimelinePosition(at, RANKS["event" if kind == "event" else "tier"], "", int(name))


def place_entry(entry: Entry) -> Placed:
    return Placed(TimelinePosition(entry.at, RANKS["entry"], entry.asset, entry.seq), entry)


def place_event(event: RecordedEvent) -> Placed:
    return Placed(TimelinePosition(event.recorded_at, RANKS["event"], "", 0 if event.proof is None else event.proof.number), event)


def place_voucher(voucher: Voucher) -> Placed:
    return Placed(TimelinePosition(voucher_ms(voucher.id), RANKS["voucher"], voucher.id), voucher)


def place_tier_change(change: TierChange) -> Placed:
    return Placed(TimelinePosition(change.recorded_at, RANKS["tier"], "", int(change.id.rpartition("#")[2])), change)


def voucher_ms(voucher_id: str) -> int:
    """Return the time in the id of a member's voucher, by which vouchers are listed. The issue follows within moments."""
    return int(voucher_id[4:16], 16)


def below(rank: int, before: TimelinePosition) -> int:
    """Return the time before which all items of a rank are below `before`. Items of its own rank and time are told apart by their names."""
    return before.at + 1 if rank < before.rank else before.at


def newest(found: Iterable[Placed], before: TimelinePosition | None, limit: int) -> tuple[list[Placed], TimelinePosition | None]:
    """Return one page of what was found, newest first, and the position that the next page continues below, or None."""
    page = sorted(
        (each for each in found if before is None or each.position < before), key=lambda each: each.position, reverse=True
    )
    return page[:limit], page[limit - 1].position if len(page) > limit else None


# --- causes ---------------------------------------------------------------------------------------------------------


def campaigns_of(found: Iterable[Placed]) -> set[tuple[str, int]]:
    """Return the (campaign, version) pairs that are causes of items."""
    return {
        (why.campaign, why.version)
        for each in found
        if isinstance(each.document, Entry)
        and (why := why_entry(each.document, {})).campaign is not None
        and why.version is not None
    }


def why_entry(entry: Entry, names: Mapping[tuple[str, int], str]) -> Why:
    """Return the cause of an entry. `names` has the names of campaigns by (id, version)."""
    metadata = entry.metadata
    if entry.kind in _AWARD_KINDS:
        campaign, number = metadata.get("campaign"), metadata.get("version", "")
        version = int(number) if number.isdecimal() else None
        name = None if campaign is None or version is None else names.get((campaign, version))
        voided = "voided" if metadata.get("void") == "true" else entry.reason
        return Why(event=metadata.get("event"), campaign=campaign, version=version, name=name, reason=voided)
    if entry.kind == "redeem":
        number = metadata.get("version", "")
        version = int(number) if number.isdecimal() else None
        return Why(offer=metadata.get("offer"), version=version, voucher=metadata.get("voucher"), reason=entry.reason)
    return Why(transaction_id=entry.reverses, reason=entry.reason)


def why_event(event: RecordedEvent) -> Why:
    return Why(event=event.about)


def why_voucher(voucher: Voucher) -> Why:
    return Why(offer=voucher.offer, version=voucher.offer_version, transaction_id=voucher.transaction)


def why_tier_change(change: TierChange) -> Why:
    return Why(event=change.event, version=change.version, reason=change.reason)
