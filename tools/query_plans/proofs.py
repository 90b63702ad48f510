"""Queries of the proof of documents, and of its verification."""

from collections.abc import Iterator
from typing import Any

from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS
from guerdon.database import Document
from guerdon.erasable_data import ERASURES
from guerdon.ledger.models import entry_id
from guerdon.ledger.store import ENTRIES
from guerdon.offers.models import OFFER_VERSIONS, OFFERS
from guerdon.tiers.models import TIER_CHANGES, TIER_SET_VERSIONS
from guerdon.vouchers.models import VOUCHERS
from tools.query_plans.notation import AFTER, ID, IDS, UP, Query, find, one
from tools.query_plans.sample import Wallet, refund_of

Cases = Iterator[tuple[str, str, dict[str, Any]]]
_VERIFY = "guerdon verify"
_BETWEEN: Document = {"_id": {"$gt": ":first", "$lt": ":last"}}

PROOF_QUERIES = [
    Query("campaign_versions.get", "request", "PUT /v1/campaigns/{campaign_id}; guerdon verify", one(CAMPAIGN_VERSIONS, ID)),
    Query("tier_set_versions.get", "request", "PUT /v1/tiers; guerdon verify", one(TIER_SET_VERSIONS, ID)),
    Query("verify.events", "terminal", _VERIFY, find(EVENTS, IDS)),
    Query("verify.justifying_vouchers", "terminal", _VERIFY, find(VOUCHERS, IDS)),
    Query("verify.links", "terminal", _VERIFY, find(MEMBER_STATES, IDS, fields=["links"])),
    Query("verify.standings", "terminal", _VERIFY, find(MEMBER_STATES, AFTER, sort=UP, limit=True)),
    Query("verify.events_of_members", "terminal", _VERIFY, find(EVENTS, {"owner": {"$in": ":owners"}})),
    Query("verify.tier_changes", "terminal", _VERIFY, find(TIER_CHANGES, _BETWEEN, sort=UP)),
    Query("verify.voids", "terminal", _VERIFY, find(EVENT_VOIDS, IDS)),
    Query("verify.voids_of_members", "terminal", _VERIFY, find(EVENT_VOIDS, _BETWEEN, sort=UP)),
    Query("verify.refunds", "terminal", _VERIFY, find(REFUNDS, _BETWEEN, sort=UP)),
    Query("verify.campaigns", "terminal", _VERIFY, find(CAMPAIGNS, AFTER, sort=UP, limit=True)),
    Query("verify.campaign_versions", "terminal", _VERIFY, find(CAMPAIGN_VERSIONS, _BETWEEN)),
    Query("verify.offers", "terminal", _VERIFY, find(OFFERS, AFTER, sort=UP, limit=True)),
    Query("verify.all_offer_versions", "terminal", _VERIFY, find(OFFER_VERSIONS, _BETWEEN)),
    Query("verify.tier_sets", "terminal", _VERIFY, find(TIER_SET_VERSIONS, {}, sort=UP)),
    Query("verify.certificates", "terminal", _VERIFY, find(ERASURES, IDS, fields=["_id"])),
    Query(
        "verify.erasures_on_record",
        "terminal",
        _VERIFY,
        find(AUDIT, {"about": {"$in": ":members"}, "action": ":action"}, fields=["facts", "subject"]),
    ),
    Query("verify.certified_heads", "terminal", _VERIFY, find(ENTRIES, IDS, fields=["hash"])),
]


def cases(wallet: Wallet, event: str, campaign: str, voucher: str) -> Cases:
    """Yield cases of these queries for a wallet of a member, an event, a campaign and a voucher of the sample."""
    member = wallet.owner
    yield "campaign_versions.get", "found", {"id": f"{campaign}/1"}
    yield "tier_set_versions.get", "found", {"id": 3}
    yield "verify.events", "one", {"ids": [event]}
    yield "verify.justifying_vouchers", "one", {"ids": [voucher]}
    yield "verify.links", "one", {"ids": [member]}
    yield "verify.standings", "a page", {"after": "", "limit": 100}
    yield "verify.events_of_members", "one", {"owners": [member]}
    yield "verify.tier_changes", "one member", {"first": f"{member}#", "last": f"{member}#~"}
    yield "verify.voids", "one", {"ids": [refund_of(member)]}
    yield "verify.voids_of_members", "one member", {"first": f"{member}/", "last": f"{member}0"}
    yield "verify.refunds", "one member", {"first": f"{member}/", "last": f"{member}0"}
    yield "verify.campaigns", "a page", {"after": "", "limit": 100}
    yield "verify.campaign_versions", "one campaign", {"first": campaign, "last": f"{campaign}0"}
    yield "verify.offers", "a page", {"after": "", "limit": 100}
    yield "verify.all_offer_versions", "all", {"first": "off_", "last": "off_~"}
    yield "verify.tier_sets", "all", {}
    yield "verify.certificates", "one", {"ids": [member]}
    yield "verify.erasures_on_record", "one", {"members": [member], "action": "exportMember"}
    yield "verify.certified_heads", "one", {"ids": [entry_id(wallet.id, 1)]}
