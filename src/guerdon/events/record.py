"""An event as a ledger command: evaluated, paid and recorded in one commit. Pure: time and ids are arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.allocation import Allocation, payee, wallet_name, wallet_state
from guerdon.campaigns.caps import CapAccount, cap_accounts
from guerdon.campaigns.domain import (
    EVENTS,
    PURCHASE,
    REFUNDS,
    AchievementProgress,
    Award,
    AwardWallet,
    EvaluationInputs,
    MemberState,
    PurchaseRefunds,
    RecordedEvent,
    Release,
    ShopEvent,
    TierStep,
)
from guerdon.campaigns.engine import ENGINE
from guerdon.campaigns.evaluation import Evaluation, Evaluator, LiveCampaign, Subject, reads_referrer
from guerdon.campaigns.member_segments import segment_refs, segments_of
from guerdon.campaigns.models import Campaign
from guerdon.campaigns.outcome import EventOutcome, award_of, clawback_award, event_outcome, refunds_at_arrival
from guerdon.campaigns.purchase_history import last_purchase_before, with_purchase
from guerdon.campaigns.refunds import AwardClawback
from guerdon.errors import EventReused, NotFound, Retry
from guerdon.ledger.expiry import ExpiredLots
from guerdon.ledger.models import (
    COUNTED,
    ISSUER,
    Account,
    Command,
    Confirmation,
    Decision,
    DocumentChange,
    DocumentRef,
    EntryKind,
    Lot,
    Posting,
    Transaction,
    View,
    transaction_id,
)
from guerdon.members.models import MEMBERS, NO_MEMBER
from guerdon.tiers.member_state import (
    TIERS_REF,
    counted_change,
    history_of,
    member_state_change,
    member_state_lock,
    member_state_of,
    member_state_ref,
    tier_step,
    tiers_of,
)
from guerdon.tiers.models import TierSets
from guerdon.tiers.rules import TierProgress, advance, gains_of, tier_at

EVENT_BYTES, ITEM_BYTES, EVALUATION_BYTES, AWARD_BYTES = 3072, 160, 512, 2048
"""Approximate bytes that a command writes for its event, each line item, each campaign and each award."""
Encode = Callable[[RecordedEvent], dict[str, Any]]
Decode = Callable[[dict[str, Any]], RecordedEvent]
OpenWallet = Callable[[str, str, int], Account]
"""Returns the new account of (owner, asset, milliseconds)."""


class RecordRequest(Struct, frozen=True):
    """An event to record, with everything that was read for it before the commit."""

    event: ShopEvent
    owner: str
    """Id of the member; empty in a preview of an unknown member."""
    subject: Subject
    actor: str
    fingerprint: bytes
    campaigns: Sequence[LiveCampaign]
    """Active campaigns in the order of evaluation."""
    judged_at: int
    """Time of the evaluation, `now` in conditions."""
    calendar: Calendar
    original: RecordedEvent | None = None
    """Purchase that a linked refund or a confirmation is about, if it is recorded."""
    original_digest: str | None = None
    """Digest of the stored purchase."""
    referrer: str | None = None
    """Member who referred this member. Read only if a campaign or a refund depends on it."""
    achieved: Mapping[str, AchievementProgress] = {}
    """By campaign: achievements that the purchase of a refund counts for."""
    expired: Mapping[str, ExpiredLots] = {}
    """By wallet: what has expired of the awards that a refund takes back."""
    preview: bool = False
    evaluated_before: Mapping[str, Evaluation] | None = None
    """By campaign: evaluations that were made before the command, for an event with many items."""


class EventCodec(Struct, frozen=True):
    """Conversion of recorded events to and from stored documents."""

    encode: Encode
    decode: Decode


class RecordResult(Struct, frozen=True):
    """The recorded event. `replayed` is true when an earlier request recorded it."""

    event: RecordedEvent
    replayed: bool


def already_recorded(event_id: str) -> EventReused:
    return EventReused(f"event {event_id!r} is already recorded with other content")


class PostingBuilder:
    """Collects the transactions of one event. Each reads the account states that the ones before it leave."""

    def __init__(self, request: RecordRequest, view: View, open_wallet: OpenWallet) -> None:
        self._request = request
        self._view = view
        self._open_wallet = open_wallet
        self._moved: dict[str, Account] = {}
        self.opens: dict[str, Account] = {}
        self.transactions: list[Transaction] = []

    def wallet(self, asset: str, to: str | None = None) -> Account:
        """Return a wallet of the member, or of `to`, in its present state; open it if it does not exist."""
        owner = to or self._request.owner
        return self._known(f"{owner}:{asset}") or self._open(self._open_wallet(owner, asset, self._view.now_ms))

    def pay(self, allocation: Allocation) -> Award:
        """Book an award (or, with a negative amount, what an unlinked refund takes back) and count it against caps and budget."""
        campaign, amount = allocation.campaign, allocation.amount
        wallet = self.wallet(campaign.asset, allocation.to)
        now_ms = self._view.now_ms
        counted = [self._known(cap.account) or self._open(cap.opened(now_ms)) for cap in allocation.counters]
        posting = Posting(
            wallet.id,
            amount,
            ISSUER,
            lots=() if allocation.lot is None else (msgspec.structs.replace(allocation.lot, amount=amount),),
            below_minimum=amount < 0 and campaign.clawback == "debt",
        )
        return award_of(allocation, self._book(wallet, posting, counted, campaign.id, campaign.version))

    def take_back(self, taken: AwardClawback) -> Award:
        """Book what a refund takes back of one award."""
        award = taken.award
        wallet = self.wallet(award.asset, award.to)
        counted = [account for name in award.counted if (account := self._known(name)) is not None]
        # Value of the award that was held over its expiry has returned with another date.
        returned = [
            lot for lot in wallet.lots or () if lot.source == "promotional" and lot.first_expires_at == taken.lot.expires_at
        ]
        first = taken.lot, *(returned if taken.lot.expires_at is not None else ())
        posting = Posting(wallet.id, -taken.amount, ISSUER, lots=first, below_minimum=award.clawback == "debt")
        return clawback_award(taken, self._book(wallet, posting, counted, award.campaign, award.version))

    def release(self, release: Release, waiting: Award) -> Release:
        """Book the release of a waiting award."""
        wallet = self.wallet(release.asset, release.to)
        lot = Lot(release.amount, "promotional", waiting.available_at, waiting.expires_at)
        posting = Posting(wallet.id, 0, ISSUER, confirms=Confirmation(lot, release.expires_at))
        transaction = self._append("confirmation", wallet, (posting,), release.campaign, release.version)
        self._move(wallet, 0)
        return msgspec.structs.replace(release, transaction_id=transaction)

    def _book(self, wallet: Account, posting: Posting, counted: Sequence[Account], campaign: str, version: int) -> str | None:
        self._move(wallet, posting.amount)
        postings = [posting]
        for account in counted:
            current = self._moved.get(account.id, account)
            # A cap's account never falls below zero: a refund gives back at most what was counted.
            change = max(posting.amount, -current.balance)
            if change:
                postings.append(Posting(current.id, change, COUNTED))
                self._move(current, change)
        return self._append("award" if posting.amount > 0 else "clawback", wallet, tuple(postings), campaign, version)

    def _append(self, kind: EntryKind, wallet: Account, postings: tuple[Posting, ...], campaign: str, version: int) -> str | None:
        """Add a transaction whose first entry is the next one of `wallet`; return its id, or None in a preview."""
        metadata = {"event": self._request.event.id, "campaign": campaign, "version": str(version)}
        self.transactions.append(Transaction(kind, postings, self._request.actor, metadata=metadata))
        return None if self._request.preview else transaction_id(wallet.id, wallet.seq + 1)

    def _known(self, name: str) -> Account | None:
        """Return the present state of an account, or None if it does not exist and was not opened here."""
        return self._moved.get(name) or self._view.accounts.get(name) or self.opens.get(name)

    def _open(self, account: Account) -> Account:
        self.opens[account.id] = account
        return account

    def _move(self, account: Account, amount: int) -> None:
        self._moved[account.id] = msgspec.structs.replace(account, balance=account.balance + amount, seq=account.seq + 1)


class EventRecorder:
    """Makes the command that records an event which campaigns evaluate.

    Campaigns that do not read the member state are evaluated when the command is made, the others in the commit.
    """

    def __init__(self, request: RecordRequest, open_wallet: OpenWallet, codec: EventCodec) -> None:
        self._request = request
        self._open_wallet = open_wallet
        self._codec = codec
        self._late: list[LiveCampaign] = []
        self._early = dict(request.evaluated_before or {})
        self._caps: dict[str, list[CapAccount]] = {}
        evaluator = Evaluator(request.event, request.subject, EvaluationInputs(judged_at=request.judged_at), request.calendar)
        for live in request.campaigns:
            if live.reads_member_state:
                self._late.append(live)
            elif request.evaluated_before is None:
                self._early[live.campaign.id] = evaluator.evaluate(live)

    def command(self) -> Command[RecordResult]:
        """Return the command with every account and document that the decision may touch."""
        request, event, owner = self._request, self._request.event, self._request.owner
        paying: list[Campaign] = []
        owners, wallets = {owner}, set[str]()
        for evaluation in self._early.values():
            if evaluation.considered:
                wallets.add(self._wallet(evaluation.campaign))
            if evaluation.outcome == "awarded":
                paying.append(evaluation.campaign)
        for live in self._late:
            campaign = live.campaign
            if event.type in campaign.event_types and (campaign.pays == "member" or request.referrer is not None):
                paying.append(campaign)
                wallets.add(self._wallet(campaign))
                owners.add(payee(campaign, owner, request.referrer))
        accounts = sorted(wallets)
        for campaign in paying:
            for cap in self._cap_accounts(campaign):
                accounts.append(cap.account)
                owners.add(cap.owner)
        documents = [DocumentRef(EVENTS, event.id, owner), TIERS_REF]
        if owner:
            documents += [member_state_ref(owner), *segment_refs(owner)]
        if request.subject.unproven:
            documents.append(DocumentRef(MEMBERS, owner, owner))
        if event.type == PURCHASE:
            documents.append(DocumentRef(REFUNDS, f"{owner}/{event.id}", owner))
        return Command(
            owners=tuple(owners),
            accounts=(*accounts, member_state_lock(owner)),
            decide=self._decide,
            documents=tuple(documents),
            size_bytes=EVENT_BYTES
            + ITEM_BYTES * len(event.items)
            + EVALUATION_BYTES * len(request.campaigns)
            + AWARD_BYTES * len(paying),
        )

    def _cap_accounts(self, campaign: Campaign) -> list[CapAccount]:
        caps = self._caps.get(campaign.id)
        if caps is None:
            request = self._request
            to = payee(campaign, request.owner, request.referrer)
            caps = self._caps[campaign.id] = cap_accounts(campaign, to, request.event.occurred_at, request.calendar)
        return caps

    def _wallet(self, campaign: Campaign) -> str:
        return f"{payee(campaign, self._request.owner, self._request.referrer)}:{campaign.asset}"

    def _decide(self, view: View) -> Decision[RecordResult]:
        request, event = self._request, self._request.event
        if request.subject.unproven and (MEMBERS, request.owner) not in view.documents:
            raise NotFound(NO_MEMBER)
        replay = find_replay(request, view, self._codec.decode)
        if replay is not None:
            return replay
        state, sets = member_state_of(request.owner, view), tiers_of(view)
        if state.referrer != request.referrer and reads_referrer(event, self._late, request.calendar):
            raise Retry
        inputs, tier = inputs_of(request, view), None
        if sets is not None:
            inputs = with_tiers(inputs, sets, state)
            tier = tier_at(sets.versions, state.qualifying, event.occurred_at, request.calendar)
        inputs = msgspec.structs.replace(
            inputs,
            tier=tier,
            purchases=state.purchases,
            last_purchase_at=last_purchase_before(state, event.occurred_at),
            referrer=state.referrer,
            achieved=self._achieved(state) if self._late else {},
            person=request.subject.sealed,
            before=_refunds_at_arrival(event, request.owner, view),
            segments=segments_of(request.owner, view),
        )
        evaluator = Evaluator(event, request.subject, inputs, request.calendar)
        evaluations = [self._early.get(live.campaign.id) or evaluator.evaluate(live) for live in request.campaigns]
        inputs = self._with_accounts(inputs, evaluations, view)
        outcome = event_outcome(event, request.owner, evaluations, inputs, request.calendar)
        postings = PostingBuilder(request, view, self._open_wallet)
        for evaluation in evaluations:
            if evaluation.considered and evaluation.campaign.pays == "member":
                postings.wallet(evaluation.campaign.asset)
        awards = [postings.pay(allocation) for allocation in outcome.allocations if allocation.amount]
        awards += [postings.take_back(taken) for taken in outcome.taken]
        changes = [] if outcome.refunded is None else refunded_change(outcome, inputs)
        gains = gains_of(event, outcome, inputs)
        progress = advance(sets, state, gains, event.id, now_ms=view.now_ms, calendar=request.calendar)
        changes += member_state_changes(event, state, progress, outcome, moved=bool(gains))
        history, tier_change = (history_of(progress), tier_step(progress, event.id)) if progress.changes else ((), None)
        recorded = recorded_event(request, awards, outcome, inputs, tier_change=tier_change)
        return Decision(
            tuple(postings.transactions),
            tuple(postings.opens.values()),
            ((EVENTS, self._codec.encode(recorded)), *history),
            tuple(changes),
            value=RecordResult(recorded, replayed=False),
        )

    def _achieved(self, state: MemberState) -> dict[str, AchievementProgress]:
        """Return the member's progress in the achievements of the campaigns that evaluate the event."""
        achieved: dict[str, AchievementProgress] = {}
        for live in self._late:
            campaign = live.campaign
            if campaign.achievement is not None and self._request.event.type in campaign.event_types:
                progress = state.achieved.get(campaign.id)
                if progress is not None:
                    achieved[campaign.id] = progress
        return achieved

    def _with_accounts(self, inputs: EvaluationInputs, evaluations: Sequence[Evaluation], view: View) -> EvaluationInputs:
        """Add the wallets, caps and budgets that the awards depend on."""
        wallets: dict[str, AwardWallet] = {}
        used: dict[str, int] = {}
        for evaluation in evaluations:
            if evaluation.outcome == "awarded":
                campaign = evaluation.campaign
                wallets[wallet_name(campaign)] = wallet_state(view.accounts.get(self._wallet(campaign)))
                for cap in self._cap_accounts(campaign):
                    account = view.accounts.get(cap.account)
                    if account is not None:
                        used[cap.account] = account.balance
        return msgspec.structs.replace(inputs, wallets=wallets, used=used)


