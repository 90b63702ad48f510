"""Values with which each query of the catalogue is explained: newest and deepest page, hot and quiet wallet, found and not found."""

from collections.abc import Iterator
from typing import Any

from guerdon.clock import to_datetime
from guerdon.events.recent_types import EVENTS_READ_MAX
from guerdon.history.rules import WAYS
from guerdon.ledger.contention import QUEUE_ID
from guerdon.ledger.models import REFUSAL, SEQ_DIGITS, entry_id, hold_id, transaction_id, unique_key
from guerdon.ledger.references import reference_keys
from guerdon.simulated_clock.models import CLOCK_ID
from guerdon.tiers.models import PROGRAMME, WALK
from guerdon.verification.lookups import BATCH
from tools.query_plans import activity, code_sample, exports, finance, money, proofs, segments, timeline, views, voucher_sample
from tools.query_plans.plans import Parameters
from tools.query_plans.sample import (
    ACTOR,
    NOW_MS,
    SIMULATION_COUNT,
    START_MS,
    Sample,
    Wallet,
    campaign_of,
    claim_of,
    event_of,
    expired_lot_of,
    outbox_id_of,
    reference_of,
    refund_of,
    sealed_of,
    session_of,
    simulation_of,
)

Cases = Iterator[tuple[str, str, Parameters]]
"""Name of the query, description of the case, and parameters."""
PAGE, STATEMENT, IDS_MAX = 51, 200, 500
UNKNOWN_MEMBER = "mem_" + "f" * 32
_LAST_SEQ = 10**SEQ_DIGITS - 1


def _subjects(sample: Sample) -> views.Subjects:
    wallets = sample.quiet[:20]
    owners = [each.owner for each in wallets]
    return views.Subjects(
        owners=owners,
        entries=[entry_id(each.id, 1) for each in wallets],
        voids=[refund_of(owner) for owner in owners],
        tier_changes=[f"{owner}#000001" for owner in owners],
    )


def cases_of(sample: Sample) -> Cases:
    """Yield every case of every query that can be explained."""
    yield from _by_id(sample)
    yield from _lists(sample)
    yield from _batches(sample)
    yield from _history(sample)
    yield from _privacy(sample)
    yield from _tiers(sample)
    yield from voucher_sample.cases(sample.hot.owner, sample.quiet[0].owner)
    yield from code_sample.cases()
    yield from segments.cases([each.owner for each in sample.quiet[:IDS_MAX]], [event_of(2), event_of(4)])
    yield from finance.cases()
    yield from money.cases()
    yield from views.cases(_subjects(sample))
    yield from activity.cases()
    yield from _simulations(sample)
    yield from exports.export_cases(sample)
    yield from timeline.cases(
        sample.quiet[0].owner, UNKNOWN_MEMBER, [refund_of(each.owner) for each in sample.quiet[:100]], START_MS + 2
    )
    yield from _jobs(sample)
    yield from _verification(sample)
    yield from proofs.cases(sample.quiet[0], event_of(2), campaign_of(7), voucher_sample.voucher_of(sample.quiet[0].owner, 0))


