"""L14: the archived versions of each campaign, each offer, each segment and the tier set form a chain, and those in force are the archived ones."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS, Campaign, CampaignVersion
from guerdon.database import Database, Document, Session
from guerdon.offers.models import OFFER_VERSIONS, OFFERS, Offer, OfferVersion
from guerdon.proofs import ArchivedVersion, content_text
from guerdon.segments.models import SEGMENT_VERSIONS, SEGMENTS, Segment, SegmentVersion
from guerdon.tiers.models import PROGRAMME, TIER_SET_VERSIONS, TIER_SETS, TierSet, TierSets, TierSetVersion
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.digests import GENESIS, chain_hash
from guerdon.verification.snapshots import in_snapshot

PAGE = 100


class _Kind(Struct, frozen=True):
    """Kind of definitions that are archived as `{definition}/{number}`."""

    current: str
    archive: str
    version: type[ArchivedVersion]
    in_force: Callable[[Document], list[tuple[int, Struct]]]
    """Returns the number and content of each version in a current definition."""
    prefix: str


class _DefinitionPage(Struct, frozen=True):
    """Current definitions and the archive between their ids, read in one snapshot."""

    current: dict[str, Document]
    archived: dict[str, dict[int, Document]]
    """Versions by definition and number."""


def _of_campaign(document: Document) -> list[tuple[int, Struct]]:
    campaign = msgspec.convert(document, Campaign)
    versions = [campaign] if campaign.coming is None else [campaign, campaign.coming]
    return [(each.version, each) for each in versions]


def _of_offer(document: Document) -> list[tuple[int, Struct]]:
    offer = msgspec.convert(document, Offer)
    return [(offer.version, offer)]


def _of_segment(document: Document) -> list[tuple[int, Struct]]:
    segment = msgspec.convert(document, Segment)
    return [(segment.version, segment)]


_SEGMENT_KIND = _Kind(SEGMENTS, SEGMENT_VERSIONS, SegmentVersion, _of_segment, "")
_KINDS = (
    _Kind(CAMPAIGNS, CAMPAIGN_VERSIONS, CampaignVersion, _of_campaign, "cmp_"),
    _Kind(OFFERS, OFFER_VERSIONS, OfferVersion, _of_offer, "off_"),
)


async def check_definitions(database: Database, after: str, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check the definitions after the id `after`, and then the tier set and the segments. Yield the number of definitions and the last id of each page."""
    for kind in _KINDS:
        while after < f"{kind.prefix}~":
            page = await in_snapshot(database, partial(_read_page, database, kind, after))
            for definition in sorted(page.current.keys() | page.archived.keys()):
                versions = page.archived.get(definition, {})
                for where, fault in _faults(kind, definition, page.current.get(definition), versions):
                    report_violation("L14", where, fault)
            after = max(page.current) if len(page.current) == PAGE else f"{kind.prefix}~"
            yield len(page.current), after
    for read_faults in (_read_tier_faults, _read_segment_faults):
        for where, fault in await in_snapshot(database, partial(read_faults, database)):
            report_violation("L14", where, fault)


async def _read_page(database: Database, kind: _Kind, after: str, session: Session) -> _DefinitionPage:
    rows = database.raw[kind.current].find({"_id": {"$gt": after}}, limit=PAGE, session=session).sort("_id")
    current = {str(row["_id"]): row async for row in rows}
    # The archive of a definition sorts after it and before the next one; what lies between has no definition.
    low = f"{after}0" if after.startswith(kind.prefix) else kind.prefix
    high = f"{max(current)}0" if len(current) == PAGE else f"{kind.prefix}~"
    archived: defaultdict[str, dict[int, Document]] = defaultdict(dict)
    async for row in database.raw[kind.archive].find({"_id": {"$gt": low, "$lt": high}}, session=session):
        definition, _, number = str(row["_id"]).rpartition("/")
        archived[definition][int(number) if number.isdecimal() else 0] = row
    return _DefinitionPage(current, dict(archived))


