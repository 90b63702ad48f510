"""How campaigns judge an event, and what the ledger is to write for it. Pure: time and ids are arguments."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from guerdon.clock import rfc3339
from guerdon.errors import EventReused
from guerdon.ledger import lots
from guerdon.ledger.models import (
    ISSUER,
    LOTS_MAX,
    Account,
    Command,
    Decision,
    DocumentRef,
    Lot,
    Posting,
    Transaction,
    View,
    transaction_id,
)
from guerdon.money import AMOUNT_MAX, BALANCE_CEILING, divide
from guerdon.rewards.cel import Condition, compile_condition, facts_of
from guerdon.rewards.models import EVENTS, AwardView, Campaign, DecisionView, FixedAward, RecordedEvent, ShopEvent

EVENT_BYTES, ITEM_BYTES = 2048, 160
Encode = Callable[[RecordedEvent], dict[str, Any]]
Decode = Callable[[dict[str, Any]], RecordedEvent]


class LiveCampaign(Struct, frozen=True):
    """An active campaign with its conditions compiled."""

    campaign: Campaign
    audience: Condition
    condition: Condition

    @classmethod
    def of(cls, campaign: Campaign) -> "LiveCampaign":
        return cls(campaign, compile_condition(campaign.audience, "/audience"), compile_condition(campaign.condition, "/condition"))

    @property
    def reads_member(self) -> bool:
        return self.audience.reads_member or self.condition.reads_member


class Judgement(Struct, frozen=True):
    """What a campaign wants for an event before any balance is looked at. `amount` is positive; a refund takes it back."""

    campaign: Campaign
    outcome: Literal["awarded", "refused", "not_matched"]
    amount: int
    reason: str
    considered: bool = False
    """True when the campaign's conditions held: then the member's wallet is opened even if the event earns nothing."""


class Subject(Struct, frozen=True):
    """The member an event belongs to, as conditions see them. `id` is None for a preview of somebody unknown."""

    id: str | None
    external_id: str | None = None
    attributes: dict[str, Any] = {}


def judge(event: ShopEvent, subject: Subject, campaigns: Sequence[LiveCampaign], now_ms: int) -> list[Judgement]:
    """Ask every live campaign, in the order of their ids."""
    if not campaigns:
        return []
    facts = facts_of(_event_facts(event), _member_facts(subject), now_ms)
    return [_judge_one(event, live, facts) for live in campaigns]


def _judge_one(event: ShopEvent, live: LiveCampaign, facts: Any) -> Judgement:
    campaign = live.campaign
    if event.type not in campaign.event_types:
        return Judgement(campaign, "not_matched", 0, f"a {event.type} is not one of {', '.join(campaign.event_types)}")
    if campaign.starts_at is not None and event.occurred_at < campaign.starts_at:
        return Judgement(campaign, "not_matched", 0, f"the event is before the campaign's start, {rfc3339(campaign.starts_at)}")
    if campaign.ends_at is not None and event.occurred_at >= campaign.ends_at:
        return Judgement(campaign, "not_matched", 0, f"the event is not before the campaign's end, {rfc3339(campaign.ends_at)}")
    for name, condition in (("audience", live.audience), ("condition", live.condition)):
        holds, error = condition.judge(facts)
        if error is not None:
            return Judgement(campaign, "refused", 0, f"the {name} could not be evaluated: {error}")
        if not holds:
            return Judgement(campaign, "not_matched", 0, f"the {name} is false: {condition.source[:200]}")
    return _price(event, campaign)


def _price(event: ShopEvent, campaign: Campaign) -> Judgement:
    award = campaign.award
    if event.amount <= 0:
        return Judgement(campaign, "not_matched", 0, f"the amount {event.amount} earns nothing", considered=True)
    if isinstance(award, FixedAward):
        return Judgement(campaign, "awarded", award.amount, f"fixed award of {award.amount}", considered=True)
    amount = divide(event.amount * award.points, award.per, award.rounding)
    why = f"{award.points} for every {award.per}: {event.amount} gives {amount} (rounding {award.rounding})"
    if amount == 0:
        return Judgement(campaign, "not_matched", 0, why, considered=True)
    if amount > AMOUNT_MAX:
        return Judgement(campaign, "refused", 0, f"{why}, more than one award may be", considered=True)
    return Judgement(campaign, "awarded", amount, why, considered=True)


class Recording(Struct, frozen=True):
    """Everything `event_command` needs to record one event."""

    event: ShopEvent
    owner: str
    actor: str
    fingerprint: bytes
    judgements: Sequence[Judgement]
    preview: bool = False


def event_command(recording: Recording, *, open_wallet: Callable[[str, int], Account], encode: Encode, decode: Decode) -> Command:
    """Record the event and pay its awards in one commit. The same event again recalls the first answer.

    `decide` raises EventReused when the id belongs to another event.
    """
    event = recording.event
    assets = sorted({judgement.campaign.asset for judgement in recording.judgements if judgement.considered})

    def decide(view: View) -> Decision:
        earlier = view.documents.get((EVENTS, event.id))
        if earlier is not None:
            stored = decode(earlier)
            if stored.owner != recording.owner or stored.fingerprint != recording.fingerprint:
                raise already_recorded(event.id)
            return Decision(value=(stored, True))
        opens = {asset: open_wallet(asset, view.now_ms) for asset in assets}
        recorded, transactions = _decide_awards(recording, opens, view)
        return Decision(transactions, tuple(opens.values()), ((EVENTS, encode(recorded)),), value=(recorded, False))

    return Command(
        owners=(recording.owner,),
        accounts=tuple(f"{recording.owner}:{asset}" for asset in assets),
        decide=decide,
        documents=(DocumentRef(EVENTS, event.id, recording.owner),),
        size_bytes=EVENT_BYTES + ITEM_BYTES * len(event.items) + 1024 * len(recording.judgements),
    )


def already_recorded(event_id: str) -> EventReused:
    return EventReused(f"event {event_id!r} is already recorded with other content")


def _decide_awards(recording: Recording, opens: dict[str, Account], view: View) -> tuple[RecordedEvent, tuple[Transaction, ...]]:
    event = recording.event
    balances = {asset: view.accounts.get(account.id, account) for asset, account in opens.items()}
    transactions: list[Transaction] = []
    awards: list[AwardView] = []
    decisions: list[DecisionView] = []
    for judgement in recording.judgements:
        campaign = judgement.campaign
        outcome, amount, reasons = judgement.outcome, judgement.amount, [judgement.reason]
        if outcome == "awarded":
            account = balances[campaign.asset]
            amount, note = _book(event, campaign, account, amount)
            if note is not None:
                reasons.append(note)
            if amount == 0:
                outcome = "refused"
            else:
                moved = msgspec.structs.replace(account, balance=account.balance + amount, seq=account.seq + 1)
                balances[campaign.asset] = moved
                transactions.append(_award_transaction(recording, campaign, account.id, amount))
                status, paid_by = ("preview", None) if recording.preview else ("paid", transaction_id(account.id, moved.seq))
                awards.append(AwardView(campaign.id, campaign.version, campaign.asset, amount, status, paid_by))
        decisions.append(DecisionView(campaign.id, campaign.version, outcome, amount, reasons))
    return _recorded(recording, awards, decisions, view.now_ms), tuple(transactions)


def _book(event: ShopEvent, campaign: Campaign, account: Account, amount: int) -> tuple[int, str | None]:
    """Return the signed amount that the account can take, and a note when that is not simply what was judged."""
    if account.status != "open":
        return 0, f"the wallet is {account.status}"
    if event.type != "refund":
        if account.balance + amount > account.ceiling:
            return 0, f"the balance would pass its limit of {account.ceiling}"
        if not lots.fits(account, award_lot(amount)):
            return 0, f"the wallet already holds {LOTS_MAX} lots of different dates"
        return amount, None
    if campaign.clawback == "none":
        return 0, "this campaign takes nothing back on refunds"
    if campaign.clawback == "up_to_balance":
        # The credit line is no balance: taking from it would make the debt that this policy rules out.
        taken = min(amount, max(account.spendable + min(account.floor, 0), 0))
        return -taken, None if taken == amount else f"{amount} to take back, {taken} available"
    if account.balance - amount < -BALANCE_CEILING:
        return 0, "the debt would pass the limit of the account"
    return -amount, None


def award_lot(amount: int) -> Lot:
    """What an award arrives as."""
    return Lot(amount, "promotional")


def _award_transaction(recording: Recording, campaign: Campaign, account_id: str, amount: int) -> Transaction:
    if amount > 0:
        posting = Posting(account_id, amount, ISSUER, lots=(award_lot(amount),))
    else:
        posting = Posting(account_id, amount, ISSUER, below_floor=campaign.clawback == "debt")
    return Transaction(
        kind="award" if amount > 0 else "clawback",
        postings=(posting,),
        actor=recording.actor,
        metadata={"event": recording.event.id, "campaign": campaign.id, "version": str(campaign.version)},
    )


def _recorded(recording: Recording, awards: list[AwardView], decisions: list[DecisionView], now_ms: int) -> RecordedEvent:
    event = recording.event
    return RecordedEvent(
        id=event.id,
        owner=recording.owner,
        type=event.type,
        occurred_at=event.occurred_at,
        amount=event.amount,
        currency=event.currency,
        items=list(event.items),
        attributes=event.attributes,
        fingerprint=recording.fingerprint,
        recorded_at=now_ms,
        recorded_by=recording.actor,
        awards=awards,
        decisions=decisions,
    )


def _event_facts(event: ShopEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "amount": event.amount,
        "currency": event.currency,
        "items": [
            {"sku": item.sku, "quantity": item.quantity, "unit_price": item.unit_price, "category": item.category or ""}
            for item in event.items
        ],
        "attributes": event.attributes,
        "occurred_at": rfc3339(event.occurred_at),
    }


def _member_facts(subject: Subject) -> dict[str, Any]:
    return {"id": subject.id or "", "external_id": subject.external_id or "", "attributes": subject.attributes}