def find_replay(request: RecordRequest, view: View, decode: Decode) -> Decision[RecordResult] | None:
    """Return the decision of an earlier run, or None when the event is new.

    Raises:
        EventReused: the id belongs to another event.
    """
    document = view.documents.get((EVENTS, request.event.id))
    if document is None:
        return None
    recorded = decode(document)
    if recorded.owner != request.owner or recorded.fingerprint != request.fingerprint:
        raise already_recorded(request.event.id)
    return Decision(value=RecordResult(recorded, replayed=True))


def with_tiers(inputs: EvaluationInputs, sets: TierSets | None, state: MemberState) -> EvaluationInputs:
    """Add what the member's tier depends on, if the programme has tiers."""
    if sets is None:
        return inputs
    assets = {tiers.asset for tiers in sets.versions}
    return msgspec.structs.replace(
        inputs,
        tier_versions=tuple(tiers.version for tiers in sets.versions),
        qualifying={asset: months for asset, months in state.qualifying.items() if asset in assets},
    )


def refunded_of(owner: str, event_id: str, view: View) -> PurchaseRefunds | None:
    document = view.documents.get((REFUNDS, f"{owner}/{event_id}"))
    return None if document is None else msgspec.convert(document, PurchaseRefunds)


def _refunds_at_arrival(event: ShopEvent, owner: str, view: View) -> PurchaseRefunds | None:
    known = refunded_of(owner, event.id, view) if event.type == PURCHASE else None
    return None if known is None else refunds_at_arrival(known, event.currency)