def _faults(kind: _Kind, definition: str, document: Document | None, archived: dict[int, Document]) -> Iterator[tuple[str, str]]:
    where = f"{kind.current}/{definition}"
    if document is None:
        yield where, "it does not exist, but has versions"
        return
    try:
        versions = {number: msgspec.convert(row, kind.version) for number, row in archived.items()}
        in_force = kind.in_force(document)
    except msgspec.ValidationError as error:
        yield where, f"it, or a version of it, is damaged: {error}"
        return
    yield from _faults_of_chain(f"{kind.archive}/{definition}", versions, max(number for number, _ in in_force))
    for number, content in in_force:
        archive = versions.get(number)
        if archive is not None and content_text(content) != content_text(archive.definition):
            yield where, f"it differs from version {number}, which it names"


def _faults_of_chain(where: str, versions: dict[int, Any], newest: int) -> Iterator[tuple[str, str]]:
    """Check that the versions have no gap, that each has the content of its proof, and that each contains the hash of the one before."""
    if sorted(versions) != list(range(1, newest + 1)):
        yield where, f"the versions are {sorted(versions)}, expected 1 to {newest}"
        return
    head = GENESIS
    chained = False
    for number in range(1, newest + 1):
        version: ArchivedVersion = versions[number]
        content = content_text(version.definition)
        proof = version.proof
        if proof is None:
            if chained:
                yield f"{where}/{number}", "it has no proof, but the version before it has one"
            # The first version with a proof contains the hash that this one would have without a version before it.
            head = chain_hash(GENESIS, content)
            continue
        if proof.content != content:
            yield f"{where}/{number}", "it differs from its content as it was published"
        if proof.prev != head or proof.hash != chain_hash(proof.prev, proof.content):
            yield f"{where}/{number}", "its hash is wrong, or it does not contain the hash of the version before it"
        head, chained = proof.hash, True


async def _read_tier_faults(database: Database, session: Session) -> list[tuple[str, str]]:
    document = await database.raw[TIER_SETS].find_one({"_id": PROGRAMME}, session=session)
    rows = [row async for row in database.raw[TIER_SET_VERSIONS].find({}, session=session).sort("_id")]
    return list(_faults_of_tiers(document, rows))


def _faults_of_tiers(document: Document | None, rows: Iterable[Document]) -> Iterator[tuple[str, str]]:
    try:
        versions = {row["_id"]: msgspec.convert(row, TierSetVersion) for row in rows}
        sets = None if document is None else msgspec.convert(document, TierSets)
    except msgspec.ValidationError as error:
        yield TIER_SETS, f"the tier set, or a version of it, is damaged: {error}"
        return
    if sets is None:
        if versions:
            yield TIER_SETS, "the tier set does not exist, but has versions"
        return
    yield from _faults_of_chain(TIER_SET_VERSIONS, versions, sets.count)
    newest = versions.get(sets.count)
    head = None if newest is None or newest.proof is None else newest.proof.hash
    if head != sets.head:
        yield TIER_SETS, f"its head is not the hash of version {sets.count}"
    for position, tiers in enumerate(sets.versions):
        archive = versions.get(tiers.version)
        if archive is not None and _comparable(tiers, position) != _comparable(archive.tiers, position):
            yield TIER_SETS, f"version {tiers.version} in it differs from the archive"


def _comparable(tiers: TierSet, position: int) -> TierSet:
    """Return the version without its start if it is the oldest, which applies to all earlier times."""
    return replace(tiers, effective_at=None) if position == 0 else tiers


async def _read_segment_faults(database: Database, session: Session) -> list[tuple[str, str]]:
    """Check the segments, of which there are few. A segment is known by its name, which has no prefix, so they are read as a whole."""
    current = {str(row["_id"]): row async for row in database.raw[SEGMENTS].find({}, session=session).sort("_id")}
    archived: defaultdict[str, dict[int, Document]] = defaultdict(dict)
    async for row in database.raw[SEGMENT_VERSIONS].find({}, session=session).sort("_id"):
        name, _, number = str(row["_id"]).rpartition("/")
        archived[name][int(number) if number.isdecimal() else 0] = row
    found: list[tuple[str, str]] = []
    for name in sorted(current.keys() | archived.keys()):
        found += _faults(_SEGMENT_KIND, name, current.get(name), archived.get(name, {}))
    return found
