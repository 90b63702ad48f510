"""L13: the events, voids and tier changes of each member form a chain, from which the refunds and the state of the member follow.

The member state, the events, the voids, the tier changes and the refunds of a page of members are read in one snapshot. Of each document only its place
in the chain is kept in memory.
"""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, cast

import msgspec
from msgspec import Struct

from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, MEMBER_STATES, REFUNDS
from guerdon.database import Database, Document, Session
from guerdon.tiers.models import TIER_CHANGES
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.digests import GENESIS, digest_of, without_empty
from guerdon.verification.snapshots import in_snapshot

MEMBERS_PAGE = 100
LEFT_BY_EVENTS = ("purchases", "last_purchase_at", "purchase_times", "qualifying", "achieved")


class _Proof(Struct, frozen=True):
    """Field `proof` of an event, a void or a tier change."""

    number: int
    prev: str
    state: str | None = None
    refunds: str | None = None


class _Link(Struct, frozen=True):
    """Place of one document in the chain of its member."""

    where: str
    prev: str
    digest: str
    recorded_at: int


class _MemberChain(Struct):
    """Documents of one member, as far as they are compared."""

    state: Document | None = None
    links: dict[int, _Link] = {}
    """By number."""
    refused: list[tuple[str, str]] = []
    """Documents whose number is damaged or occurs twice, with the fault."""
    unlinked: list[tuple[str, int]] = []
    """Documents without a place in the chain, with the times of their recording."""
    newest_event: tuple[int, str | None] = (0, None)
    """Number and `proof.state` of the newest event or void."""
    referrers: set[str] = set()
    tier_changes: int = 0
    newest_tier_change: Document = {}
    refunds: dict[str, Document] = {}
    """Rows of refunds, by id of the purchase."""
    refunds_left: dict[str, tuple[int, str]] = {}
    """By id of the purchase: number of the newest event or void that left its refunds, and their digest."""
    unlinked_abouts: set[str] = set()
    """Purchases that events without a place in the chain are about."""

    def add(self, collection: str, document: Document) -> None:
        """Add an event, a void or a tier change."""
        where = f"{collection}/{document['_id']}"
        recorded_at = _number(document.get("recorded_at"))
        if document.get("proof") is None:
            self.unlinked.append((where, recorded_at))
            if collection != TIER_CHANGES:
                self.unlinked_abouts.add(_purchase_of(document))
            return
        try:
            proof = msgspec.convert(document["proof"], _Proof)
        except msgspec.ValidationError as error:
            self.refused.append((where, f"its proof is damaged: {error}"))
            return
        if proof.number in self.links:
            self.refused.append((where, "its number in the chain of its member occurs twice"))
        self.links[proof.number] = _Link(where, proof.prev, digest_of(document), recorded_at)
        if collection != TIER_CHANGES:
            self._add_event(document, proof)

    def _add_event(self, document: Document, proof: _Proof) -> None:
        inputs: Any = document.get("inputs")
        if isinstance(inputs, dict) and "referrer" in inputs:
            self.referrers.add(str(cast(Document, inputs)["referrer"]))
        if proof.number > self.newest_event[0]:
            self.newest_event = (proof.number, proof.state)
        purchase = _purchase_of(document)
        if proof.refunds is not None and proof.number > self.refunds_left.get(purchase, (0, ""))[0]:
            self.refunds_left[purchase] = (proof.number, proof.refunds)


def _purchase_of(document: Document) -> str:
    """Return the id of the purchase whose refunds an event may change, or of the event that a void is about."""
    return str(document.get("refund_of") or document.get("confirms") or document.get("event") or document["_id"])


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


class _MemberPage(Struct, frozen=True):
    """Chains of the members of a page, and tier changes and refunds between their ids whose members have no state."""

    chains: dict[str, _MemberChain]
    orphans: list[str]


