"""Examples of answers for the OpenAPI document, built from the struct of an answer and a table of values by field."""

from typing import Any, cast

from msgspec import UNSET, Struct
from msgspec import inspect as mi

from guerdon.http.dry_run import usual_of
from guerdon.http.validation import fits
from guerdon.system.report_examples import REPORT_EXAMPLES

_MEMBER = "mem_019a7f3c2d1e4b5a69788796a5b4c3d2"
_FRIEND = "mem_01a0c4d81b7a4e6f8c9d0a1b2c3d4e5f"
_WALLET = f"{_MEMBER}:PTS"
_CAMPAIGN = "cmp_019a7f3c2d1e4b5a69788796a5b4c3d2"
_OFFER = "off_019a7f3c2d1e4b5a69788796a5b4c3d2"
_VOUCHER = "vch_019a7f3c2d1e4b5a69788796a5b4c3d2"
_BATCH = "bat_019a7f3c2d1e4b5a69788796a5b4c3d2"
_SIMULATION = "sim_019a7f3c2d1e4b5a69788796a5b4c3d2"
_RUN = "sgr_019a7f3c2d1e4b5a69788796a5b4c3d2"
_REQUEST = "req_019a7f3c2d1e4b5a69788796a5b4c3d2"
_KEY_ID = "4Kc0xVqYb2Pz"
_ENTRY = f"{_WALLET}#000000000003"
_TRANSACTION = f"txn_{_WALLET}:3"
_HOLD = f"hld_{_WALLET}:4"
_USES = f"{_MEMBER}:uses.{_VOUCHER}"
_DIGEST = "3f79bb7b435b05321651daefd374cdc681dc06faa65e374e38337b88ca046dea"
_NOW = "2026-01-31T12:00:00.000Z"
_LATER = "2026-12-31T00:00:00.000Z"