def inputs_of(request: RecordRequest, view: View) -> EvaluationInputs:
    return EvaluationInputs(
        judged_at=request.judged_at,
        decided_at=view.now_ms,
        engine=ENGINE,
        zone=request.calendar.zone.key,
        place=view.position,
    )


def refunded_change(outcome: EventOutcome, inputs: EvaluationInputs) -> list[DocumentChange]:
    """Return the write of the purchase's refunds, if they have changed."""
    if outcome.refunded is None:
        return []
    return [counted_change(REFUNDS, outcome.refunded, None if inputs.before is None else inputs.before.count)]


def member_state_changes(
    event: ShopEvent, before: MemberState, progress: TierProgress, outcome: EventOutcome, *, moved: bool
) -> list[DocumentChange]:
    """Return the write of the member state: a purchase, qualifying points (`moved`), an achievement, or a tier that changed with time."""
    after = progress.member_state
    if not before.owner:
        return []
    if event.type == PURCHASE and event.amount >= 0:
        after = with_purchase(after, event.occurred_at)
    elif not moved and not progress.changes and not outcome.achieved:
        return []
    if outcome.achieved:
        after = msgspec.structs.replace(after, achieved={**before.achieved, **outcome.achieved})
    return [member_state_change(before, after)]


def recorded_event(
    request: RecordRequest,
    awards: list[Award],
    outcome: EventOutcome,
    inputs: EvaluationInputs,
    *,
    tier_change: TierStep | None = None,
    releases: list[Release] | None = None,
) -> RecordedEvent:
    """Return the event as it is stored."""
    event = request.event
    return RecordedEvent(
        id=event.id,
        owner=request.owner,
        type=event.type,
        occurred_at=event.occurred_at,
        amount=event.amount,
        currency=event.currency,
        items=list(event.items),
        attributes=event.attributes,
        fingerprint=request.fingerprint,
        recorded_at=inputs.decided_at,
        recorded_by=request.actor,
        awards=awards,
        decisions=outcome.decisions,
        refund_of=event.refund_of,
        confirms=None if event.refund_of is not None or event.confirms is UNSET else event.confirms,
        releases=[] if releases is None else releases,
        note=outcome.note,
        inputs=inputs,
        tier_change=tier_change,
        preview=request.preview,
    )