async def check_members(database: Database, after: str, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check the members after the id `after`. Yield the number of member states and the last id of each page."""
    while True:
        page = await in_snapshot(database, partial(_read_page, database, after))
        for where in page.orphans:
            report_violation("L13", where, "the state of its member does not exist")
        for member, chain in page.chains.items():
            for where, fault in _faults(member, chain):
                report_violation("L13", where, fault)
        if page.chains:
            after = max(page.chains)
            yield len(page.chains), after
        if len(page.chains) < MEMBERS_PAGE:
            return


async def check_states_of_events(database: Database, events: list[Document], report_violation: ReportViolation) -> None:
    """Check that the member state of each chained event counts it."""
    linked: list[tuple[Document, int]] = []
    for event in events:
        proof: Any = event.get("proof")
        if isinstance(proof, dict):
            linked.append((event, _number(cast(Document, proof).get("number"))))
    where: Document = {"_id": {"$in": sorted({str(event.get("owner")) for event, _ in linked})}}
    states = database.raw[MEMBER_STATES].find(where, {"links": 1})
    counted = {str(row["_id"]): _number(row.get("links")) async for row in states}
    for event, number in linked:
        if number > counted.get(str(event.get("owner")), -1):
            report_violation("L13", f"{EVENTS}/{event['_id']}", "the state of its member does not exist or does not count it")


async def _read_page(database: Database, after: str, session: Session) -> _MemberPage:
    states = database.raw[MEMBER_STATES].find({"_id": {"$gt": after}}, limit=MEMBERS_PAGE, session=session).sort("_id")
    page = _MemberPage({str(state["_id"]): _MemberChain(state) async for state in states}, [])
    chains, full = page.chains, len(page.chains) == MEMBERS_PAGE
    if chains:
        async for document in database.raw[EVENTS].find({"owner": {"$in": list(chains)}}, session=session):
            chains[document["owner"]].add(EVENTS, document)

    async def find_between(collection: str, separator: str, end: str) -> AsyncIterator[tuple[_MemberChain, Document]]:
        """Yield the documents whose ids begin with those of the members of the page."""
        last = max(chains) + end if full else "~"
        where: Document = {"_id": {"$gt": after + end if after else "", "$lt": last}}
        async for document in database.raw[collection].find(where, session=session).sort("_id"):
            chain = chains.get(str(document["_id"]).partition(separator)[0])
            if chain is None:
                page.orphans.append(f"{collection}/{document['_id']}")
            else:
                yield chain, document

    async for chain, document in find_between(TIER_CHANGES, "#", "#~"):
        chain.add(TIER_CHANGES, document)
        chain.tier_changes += 1
        chain.newest_tier_change = document
    async for chain, document in find_between(EVENT_VOIDS, "/", "0"):
        chain.add(EVENT_VOIDS, document)
    async for chain, document in find_between(REFUNDS, "/", "0"):
        chain.refunds[str(document["_id"]).partition("/")[2]] = document
    return page


def _faults(member: str, chain: _MemberChain) -> Iterator[tuple[str, str]]:
    state = chain.state or {}
    where = f"{MEMBER_STATES}/{member}"
    yield from chain.refused
    head = GENESIS
    count = _number(state.get("links", 0))
    for number in range(1, max(count, len(chain.links)) + 1):
        link = chain.links.get(number)
        if link is None:
            yield where, f"number {number} of {count} in the chain of the member does not exist"
            break
        if link.prev != head:
            yield link.where, f"it does not contain the digest of number {number - 1} in the chain of its member"
            break
        head = link.digest
    else:
        if count != len(chain.links) or head != state.get("head", GENESIS):
            yield where, f"its chain ends with number {len(chain.links)}, and not with the head of number {count}"
    first = chain.links.get(1)
    for name, recorded_at in chain.unlinked:
        if first is not None and recorded_at > first.recorded_at:
            yield name, "it is younger than the chain of its member, and not part of it"
    yield from _faults_of_state(where, state, chain)
    yield from _faults_of_refunds(member, chain)


def _faults_of_state(where: str, state: Document, chain: _MemberChain) -> Iterator[tuple[str, str]]:
    number, left = chain.newest_event
    if number and left != digest_of(without_empty({name: state.get(name) for name in LEFT_BY_EVENTS})):
        yield where, f"its {', '.join(LEFT_BY_EVENTS)} are not those that number {number} of its chain left"
    if chain.referrers - {state.get("referrer")}:
        yield where, f"its referrer is {state.get('referrer')}; events name {', '.join(sorted(chain.referrers))}"
    newest = chain.newest_tier_change
    expected = (chain.tier_changes, newest.get("after"), newest.get("at"))
    if chain.tier_changes and (state.get("tier_changes", 0), state.get("tier"), state.get("tier_since")) != expected:
        yield where, f"its tier is not that of change {chain.tier_changes}, {newest.get('after')}"


def _faults_of_refunds(member: str, chain: _MemberChain) -> Iterator[tuple[str, str]]:
    for purchase in sorted(chain.refunds.keys() | chain.refunds_left.keys()):
        row, left = chain.refunds.get(purchase), chain.refunds_left.get(purchase)
        where = f"{REFUNDS}/{member}/{purchase}"
        if left is None:
            if purchase not in chain.unlinked_abouts:
                yield where, "no event or void of the member has left it"
        elif row is None or digest_of(without_empty(row)) != left[1]:
            yield where, f"it does not exist, or differs from what number {left[0]} in the chain of its member left"