_VALUES: dict[str, Any] = {
    # ids
    "member_id": _MEMBER,
    "wallet": _WALLET,
    "wallet_id": _WALLET,
    "transaction_id": _TRANSACTION,
    "campaign": _CAMPAIGN,
    "campaign_id": _CAMPAIGN,
    "offer": _OFFER,
    "event_id": "order-1001",
    "referrer_id": _FRIEND,
    "session_id": f"{_MEMBER}:9fK2mQ7xLp0a",
    "request_id": _REQUEST,
    "reservation": f"hld_{_USES}:2",
    "reference": "order-1001",
    "external_id": "17850",
    "actor": f"key:{_KEY_ID}",
    "created_by": _FRIEND,
    "approved_by": None,
    "asked_by": _MEMBER,
    "recorded_by": f"key:{_KEY_ID}",
    "step": f"txn_{_USES}:3",
    "KeyView.id": _KEY_ID,
    "NewKeyView.id": _KEY_ID,
    "MemberView.id": _MEMBER,
    "SessionView.id": f"{_MEMBER}:9fK2mQ7xLp0a",
    "WalletView.id": _WALLET,
    "used_share": 0.61,
    "CampaignFigures.cost_currency": "GBP",
    "CampaignRow.cost_currency": "GBP",
    "CampaignPeriodRow.cost_currency": "GBP",
    "CampaignVersionRow.cost_currency": "GBP",
    "time_share": 0.5,
    "use_share": 0.5,
    "cost_share": 0.05,
    "pace_per_day": 20.5,
    "runs_out_on": "2026-02-24",
    "CampaignBudget.limit": 1000,
    "CampaignBudget.used": 610,
    "CampaignBudget.left": 390,
    "revenue": {"GBP": 13912},
    "price_paid": {"PTS": 500},
    "refusals": {"sold-out": 3},
    "use_refusals": {"invalid-state": 1},
    "period": "2026-01",
    "first_month": "2026-01",
    "MembersCohort.members": 40,
    "MembersCohort.counts": [40],
    "MembersCohort.shares": [1.0],
    "CampaignsReport.definition": "/docs/reports#campaigns",
    "CampaignReport.definition": "/docs/reports#campaigns",
    "OffersReport.definition": "/docs/reports#offers",
    "OfferReport.definition": "/docs/reports#offers",
    "MembersReport.definition": "/docs/reports#members",
    "CampaignsReport.report": "campaigns",
    "CampaignReport.report": "campaigns",
    "OffersReport.report": "offers",
    "OfferReport.report": "offers",
    "MembersReport.report": "members",
    "CapUsage.window": "2026-01",
    "CampaignUsageView.scale": 0,
    "Why.reason": None,
    "Why.offer": None,
    "Why.voucher": None,
    "Why.transaction_id": None,
    "Why.event": "order-1001",
    "Why.name": "1 point per pound",
    "NextExpiry.at": _LATER,
    "NextExpiry.amount": 40,
    "TransactionView.id": _TRANSACTION,
    "TransactionDetails.id": _TRANSACTION,
    "PostedTransaction.id": _TRANSACTION,
    "ExchangeView.id": _TRANSACTION,
    "RateView.id": "PTS-GBP",
    "RateRef.id": "PTS-GBP",
    "EntryView.rate": "PTS-GBP/1",
    "RateView.from": "PTS",
    "RateView.to": "GBP",
    "QuoteView.from": "PTS",
    "QuoteView.to": "GBP",
    "ExchangeView.from": "PTS",
    "ExchangeView.to": "GBP",
    "ExchangeView.kind": "exchange",
    "PostedTransaction.kind": "exchange",
    "from_amount": 500,
    "to_amount": 5,
    "minimum": 500,
    "maximum": None,
    "rounding": "floor",
    "account": "system:exchange",
    "SystemPostingView.amount": -100,
    "EntryView.id": _ENTRY,
    "HoldState.id": _HOLD,
    "HoldView.id": _HOLD,
    "HoldAnswer.id": _HOLD,
    "EventView.id": "order-1001",
    "EventExport.id": "order-1001",
    # reports and closed months
    "as_of": _NOW,
    "behind_seconds": 0.4,
    "stale": False,
    "definition": "/docs/reports#roll-forward",
    **REPORT_EXAMPLES,
    "CampaignView.id": _CAMPAIGN,
    "OfferView.id": _OFFER,
    "CatalogueItem.id": _OFFER,
    "VoucherView.id": _VOUCHER,
    "BatchView.id": _BATCH,
    "BatchView.voucher": None,
    "SimulationView.id": _SIMULATION,
    "segment": "champions",
    "segments": ["champions"],
    "run_id": _RUN,
    "BoundsView.days_since_last": [9, 31, 80, 190],
    "BoundsView.purchases": [1, 1, 2, 5],
    "BoundsView.spent": [1500, 4200, 9800, 31000],
    "RecordView.id": "202601:000000000042",
    "KeyPage.next_cursor": None,
    # secrets, cut short
    "access_token": "eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCJ9…",
    "refresh_token": "gr_019a7f3c…",
    "device_token": "gd_019a7f3c…",
    "key": f"gk_live_{_KEY_ID}_…",
    "secret": "JBSWY3DPEHPK3PXP…",
    "recovery_codes": ["4F7K-9Q2M-…"],
    "uri": "otpauth://totp/Guerdon:ada%40example.com?secret=JBSWY3DPEHPK3PXP…&issuer=Guerdon",
    "qr_svg": "<svg …></svg>",
    "kid": "2026-01",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    # times
    "asked_at": _NOW,
    "at": _NOW,
    "changed_at": _NOW,
    "completed_at": _NOW,
    "confirmed_at": _NOW,
    "created_at": _NOW,
    "decided_at": _NOW,
    "entry_created_at": _NOW,
    "exported_at": _NOW,
    "issued_at": _NOW,
    "judged_at": _NOW,
    "last_purchase_at": _NOW,
    "last_used_at": _NOW,
    "now": _NOW,
    "occurred_at": _NOW,
    "recorded_at": _NOW,
    "referred_at": _NOW,
    "used_at": _NOW,
    "since": _NOW,
    "starts_at": "2026-01-01T00:00:00.000Z",
    "ends_at": _LATER,
    "expires_at": _LATER,
    "external_id_until": _LATER,
    "session_ends_at": _LATER,
    "until": _LATER,
    "occurred_from": "2026-01-01T00:00:00.000Z",
    "occurred_before": _NOW,
    "effective_at": _NOW,
    "month": "2026-01",
    "time_zone": "Europe/London",
    "expires_in_seconds": 900,
    "advanced_seconds": 86_400,
    # usually null
    "available_at": None,
    "awaits_approval": None,
    "budget": None,
    "budget_used": None,
    "ceiling": None,
    "coming_at": None,
    "coming_version": None,
    "confirms": None,
    "day_limit": None,
    "detail": None,
    "ended_at": None,
    "error": None,
    "month_limit": None,
    "next_cursor": None,
    "note": None,
    "problem": None,
    "refund_of": None,
    "refunded": None,
    "reserved": None,
    "reserved_until": None,
    "revoked_at": None,
    "schedule": None,
    "tier_change": None,
    "voucher_valid_days": 90,
    "why_not": None,
    "pending": None,
    # amounts and numbers, in minor units where they are money
    "balance": 189,
    "balance_after": 189,
    "available": 189,
    "held": 0,
    "held_after": 0,
    "expired": 0,
    "seq": 3,
    "seq_before": 3,
    "seq_after": 4,
    "credit_limit": 0,
    "amount": 100,
    "captured": 0,
    "left": 100,
    "reversed": 0,
    "version": 1,
    "scale": 2,
    "count": 3,
    "in": 289,
    "out": 100,
    "issued": 42,
    "stock": 1000,
    "left_for_you": 1,
    "per_member_limit": 1,
    "per_member_day_limit": None,
    "per_member_month_limit": None,
    "wanted": 1000,
    "made": 1000,
    "qualifying_points": 1250,
    "missing": 750,
    "Replay.missing": [],
    "points": 2000,
    "Tier.points": 1000,
    "purchases": 4,
    "events": 1200,
    "events_done": 1200,
    "events_total": 1200,
    "recovery_codes_left": 10,
    "refunded_before": None,
    "uses_left": 1,
    "discount": 500,
    "loaded": None,
    "quantity": 1,
    "unit_price": 1299,
    "unit_cost": "0.5",
    "VoucherView.balance": None,
    "WalletView.pending": 0,
    "RecordView.status": 201,
    "RecordView.seq": 42,
    "BulkResult.status": 201,
    "UnwrittenBulkResult.status": 200,
    "EventResult.status": 201,
    "Achievement.events": 3,
    "WalletStateView.ceiling": 10**18,
    "StepView.amount": -1,
    "StepView.balance_after": 0,
    "OfferView.left": 958,
    "CatalogueItem.left": 958,
    "RollingWindow.months": 12,
    "EventView.amount": 2599,
    "EventExport.amount": 2599,
    "Figures.awards": 40,
    "Figures.members": 31,
    "Figures.awarded": 4000,
    "Figures.taken_back": 100,
    "Figures.points": 3900,
    "Figures.cost": 1950,
    "Comparison.difference": {"awards": 0, "members": 0, "awarded": 0, "taken_back": 0, "points": 0, "cost": 0},
    "OtherAsset.difference": 0,
    "OtherAsset.simulated": 3900,
    "OtherAsset.real": 3900,
    "Winner.campaign_simulated": 400,
    "Winner.campaign_real": 400,
    "Winner.programme_simulated": 900,
    "Winner.programme_real": 900,
    "WithinDays.days": 30,
    "Cancellation.days": 14,
    "Unuse.minutes": 60,
    # names and words
    "asset": "PTS",
    "OtherAsset.asset": "GBP",
    "FixedValue.currency": "GBP",
    "BasketMinimum.amount": 2000,
    "BasketMinimum.currency": "GBP",
    "Cap.scope": "member",
    "Cap.period": "month",
    "Stacking.group": None,
    "CampaignView.items": None,
    "CampaignView.achievement": None,
    "EventView.releases": [],
    "Answer.releases": [],
    "EventExport.releases": [],
    "EventExport.person": None,
    "InputsView.wallets": {"PTS": {"balance": 89, "available": 89, "status": "open", "ceiling": 10**18}},
    "BatchView.code": None,
    "BatchView.ended_at": _NOW,
    "SimulationView.ended_at": _NOW,
    "StatementView.ends_at": "2026-02-01T00:00:00.000Z",
    "StepAnswer.wallet": None,
    "StepView.id": f"{_USES}#000000000003",
    "RecordView.facts": {},
    "AssetView.code": "GBP",
    "currency": "GBP",
    "code": "SUMMER-7K2QM-9XW4T-B6HJD",
    "ReferralView.code": "R0NdVkGqZzCbhfcUPYcEVDa",
    "NextTier.code": "gold",
    "code_pattern": "SUMMER-#####-#####-#####",
    "pattern": "SUMMER-#####-#####-#####",
    "kind": "credit",
    "EntryView.kind": "award",
    "KindTotal.kind": "credit",
    "OfferView.kind": "discount",
    "counter": "system:issuer",
    "email": "ada@example.com",
    "sku": "85123A",
    "category": "cups",
    "name": "Summer points",
    "KeyView.name": "shop",
    "NewKeyView.name": "shop",
    "Tier.name": "Silver",
    "OfferView.name": "£5 off",
    "VoucherView.name": "£5 off",
    "CatalogueItem.name": "£5 off",
    "Row.name": "gold",
    "description": "£5 off a basket of £20 or more.",
    "reason": "welcome",
    "TierChangeView.reason": "earned",
    "reasons": ["condition is true"],
    "action": "creditWallet",
    "phase": "answered",
    "scopes": ["wallets:read", "wallets:write"],
    "role": "member",
    "status": "active",
    "KeyView.status": "live",
    "NewKeyView.status": "live",
    "HoldState.status": "held",
    "HoldView.status": "held",
    "HoldAnswer.status": "held",
    "WalletView.status": "open",
    "WalletStateView.status": "open",
    "AwardView.status": "paid",
    "VoucherView.status": "issued",
    "BatchView.status": "done",
    "SimulationView.status": "done",
    "FactorView.status": "confirmed",
    "device": "Firefox on Linux",
    "type": "purchase",
    "event_types": ["purchase"],
    "audience": "true",
    "condition": "event.amount >= 1000",
    "eligibility": "true",
    "engine": "1",
    "recorded_engine": "1",
    "outcome": "awarded",
    "Replay.outcome": "equal",
    "clawback": "up_to_balance",
    "pays": "member",
    "tier": "silver",
    "tiers": ["silver"],
    "from": "silver",
    "to": "gold",
    "counts_from": "2026-01-01T00:00:00.000Z",
    "tier_multipliers": {"gold": "1.5"},
    "images": ["https://192.0.0.9/cup.png"],
    "format": "guerdon-export-1",
    "facts": {"wallet_id": _WALLET},
    "subject": {"wallet_id": _WALLET},
    "metadata": {"till": "4"},
    "attributes": {"country": "GB"},
    "achievements": {_CAMPAIGN: 1},
    "confirmed": {_TRANSACTION: _CAMPAIGN},
    "released": {_CAMPAIGN: _TRANSACTION},
    "taken": {_CAMPAIGN: 100},
    "destroyed": {"sessions": 2},
    "used": {_CAMPAIGN: 100},
    "CounterExport.id": f"{_MEMBER}:2026-01.{_CAMPAIGN}",
    "CounterExport.used": 1,
    "qualifying": {"PTS": {"2026-01": 1250}},
    "hash": _DIGEST,
    "prev": _DIGEST,
    "sha256": _DIGEST,
    "head_before": _DIGEST,
    "head_after": _DIGEST,
    "replayed": False,
    "repeats": False,
    "personal": True,
    "complete": True,
    "current": True,
    "partial_award": True,
    "ignore_dates": False,
}
"""A value by the name of the field, or by its struct and field where the name alone has several meanings."""
_MISSING = object()


