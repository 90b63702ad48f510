"""L12: the documents that justified an entry are those of its evidence.

The first entry of each transaction of an event, a void, a redemption or a step of a voucher carries a digest that names the digests of its
documents. They are looked up in batches, and the digest is computed again.
"""

from collections.abc import Iterable
from typing import Any, TypeVar, cast

import msgspec

from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CampaignVersion
from guerdon.database import Database, Document
from guerdon.ledger.models import Entry
from guerdon.offers.models import OFFER_VERSIONS, OfferVersion
from guerdon.proofs import ArchivedVersion, content_digest
from guerdon.tiers.models import TIER_SET_VERSIONS, TierSetVersion
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.digests import digest_of, voucher_digest
from guerdon.vouchers.models import VOUCHERS

BATCH = 500
CACHED_MAX = 10_000
OFFER_KINDS = frozenset({"redeem", "issue"})
"""Kinds of entries whose evidence includes the version of the offer."""
T = TypeVar("T", bound=ArchivedVersion)


class Mismatch(Exception):
    """A document that the evidence needs does not exist, or is damaged."""


class EvidenceLookups:
    """Entries with evidence whose documents are still to be compared."""

    def __init__(self, database: Database, report_violation: ReportViolation) -> None:
        self._database = database
        self._report_violation = report_violation
        self._entries: list[Entry] = []
        self._contents: dict[tuple[str, str], str] = {}
        """Digests of the contents of archived versions, by collection and id."""
        self._tiers: dict[int, str | None] = {}

    @property
    def full(self) -> bool:
        return len(self._entries) >= BATCH

    def add(self, entry: Entry) -> None:
        """Check the evidence of an entry."""
        self._entries.append(entry)

    async def flush(self) -> None:
        """Compare the evidence of all collected entries."""
        entries, self._entries = self._entries, []
        if not entries:
            return
        events = await self._find(EVENTS, (entry.metadata.get("event") for entry in entries))
        purchases = {_about(event) for event in events.values()}
        events |= await self._find(EVENTS, purchases - events.keys())
        voided = [entry.metadata.get("event") for entry in entries if "void" in entry.metadata]
        voids = await self._find(EVENT_VOIDS, (_void_of(events[each]) for each in voided if each in events))
        vouchers = await self._find(VOUCHERS, (entry.metadata.get("voucher") for entry in entries))
        for entry in entries:
            try:
                if "void" in entry.metadata:
                    digests = _digests_of_void(entry, events, voids)
                elif "event" in entry.metadata:
                    digests = await self._digests_of_event(entry, events)
                else:
                    digests = await self._digests_of_voucher(entry, vouchers)
            except Mismatch as error:
                self._report_violation("L12", entry.id, str(error))
                continue
            if digest_of(digests) != entry.evidence:
                self._report_violation("L12", entry.id, f"its evidence is not that of {', '.join(digests)} as they are stored")

    async def _digests_of_event(self, entry: Entry, events: dict[str, Document]) -> dict[str, str]:
        event = _required(events, entry.metadata["event"], EVENTS)
        digests = {"event": digest_of(event)}
        about = _about(event)
        if about is None:
            version = f"{entry.metadata.get('campaign')}/{entry.metadata.get('version')}"
            digests["campaign"] = await self._content(CAMPAIGN_VERSIONS, CampaignVersion, version)
        else:
            digests["purchase"] = digest_of(_required(events, about, EVENTS))
        head = await self._tier_hash(event.get("inputs"))
        return digests if head is None else {**digests, "tiers": head}

    async def _digests_of_voucher(self, entry: Entry, vouchers: dict[str, Document]) -> dict[str, str]:
        voucher = _required(vouchers, entry.metadata.get("voucher", ""), VOUCHERS)
        digests = {"voucher": voucher_digest(voucher)}
        if entry.kind in OFFER_KINDS:
            version = f"{voucher.get('offer')}/{voucher.get('offer_version')}"
            digests["offer"] = await self._content(OFFER_VERSIONS, OfferVersion, version)
        return digests

    async def _content(self, collection: str, kind: type[T], version_id: str) -> str:
        """Return the digest of the content of an archived version."""
        known = self._contents.get((collection, version_id))
        if known is None:
            document = await self._database.raw[collection].find_one({"_id": version_id})
            if document is None:
                raise Mismatch(f"{collection}/{version_id} does not exist")
            try:
                known = content_digest(msgspec.convert(document, kind).definition)
            except msgspec.ValidationError as error:
                raise Mismatch(f"{collection}/{version_id} is damaged: {error}") from None
            if len(self._contents) >= CACHED_MAX:
                self._contents.clear()
            self._contents[collection, version_id] = known
        return known

    async def _tier_hash(self, inputs: Any) -> str | None:
        """Return the hash of the newest version of the tier set that decided an event, or None."""
        versions: object = cast(Document, inputs).get("tier_versions") if isinstance(inputs, dict) else None
        number = cast(list[object], versions)[-1] if versions and isinstance(versions, list) else None
        if not isinstance(number, int):
            return None
        if number not in self._tiers:
            document = await self._database.raw[TIER_SET_VERSIONS].find_one({"_id": number})
            try:
                version = None if document is None else msgspec.convert(document, TierSetVersion)
            except msgspec.ValidationError as error:
                raise Mismatch(f"{TIER_SET_VERSIONS}/{number} is damaged: {error}") from None
            self._tiers[number] = None if version is None or version.proof is None else version.proof.hash
        return self._tiers[number]

    async def _find(self, collection: str, ids: Iterable[str | None]) -> dict[str, Document]:
        wanted = sorted({each for each in ids if each is not None})
        found: dict[str, Document] = {}
        for start in range(0, len(wanted), BATCH):
            where: Document = {"_id": {"$in": wanted[start : start + BATCH]}}
            async for row in self._database.raw[collection].find(where):
                found[str(row["_id"])] = row
        return found


def _digests_of_void(entry: Entry, events: dict[str, Document], voids: dict[str, Document]) -> dict[str, str]:
    event = _required(events, entry.metadata.get("event", ""), EVENTS)
    return {"event": digest_of(event), "void": digest_of(_required(voids, _void_of(event), EVENT_VOIDS))}


def _void_of(event: Document) -> str:
    """Return the id that the void of an event has."""
    return f"{event.get('owner')}/{event['_id']}"


def _about(event: Document) -> str | None:
    """Return the id of the purchase that an event refunds or confirms, or None."""
    return event.get("refund_of") or event.get("confirms")


def _required(found: dict[str, Document], document_id: str, collection: str) -> Document:
    document = found.get(document_id)
    if document is None:
        raise Mismatch(f"{collection}/{document_id}, which justifies it, does not exist")
    return document
