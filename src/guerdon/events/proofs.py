"""Proof of events and voids: each is chained to those before it of its member, and its entries carry the digests of their documents. Pure."""

from collections.abc import Callable
from typing import Any

import msgspec

from guerdon.campaigns.domain import EVENTS, REFUNDS
from guerdon.events.record import RecordRequest, RecordResult
from guerdon.ledger.models import Decision, T, Transaction, View
from guerdon.proofs import digest_of, evidence_of, without_empty
from guerdon.tiers.member_state import chained
from guerdon.tiers.models import PROGRAMME, TIER_SETS

Decide = Callable[[View], Decision[RecordResult]]


def proving(decide: Decide, request: RecordRequest) -> Decide:
    """Return `decide` with the proofs of the event that it records. A preview and a replay stay as they are."""

    def decide_and_prove(view: View) -> Decision[RecordResult]:
        decision = decide(view)
        if request.preview or all(collection != EVENTS for collection, _ in decision.inserts):
            return decision
        decision, event_digest = chained(
            decision, request.owner, view, _refunds_left(decision, request.owner, request.event.about or request.event.id, view)
        )
        digests = {"event": event_digest, **_digests_used(decision.value, request, view)}
        campaigns = {live.campaign.id: live for live in request.campaigns}

        def proven(transaction: Transaction) -> Transaction:
            live = None if request.event.about is not None else campaigns.get(transaction.metadata["campaign"])
            own = digests if live is None else {**digests, "campaign": live.digest}
            return msgspec.structs.replace(transaction, evidence=evidence_of(own))

        return msgspec.structs.replace(decision, transactions=tuple(map(proven, decision.transactions)))

    return decide_and_prove


def prove_void(decision: Decision[T], owner: str, event_id: str, event_digest: str, view: View) -> Decision[T]:
    """Return a decision that voids an event, with the proof of the void. `event_digest` is the digest of the stored event."""
    decision, void_digest = chained(decision, owner, view, _refunds_left(decision, owner, event_id, view))
    evidence = evidence_of({"event": event_digest, "void": void_digest})
    transactions = tuple(
        msgspec.structs.replace(each, metadata={**each.metadata, "void": "true"}, evidence=evidence)
        for each in decision.transactions
    )
    return msgspec.structs.replace(decision, transactions=transactions)


def _refunds_left(decision: Decision[Any], owner: str, purchase: str, view: View) -> str | None:
    """Return the digest of the refunds of the purchase that the decision leaves, or None if it does not change them."""
    row_id = f"{owner}/{purchase}"
    for change in decision.changes:
        if change.collection == REFUNDS and change.id == row_id:
            row = {**view.documents.get((REFUNDS, row_id), {}), **change.fields, "_id": row_id, "owner": owner}
            return digest_of(without_empty(row))
    return None


def _digests_used(result: RecordResult, request: RecordRequest, view: View) -> dict[str, str]:
    """Return the digests of the documents that decided the event besides the campaigns."""
    used: dict[str, str] = {}
    if request.original_digest is not None:
        used["purchase"] = request.original_digest
    # The view also holds documents that other commands of the batch read; the inputs name those that decided the event.
    tiers = view.documents.get((TIER_SETS, PROGRAMME), {}) if result.event.inputs and result.event.inputs.tier_versions else {}
    if tiers.get("head") is not None:
        used["tiers"] = tiers["head"]
    return used