def example_of(struct: type[Struct]) -> dict[str, Any]:
    """Return an example of an answer as JSON. Fields that an answer may leave out are left out."""
    return _object(cast(mi.StructType, mi.type_info(struct)))


def _object(kind: mi.StructType) -> dict[str, Any]:
    found: dict[str, Any] = {} if kind.tag_field is None else {kind.tag_field: kind.tag}
    for field in kind.fields:
        if field.encode_name in _left_out(kind.cls):
            continue
        value = _value(field.type, f"{_name_of(kind.cls, field.encode_name)}.{field.encode_name}")
        if not (kind.cls.__struct_config__.omit_defaults and value == field.default):
            found[field.encode_name] = value
    return found


def _name_of(struct: type[Struct], field: str) -> str:
    """Return the name of the struct in the table: its own, else that of a struct it inherits from, else that of the answer without a dry run."""
    own = (base.__name__ for base in struct.__mro__ if f"{base.__name__}.{field}" in _VALUES)
    return next(own, usual_of(struct).__name__)


def _left_out(struct: type[Struct]) -> set[str]:
    """Return the fields that an answer may leave out: they are unset by default."""
    names = struct.__struct_encode_fields__
    defaults = struct.__struct_defaults__
    return {name for name, default in zip(names[len(names) - len(defaults) :], defaults, strict=True) if default is UNSET}