def _by_id(sample: Sample) -> Cases:
    quiet, hot = sample.quiet[0], sample.hot
    known_and_unknown = {
        "claims.get": (claim_of("external_id", 7), "external_id:unknown"),
        "members.get": (hot.owner, UNKNOWN_MEMBER),
        "person_keys.get": (hot.owner, UNKNOWN_MEMBER),
        "lookup_keys.get": ("claims", "none"),
        "service_keys.get": ("key007", "none"),
        "assets.get": ("A07", "NONE"),
        "rates.get": ("A07-A08", "NONE-A07"),
        "rate_versions.get": ("A07-A08/1", "A07-A08/2"),
        "events.get": (event_of(2), "order-none"),
        "campaigns.get": (campaign_of(7), campaign_of(10**9)),
        "accounts.move": (hot.id, UNKNOWN_MEMBER + ":PTS"),
        "turns.ask": (QUEUE_ID, UNKNOWN_MEMBER),
        "turns.look": (QUEUE_ID, UNKNOWN_MEMBER),
        "factors.get": (quiet.owner, UNKNOWN_MEMBER),
        "factors.renew": (quiet.owner, UNKNOWN_MEMBER),
        "factors.remove": (quiet.owner, UNKNOWN_MEMBER),
        "resets.get": (quiet.owner, UNKNOWN_MEMBER),
        "resets.replace": (quiet.owner, UNKNOWN_MEMBER),
    }
    for query, (known, unknown) in known_and_unknown.items():
        yield query, "found", {"id": known}
        yield query, "not found", {"id": unknown}
    owned = {
        "accounts.get": (hot.id, hot.owner),
        "accounts.move_sharded": (hot.id, hot.owner),
        "entries.get": (entry_id(hot.id, hot.seq // 2), hot.owner),
        "holds.get": (hold_id(quiet.id, 1), quiet.owner),
        "holds.change": (hold_id(quiet.id, 1), quiet.owner),
        "reversals.get": (transaction_id(quiet.id, 1), quiet.owner),
        "reversals.count": (transaction_id(quiet.id, 1), quiet.owner),
    }
    for query, (known, owner) in owned.items():
        yield query, "found", {"id": known, "owner": owner}
        yield query, "not found", {"id": known + "-none", "owner": owner}
    collected = f"{sample.collector}:A50"
    yield "accounts.get", "one of 100 wallets", {"id": collected, "owner": sample.collector}
    yield "members.rehash", "found", {"id": hot.owner, "hash": None}
    yield "members.change", "found", {"id": hot.owner}
    for query in ("sessions.get", "sessions.rotate", "sessions.end", "sessions.end_own", "sessions.log_out"):
        for case, session in (("found", session_of(quiet.owner)), ("not found", session_of(UNKNOWN_MEMBER))):
            yield query, case, {"id": session, "digest": session.encode(), "member": quiet.owner}
    for case, clock in (("found", CLOCK_ID), ("not found", "none")):
        yield "clocks.get", case, {"id": clock}
        yield "clocks.make", case, {"id": clock}
        yield "clocks.advance", case, {"id": clock, "most": NOW_MS}
    for case, owner, count in (
        ("found", quiet.owner, 1),
        ("changed concurrently", quiet.owner, 2),
        ("not found", UNKNOWN_MEMBER, None),
    ):
        yield "standings.change", case, {"id": owner, "owner": owner, "count": count}
        yield "refunds.change", case, {"id": refund_of(owner), "owner": owner, "count": count}
        yield "expired_lots.change", case, {"id": expired_lot_of(owner), "owner": owner, "count": count}
    for case, owner in (("found", quiet.owner), ("not found", UNKNOWN_MEMBER)):
        yield "factors.begin", case, {"id": owner, "none": None}
        yield "factors.confirm", case, {"id": owner, "none": None, "sealed": sealed_of(owner)}
        yield "factors.try", case, {"id": owner, "most": 5, "now": NOW_MS}
        yield "factors.step", case, {"id": owner, "step": NOW_MS // 30_000}
        yield "factors.code", case, {"id": owner, "digest": owner.encode()}
        yield "resets.check", case, {"id": owner, "digest": owner.encode()}
        yield "resets.use", case, {"id": owner, "digest": owner.encode()}
        yield "outbox.change", case, {"id": outbox_id_of(owner), "due_at": NOW_MS}
    yield "members.set_hash", "found", {"id": hot.owner}
    yield "service_keys.revoke", "found", {"id": "key007"}
    yield "service_keys.used", "found", {"id": "key007"}
    yield "campaigns.replace", "found", {"id": campaign_of(7), "version": 1, "changed_at": START_MS}
    yield "campaigns.replace", "changed concurrently", {"id": campaign_of(7), "version": 2, "changed_at": START_MS}


def _lists(sample: Sample) -> Cases:
    names = [claim_of("external_id", number) for number in range(min(IDS_MAX, sample.members))]
    yield "claims.known", f"{len(names)}, all found", {"ids": names, "limit": len(names)}
    yield "claims.known", f"{len(names)}, none found", {"ids": [name + "-none" for name in names], "limit": len(names)}
    yield "claims.taken", "2, both found", {"ids": [claim_of("email", 7), claim_of("external_id", 7)], "limit": 2}
    yield "members.first", "first page", {"limit": PAGE}
    yield "members.next", "deep page", {"before": sample.quiet[len(sample.quiet) // 2].owner, "limit": PAGE}
    page = [each.owner for each in sample.quiet[:PAGE]]
    yield "person_keys.page", f"{len(page)} people", {"ids": sorted(page), "limit": len(page)}
    yield "members.any", "found", {}
    yield "audit.newest", "first page", {"limit": PAGE}
    yield "audit.next", "deep page", {"before": 50, "limit": PAGE}
    yield "audit.read", "a batch", {"after": 10, "limit": 1000}
    yield "audit.get", "found", {"id": 10, "limit": 1}
    yield "service_keys.list", "100 keys", {"limit": 1000}
    yield "service_keys.page", "first page", {"after": "", "limit": PAGE}
    yield "service_keys.page", "deep page", {"after": "key050", "limit": PAGE}
    yield "batch.rates", "1 of 50 rates", {"ids": ["A07-A08"]}
    yield "rates.first", "50 rates", {"limit": PAGE}
    yield "rates.next", "50 rates, last page", {"after": "A47-A48", "limit": PAGE}
    yield "rates.replace", "found", {"id": "A07-A08", "version": 1}
    yield "rate_versions.some", "50 versions", {"ids": [f"A{number:02}-A{number + 1:02}/1" for number in range(50)]}
    yield "assets.list", "100 assets", {"limit": 1000}
    for case, owner in (("1 session", sample.hot.owner), ("not found", UNKNOWN_MEMBER)):
        yield "sessions.list", case, {"first": f"{owner}:", "last": f"{owner};", "limit": 200}
    for case, owner in (("1 wallet", sample.hot.owner), ("100 wallets", sample.collector), ("not found", UNKNOWN_MEMBER)):
        yield "accounts.list", case, {"first": f"{owner}:A", "last": f"{owner}:[", "owner": owner, "limit": 100}
    yield "campaigns.first", "first page", {"limit": PAGE}
    yield "campaigns.next", "deep page", {"before": campaign_of(500), "limit": PAGE}
    for status in ("draft", "active"):
        yield "campaigns.first_by_status", f"{status}, first page", {"status": status, "limit": PAGE}
        yield "campaigns.next_by_status", f"{status}, deep page", {"status": status, "before": campaign_of(500), "limit": PAGE}
    yield "campaigns.live", "20 of 1,000 are active", {"status": "active", "limit": 200}
    yield "campaigns.count", "20 of 1,000 are active", {"status": "active"}
    asked = [f"{campaign_of(number)}/1" for number in range(20)]
    yield "campaign_versions.known", "20 campaigns", {"ids": asked, "limit": 20}


def _batches(sample: Sample) -> Cases:
    many = sample.quiet[:IDS_MAX]
    hot = sample.hot
    for query in ("batch.accounts", "accounts.exist"):
        yield query, "1 wallet", {"ids": [hot.id], "owners": [hot.owner]}
        yield query, "1 of 100 wallets", {"ids": [f"{sample.collector}:A50"], "owners": [sample.collector]}
        yield query, f"{len(many)} wallets", _accounts(many)
        yield query, "1 unknown", {"ids": [UNKNOWN_MEMBER + ":PTS"], "owners": [UNKNOWN_MEMBER]}
    yield "entries.find", "1 entry", {"ids": [entry_id(hot.id, 1)], "owners": [hot.owner]}
    yield "entries.find", f"{len(many)} entries", {**_accounts(many), "ids": sorted(entry_id(each.id, 1) for each in many)}
    yield "entries.find", "1 unknown", {"ids": [entry_id(UNKNOWN_MEMBER + ":PTS", 1)], "owners": [UNKNOWN_MEMBER]}
    yield "batch.unique_keys", "1 new key, hot wallet", _unique_keys([hot], "new")
    yield "batch.unique_keys", "1 known key, hot wallet", _unique_keys([hot], "PTS-key-2")
    yield "batch.unique_keys", "1 refused key", {"owners": [sample.refused[0][0]], "unique_keys": [sample.refused[0][1]]}
    yield "batch.unique_keys", f"{len(many)} new keys", _unique_keys(many, "new")
    yield "batch.unique_keys", f"{len(many)} known keys", _unique_keys(many, "PTS-key-1")
    for case, text in (("reference in use", f"PTS-{reference_of(3)}"), ("new reference", "none")):
        yield "attempts.later", case, {"owners": [hot.owner], "unique_keys": sorted(reference_keys(hot.owner, text))}
    both = sorted(key for each in many for key in (_unique_key(each, "new"), unique_key(each.owner, "reference", "new")))
    yield (
        "batch.unique_keys",
        f"{len(both)} new keys and references",
        {"owners": sorted(each.owner for each in many), "unique_keys": both},
    )
    known = {
        "batch.events": [event_of(number) for number in range(0, min(2 * IDS_MAX, sample.members), 2)],
        "events.recorded": [event_of(number) for number in range(0, min(2 * IDS_MAX, sample.members), 2)],
        "batch.refunds": [refund_of(each.owner) for each in many],
        "batch.expired_lots": [expired_lot_of(each.owner) for each in many],
        "batch.tier_sets": [PROGRAMME],
        "batch.standings": [each.owner for each in many],
        "batch.holds": sorted(hold_id(each.id, 1) for each in many),
        "batch.reversals": sorted(transaction_id(each.id, 1) for each in many),
    }
    for query, ids in known.items():
        yield query, "1 new", {"ids": ["none"]}
        yield query, f"{len(ids)}, all found", {"ids": ids}


def _accounts(wallets: tuple[Wallet, ...]) -> Parameters:
    return {"ids": sorted(each.id for each in wallets), "owners": sorted(each.owner for each in wallets)}


def _unique_keys(wallets: list[Wallet] | tuple[Wallet, ...], key: str) -> Parameters:
    return {"owners": sorted(each.owner for each in wallets), "unique_keys": sorted(_unique_key(each, key) for each in wallets)}


def _unique_key(wallet: Wallet, key: str) -> bytes:
    return unique_key(wallet.owner, "key", ACTOR, key)


def _history(sample: Sample) -> Cases:
    hot, middle = sample.hot, sample.hot.seq // 2
    quiet = sample.quiet[0]
    for case, wallet, last in (
        ("newest page", hot, hot.seq),
        ("middle", hot, middle),
        ("oldest page", hot, PAGE),
        ("quiet", quiet, quiet.seq),
    ):
        yield "entries.page", case, _span(wallet, max(1, last - PAGE + 1), last, limit=PAGE)
    yield "entries.kind", "every second entry matches", _span(hot, max(1, hot.seq - 999), hot.seq, limit=PAGE, kind="debit")
    for query, kind in (("entries.effective", {}), ("entries.kind_effective", {"kind": "debit"})):
        for case, since_ms in (("all entries match", 0), ("no entry matches", NOW_MS * 2)):
            span = _span(hot, max(1, hot.seq - 999), hot.seq, limit=PAGE, **kind)
            yield query, case, {**span, "since_ms": since_ms, "until_ms": NOW_MS * 3}
    yield "entries.kind", "no entry matches", _span(hot, max(1, hot.seq - 999), hot.seq, limit=PAGE, kind="freeze")
    reference = reference_of(3)
    yield "entries.reference", "found", {"owner": hot.owner, "unique_keys": reference_keys(hot.owner, f"PTS-{reference}")}
    yield "entries.reference", "not found", {"owner": hot.owner, "unique_keys": reference_keys(hot.owner, "none")}
    for case, wallet, since in (
        ("hot wallet, nothing", hot, START_MS),
        ("quiet wallet", quiet, START_MS),
        ("quiet wallet, later", quiet, NOW_MS * 2),
    ):
        span = {"owner": wallet.owner, "first": entry_id(wallet.id, 0), "last": entry_id(wallet.id, wallet.seq)}
        yield "entries.expired", case, {**span, "since": since}
    for case, wallet in (("found", quiet), ("not found", hot)):
        yield "reversals.of_expiries", case, {"ids": [transaction_id(wallet.id, 1)], "owner": wallet.owner}
    steps = [entry_id(hot.id, hot.seq * part // WAYS) for part in range(1, WAYS)]
    yield "entries.probe", "first step", {"ids": steps, "owner": hot.owner}
    yield "entries.probe", "last step", {"ids": [entry_id(hot.id, middle + part) for part in range(1, WAYS)], "owner": hot.owner}
    yield "entries.statement", "a batch in the middle", _span(hot, middle, middle + STATEMENT - 1)
    yield "entries.sources", "a quiet wallet", _span(quiet, 1, quiet.seq)
    yield "entries.stream", "nothing new", _span(hot, hot.seq, _LAST_SEQ, limit=100)
    yield "entries.stream", "resumed 1,000 entries before the end", _span(hot, max(0, hot.seq - 1000), _LAST_SEQ, limit=100)


def _span(wallet: Wallet, first: int, last: int, **more: Any) -> Parameters:
    return {"first": entry_id(wallet.id, first), "last": entry_id(wallet.id, last), "owner": wallet.owner, **more}


def _privacy(sample: Sample) -> Cases:
    for case, owner in (("found", sample.quiet[0].owner), ("not found", UNKNOWN_MEMBER)):
        span = {"first": f"{owner}:", "last": f"{owner};"}
        for query in ("erasing.get", "erasing.end", "erasures.get", "exports.get", "exports.end", "members.erase"):
            yield query, case, {"id": owner}
        yield "members.begin_erasure", case, {"id": owner, "role": "member"}
        yield "person_keys.destroy", case, {"id": owner}
        for collection in ("sessions", "outbox"):
            yield f"{collection}.count", case, span
            yield f"{collection}.erase", case, span
        for query in ("factors.count", "resets.count", "exports.count", "resets.erase", "exports.erase"):
            yield query, case, {"id": owner}
        yield "exports.begin", case, {"id": owner, "now": NOW_MS}
        held = {"after": f"hld_{owner}:", "last": f"hld_{owner};", "owner": owner, "limit": 100}
        yield "holds.export", case, held
        yield "refunds.export", case, {"after": f"{owner}/", "last": f"{owner}0", "owner": owner, "limit": 100}
        yield "accounts.export", case, {"after": f"{owner}:", "last": f"{owner};", "owner": owner, "limit": 100}
        yield "standings.export", case, {"id": owner}
        yield "events.export", case, {"after": "", "owner": owner, "limit": 100}
        yield "audit.export", case, {"after": 0, "member": owner, "limit": 100}
    for query in ("claims.give_up", "claims.limit"):
        claims = [claim_of("email", 2), claim_of("external_id", 2)]  # The owner of the first quiet wallet is member number 2.
        yield query, "2, both found", {"ids": claims, "member": sample.quiet[0].owner}
        yield query, "2, none found", {"ids": [claim + "-none" for claim in claims], "member": UNKNOWN_MEMBER}
    yield "erasing.list", "a batch", {"limit": 100}
    yield "erasures.list", "a page", {"after": sample.quiet[0].owner, "limit": 500}
    outbox_id = outbox_id_of(sample.quiet[0].owner)
    for collection, sealed in (("person_keys", sample.hot.owner), ("lookup_keys", "claims"), ("outbox", outbox_id)):
        yield f"{collection}.all", "a page", {"after": "", "limit": 500}
        yield f"{collection}.reseal", "found", {"id": sealed, "sealed": sealed_of(sealed)}


def _tiers(sample: Sample) -> Cases:
    yield "tier_sets.get", "found", {"id": PROGRAMME}
    yield "tier_sets.walk", "found", {"id": WALK}
    for case, count in (("found", 3), ("changed concurrently", 2)):
        yield "tier_sets.replace", case, {"id": PROGRAMME, "count": count}
    for case, owner in (("found", sample.quiet[0].owner), ("not found", UNKNOWN_MEMBER)):
        yield "standings.get", case, {"id": owner, "owner": owner}
        yield "refunds.get", case, {"id": refund_of(owner), "owner": owner}
        about = {"first": f"{owner}#", "last": f"{owner}#~", "owner": owner}
        yield "tier_changes.page", case, {**about, "limit": PAGE}
        yield "tier_changes.export", case, {**about, "limit": 100}
    yield "standings.many", "a bulk request", {"ids": [each.owner for each in sample.quiet], "limit": len(sample.quiet)}
    yield "standings.due", "a full batch", {"none": 0, "now": NOW_MS + 10**12, "limit": 500}
    yield "standings.due", "nothing due", {"none": 0, "now": START_MS - 1, "limit": 500}
    yield "standings.page", "a batch", {"after": "", "limit": 500}


def _simulations(sample: Sample) -> Cases:
    for case, number in (("found", 0), ("not found", SIMULATION_COUNT)):
        simulation = simulation_of(number)
        yield "simulations.get", case, {"id": simulation}
        yield "simulations.cancel", case, {"id": simulation, "statuses": ["waiting", "running"]}
        yield "simulations.move", case, {"id": simulation, "page": 1, "statuses": ["waiting", "running"]}
        yield "simulations.clear", case, {"id": simulation}
        for query in ("simulated_members.all", "simulated_members.clear", "simulated_purchases.clear"):
            yield query, case, {"first": f"{simulation}/", "last": f"{simulation}0"}
        members, orders = ([f"{simulation}/{name}" for name in names] for names in (["001", "002"], [event_of(1), event_of(2)]))
        yield "simulated_members.known", case, {"ids": members, "limit": 2}
        yield "simulated_members.replace", case, {"id": members[0]}
        yield "simulated_purchases.known", case, {"ids": orders, "limit": 2}
        yield "simulated_purchases.replace", case, {"id": orders[0]}
    yield "simulations.open", "20 of 200 are open", {"free": 0}
    yield "simulations.take", "the oldest", {"lane": 0}
    yield "simulations.expire", "nothing expired", {"moment": to_datetime(NOW_MS)}
    yield "events.newest", "1,000 events", {"limit": EVENTS_READ_MAX}
    for query in ("events.past", "events.past_count"):
        yield query, "an hour", {"since": START_MS, "until": START_MS + 3_600_000, "requested_at": NOW_MS}
    orders = [event_of(number) for number in range(0, min(2 * IDS_MAX, sample.members), 2)]
    yield "events.refunded", f"{len(orders)}, all found", {"ids": orders, "limit": len(orders)}
    yield "refunds.known", "500, all found", {"ids": [refund_of(each.owner) for each in sample.quiet[:IDS_MAX]]}
    yield "tier_set_versions.known", "1 version", {"ids": [3], "limit": 1}


def _jobs(sample: Sample) -> Cases:
    yield "accounts.due", "a full batch", {"now": NOW_MS + 10**12, "limit": 500}
    yield "accounts.due", "nothing due", {"now": START_MS - 1, "limit": 500}
    yield "outbox.due", "a batch", {"channel": "mail", "now": NOW_MS, "limit": 50}
    yield "outbox.due", "nothing due", {"channel": "mail", "now": START_MS, "limit": 50}
    for query in ("refusals.expire", "sessions.expire", "outbox.expire", "resets.expire", "claims.expire"):
        yield query, "nothing expired", {"moment": to_datetime(NOW_MS)}
    yield "leases.take", "found", {"id": "sweep"}
    yield "leases.keep", "found", {"id": "sweep", "holder": "wrk_1"}
    yield "checkpoints.newest", "100 checkpoints", {}
    yield "checkpoints.all", "100 checkpoints", {}
    yield "checkpoints.touch", "never found", {"id": 0}
    yield "checkpoints.accounts", "all", {}
    yield "checkpoints.heads", "1,000 accounts", {"ids": [entry_id(each.id, 1) for each in sample.quiet[:1000]]}


def _verification(sample: Sample) -> Cases:
    middle = sample.quiet[len(sample.quiet) // 2]
    wallets = sample.quiet[:BATCH]
    yield "verify.accounts", "a page", {"after": middle.id, "limit": 1000}
    yield "verify.owners_rest", "a member's other wallets", {"first": f"{sample.collector}:A50", "last": sample.collector + ";"}
    yield "verify.account", "one", {"id": middle.id, "limit": 1000}
    yield "verify.entries", "the hot wallet", {"first": sample.hot.id + "#", "last": sample.hot.id + "#~"}
    yield "verify.entries_rest", "after the last account", {"after": "mem_g"}
    yield "verify.active_holds", "all", {"first": "hld_mem_", "last": "hld_mem_g", "status": "held"}
    yield "verify.reversals", "all", {"first": "txn_mem_", "last": "txn_mem_g"}
    yield "verify.seq", "one", {"id": middle.id}
    yield "verify.prices_back", "one", {"ids": [transaction_id(sample.quiet[0].id, 1)]}
    yield "entries.steps", "a page", {"first": sample.hot.id + "#", "last": sample.hot.id + "$", "limit": 51}
    yield "verify.references", "a batch", {"ids": sorted(entry_id(each.id, 1) for each in wallets)}
    yield "verify.unique_keys", "a batch", _unique_keys(wallets, "PTS-key-1")
    yield "verify.ended_holds", "a batch", {"ids": sorted(hold_id(each.id, 1) for each in wallets)}
    for name in ("events", "holds", "reversals"):
        yield f"verify.all_{name}", "all", {"after": ""}
    lot_owners = sorted(each.owner for each in sample.quiet[:200])
    yield "verify.expired_lots", "a page", {"after": expired_lot_of(middle.owner), "limit": 200}
    yield "verify.lots_of_wallets", "200 wallets", {"ids": [f"{owner}:PTS" for owner in lot_owners], "owners": lot_owners}
    yield "verify.expiries", "200 owners", {"owners": lot_owners}
    yield "verify.all_refusals", "all", {"first": REFUSAL, "last": REFUSAL + "g"}
    refused = sample.refused[:BATCH]
    refused_keys = {"owners": sorted(owner for owner, _ in refused), "unique_keys": sorted(key for _, key in refused)}
    yield "verify.refused_keys", "a batch", refused_keys