def _value(kind: mi.Type, name: str) -> Any:
    """Return the example of this field of this struct, else of the type, else of the name, else one that the type alone suggests."""
    if name in _VALUES:
        return _VALUES[name]
    declared = _declared(kind)
    if declared is not _MISSING:
        return declared
    named = _VALUES.get(name.rpartition(".")[2], _MISSING)
    return named if named is not _MISSING and fits(kind, named) else _suggested(kind, name)


def _declared(kind: mi.Type) -> Any:
    if isinstance(kind, mi.Metadata):
        examples = cast(dict[str, Any], cast(Any, kind).extra_json_schema or {}).get("examples")
        return examples[0] if examples else _declared(kind.type)
    if isinstance(kind, mi.UnionType):
        return next((found for each in kind.types if (found := _declared(each)) is not _MISSING), _MISSING)
    return _MISSING


def _suggested(kind: mi.Type, name: str) -> Any:
    match kind:
        case mi.Metadata():
            return _suggested(kind.type, name)
        case mi.UnionType():
            return _value(next(each for each in kind.types if not isinstance(each, mi.NoneType)), name)
        case mi.StructType():
            return _object(kind)
        case mi.ListType():
            return [_value(kind.item_type, name)]
        case mi.DictType():
            return {_value(kind.key_type, ""): _value(kind.value_type, name)} if isinstance(kind.value_type, mi.StructType) else {}
        case mi.LiteralType():
            return kind.values[0]
        case mi.IntType():
            return max(kind.ge or 0, 1)
        case mi.BoolType():
            return True
        case mi.StrType():
            return "text"
        case _:
            return None
