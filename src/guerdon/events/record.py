"""Recording an event as a command for the ledger: judged and paid in the commit that records it. Pure: time and ids are arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.allocation import Allocation, payee, wallet_name, wallet_state
from guerdon.campaigns.caps import CapAccount, cap_accounts
from guerdon.campaigns.domain import (
    EVENTS,
    PURCHASE,
    REFUNDS,
    AchievementProgress,
    Award,
    EvaluationInputs,
    MemberState,
    PurchaseRefunds,
    RecordedEvent,
    Release,
    ShopEvent,
    TierStep,
)
from guerdon.campaigns.engine import ENGINE
from guerdon.campaigns.evaluation import Evaluation, LiveCampaign, Subject, evaluate, reads_referrer
from guerdon.campaigns.models import Campaign
from guerdon.campaigns.outcome import EventOutcome, award_of, clawback_award, event_outcome
from guerdon.campaigns.refunds import AwardClawback
from guerdon.errors import EventReused, NotFound, Retry
from guerdon.ledger.models import (
    COUNTED,
    ISSUER,
    Account,
    Command,
    Confirmation,
    Decision,
    DocumentChange,
    DocumentRef,
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
from guerdon.tiers.models import TierSet, TierSets
from guerdon.tiers.rules import TierProgress, advance, gains_of, tier_at

EVENT_BYTES, ITEM_BYTES, ASKED_BYTES, AWARD_BYTES = 3072, 160, 512, 2048
Encode = Callable[[RecordedEvent], dict[str, Any]]
Decode = Callable[[dict[str, Any]], RecordedEvent]
OpenWallet = Callable[[str, str, int], Account]


class RecordRequest(Struct, frozen=True):
    """Everything that is needed to record one event. `campaigns` are in their order."""

    event: ShopEvent
    subject: Subject
    actor: str
    fingerprint: bytes
    campaigns: Sequence[LiveCampaign]
    judged_at: int
    calendar: Calendar
    original: RecordedEvent | None = None
    """The purchase that a linked refund or a confirmation is about, if it is recorded."""
    referrer: str | None = None
    """Who has referred the member, as far as somebody asks."""
    achieved: Mapping[str, AchievementProgress] = {}
    """What the purchase of a refund counts for."""
    preview: bool = False
    evaluated_before: Mapping[str, Evaluation] | None = None
    """By campaign: what those want that were judged before, for an event that takes its time."""

    @property
    def owner(self) -> str:
        return self.subject.id or ""


class EventCodec(Struct, frozen=True):
    """How recorded events are written and read."""

    encode: Encode
    decode: Decode


class RecordResult(Struct, frozen=True):
    """What the command answers: the event, and whether it was recorded before."""

    event: RecordedEvent
    replayed: bool


def already_recorded(event_id: str) -> EventReused:
    return EventReused(f"event {event_id!r} is already recorded with other content")


class PostingBuilder:
    """Collects what one event writes on accounts, each change on the state that the ones before it leave."""

    def __init__(self, recording: RecordRequest, view: View, open_wallet: OpenWallet) -> None:
        self._recording = recording
        self._view = view
        self._open_wallet = open_wallet
        self._moved: dict[str, Account] = {}
        self.opens: dict[str, Account] = {}
        self.transactions: list[Transaction] = []

    def wallet(self, asset: str, to: str | None = None) -> Account:
        owner = to or self._recording.owner
        return self._account(f"{owner}:{asset}", lambda: self._open_wallet(owner, asset, self._view.now_ms))

    def pay(self, verdict: Allocation) -> Award:
        """Book what a campaign pays, or takes back."""
        campaign, amount = verdict.campaign, verdict.amount
        wallet = self.wallet(campaign.asset, verdict.to)
        counted = [(self._account(each.account, _opening(each, self._view.now_ms)), amount) for each in verdict.counters]
        posting = Posting(
            wallet.id,
            amount,
            ISSUER,
            lots=() if verdict.lot is None else (msgspec.structs.replace(verdict.lot, amount=amount),),
            below_minimum=amount < 0 and campaign.clawback == "debt",
        )
        return award_of(verdict, self._book(posting, counted, campaign.id, campaign.version))

    def take_back(self, taken: AwardClawback) -> Award:
        """Book what a refund takes back of one award."""
        award = taken.award
        wallet = self.wallet(award.asset, award.to)
        counted = [(account, -taken.amount) for name in award.counted if (account := self._known(name)) is not None]
        posting = Posting(wallet.id, -taken.amount, ISSUER, lots=(taken.lot,), below_minimum=award.clawback == "debt")
        return clawback_award(taken, self._book(posting, counted, award.campaign, award.version))

    def release(self, release: Release, waiting: Award) -> Release:
        """Make spendable what has waited."""
        wallet = self.wallet(release.asset, release.to)
        lot = Lot(release.amount, "promotional", waiting.available_at, waiting.expires_at)
        posting = Posting(wallet.id, 0, ISSUER, confirms=Confirmation(lot, release.expires_at))
        self._append("confirmation", (posting,), release.campaign, release.version)
        self._move(wallet, 0)
        named = None if self._recording.preview else transaction_id(wallet.id, wallet.seq + 1)
        return msgspec.structs.replace(release, transaction_id=named)

    def _book(self, posting: Posting, counted: Sequence[tuple[Account, int]], campaign: str, version: int) -> str | None:
        wallet = self._current(posting.account)
        self._move(wallet, posting.amount)
        postings = [posting]
        for account, change in counted:
            there = self._current(account.id) if account.id in self._moved else account
            # What was counted by nobody cannot be given back.
            moves = max(change, -there.balance)
            if moves:
                postings.append(Posting(there.id, moves, COUNTED))
                self._move(there, moves)
        self._append("award" if posting.amount > 0 else "clawback", tuple(postings), campaign, version)
        return None if self._recording.preview else transaction_id(wallet.id, wallet.seq + 1)

    def _append(self, kind: str, postings: tuple[Posting, ...], campaign: str, version: int) -> None:
        metadata = {"event": self._recording.event.id, "campaign": campaign, "version": str(version)}
        self.transactions.append(Transaction(kind, postings, self._recording.actor, metadata=metadata))

    def _account(self, name: str, opened: Callable[[], Account]) -> Account:
        known = self._known(name)
        if known is None:
            known = self.opens[name] = opened()
        return known

    def _known(self, name: str) -> Account | None:
        """The account as it is now, though this very event may have opened it."""
        return self._moved.get(name) or self._view.accounts.get(name) or self.opens.get(name)

    def _current(self, name: str) -> Account:
        return self._moved.get(name) or self._view.accounts.get(name) or self.opens[name]

    def _move(self, account: Account, amount: int) -> None:
        self._moved[account.id] = msgspec.structs.replace(account, balance=account.balance + amount, seq=account.seq + 1)


def _opening(counter: CapAccount, now_ms: int) -> Callable[[], Account]:
    return lambda: counter.opened(now_ms)


class EventRule:
    """An event that campaigns judge."""

    def __init__(self, recording: RecordRequest, open_wallet: OpenWallet, stored: EventCodec) -> None:
        self._recording = recording
        self._open_wallet = open_wallet
        self._stored = stored
        if recording.evaluated_before is None:
            early = [live for live in recording.campaigns if not live.reads_member_state]
            self._early = {each.campaign.id: each for each in self._judge(early, EvaluationInputs(judged_at=recording.judged_at))}
        else:
            self._early = dict(recording.evaluated_before)
        self._late = [live for live in recording.campaigns if live.reads_member_state]
        self._counted: dict[str, list[CapAccount]] = {}

    def command(self) -> Command[RecordResult]:
        recording, event = self._recording, self._recording.event
        wanted = [each.campaign for each in self._early.values() if each.outcome == "awarded"]
        wanted += [live.campaign for live in self._late if event.type in live.campaign.event_types]
        if recording.referrer is None:
            wanted = [each for each in wanted if each.pays == "member"]
        wallets = {self._wallet(each.campaign) for each in self._early.values() if each.considered}
        wallets |= {self._wallet(each) for each in wanted}
        counters = [counter for each in wanted for counter in self._counters(each)]
        documents = [DocumentRef(EVENTS, event.id, recording.owner), TIERS_REF]
        if recording.owner:
            documents.append(member_state_ref(recording.owner))
        if recording.subject.unproven:
            documents.append(DocumentRef(MEMBERS, recording.owner, recording.owner))
        if event.type == PURCHASE:
            documents.append(DocumentRef(REFUNDS, f"{recording.owner}/{event.id}", recording.owner))
        return Command(
            owners=tuple({recording.owner, *map(owner_of, wallets), *(counter.owner for counter in counters)}),
            accounts=(
                *sorted(wallets),
                *(counter.account for counter in counters),
                member_state_lock(recording.owner),
            ),
            decide=self._decide,
            documents=tuple(documents),
            size_bytes=EVENT_BYTES
            + ITEM_BYTES * len(event.items)
            + ASKED_BYTES * len(recording.campaigns)
            + AWARD_BYTES * len(wanted),
        )

    def _counters(self, campaign: Campaign) -> list[CapAccount]:
        counters = self._counted.get(campaign.id)
        if counters is None:
            recording = self._recording
            to = payee(campaign, recording.owner, recording.referrer)
            counters = self._counted[campaign.id] = cap_accounts(campaign, to, recording.event.occurred_at, recording.calendar)
        return counters

    def _wallet(self, campaign: Campaign) -> str:
        return f"{payee(campaign, self._recording.owner, self._recording.referrer)}:{campaign.asset}"

    def _judge(self, campaigns: Sequence[LiveCampaign], inputs: EvaluationInputs) -> list[Evaluation]:
        return evaluate(self._recording.event, self._recording.subject, campaigns, inputs, self._recording.calendar)

    def _decide(self, view: View) -> Decision[RecordResult]:
        recording, event = self._recording, self._recording.event
        if recording.subject.unproven and (MEMBERS, recording.owner) not in view.documents:
            raise NotFound(NO_MEMBER)
        recalled = find_replay(recording, view, self._stored.decode)
        if recalled is not None:
            return recalled
        standing, sets = member_state_of(recording.owner, view), tiers_of(view)
        if standing.referrer != recording.referrer and reads_referrer(event, self._late, recording.calendar):
            raise Retry
        inputs = msgspec.structs.replace(
            with_tiers(inputs_of(recording, view), sets, standing),
            tier=tier_at(_versions(sets), standing.qualifying, event.occurred_at, recording.calendar),
            purchases=standing.purchases,
            last_purchase_at=standing.last_purchase_at,
            referrer=standing.referrer,
            achieved=self._achieved(standing),
            person=recording.subject.sealed,
            before=refunded_of(recording.owner, event.id, view) if event.type == PURCHASE else None,
        )
        late = {each.campaign.id: each for each in self._judge(self._late, inputs)}
        judgements = [late.get(live.campaign.id) or self._early[live.campaign.id] for live in recording.campaigns]
        inputs = self._with_accounts(inputs, judgements, view)
        settled = event_outcome(event, recording.owner, judgements, inputs, recording.calendar)
        books = PostingBuilder(recording, view, self._open_wallet)
        for judgement in judgements:
            if judgement.considered and judgement.campaign.pays == "member":
                books.wallet(judgement.campaign.asset)
        awards = [books.pay(verdict) for verdict in settled.allocations if verdict.amount]
        awards += [books.take_back(taken) for taken in settled.taken]
        changes = refunded_change(settled, inputs)
        gains = gains_of(event, settled, inputs)
        progress = advance(sets, standing, gains, event.id, now_ms=view.now_ms, calendar=recording.calendar)
        changes += member_state_changes(event, standing, progress, settled, moved=bool(gains))
        recorded = recorded_event(recording, awards, settled, inputs, tier_change=tier_step(progress, event.id))
        return Decision(
            tuple(books.transactions),
            tuple(books.opens.values()),
            ((EVENTS, self._stored.encode(recorded)), *history_of(progress)),
            tuple(changes),
            value=RecordResult(recorded, replayed=False),
        )

    def _achieved(self, standing: MemberState) -> dict[str, AchievementProgress]:
        """How far the member is with the achievements of campaigns that are asked."""
        asked = [live.campaign for live in self._late if live.campaign.achievement is not None]
        return {
            campaign.id: state
            for campaign in asked
            if self._recording.event.type in campaign.event_types and (state := standing.achieved.get(campaign.id)) is not None
        }

    def _with_accounts(self, inputs: EvaluationInputs, judgements: Sequence[Evaluation], view: View) -> EvaluationInputs:
        """Add what the awards in question depend on of wallets, caps and budgets."""
        awarded = [each.campaign for each in judgements if each.outcome == "awarded"]
        names = [counter.account for campaign in awarded for counter in self._counters(campaign)]
        return msgspec.structs.replace(
            inputs,
            wallets={wallet_name(each): wallet_state(view.accounts.get(self._wallet(each))) for each in awarded},
            used={name: account.balance for name in names if (account := view.accounts.get(name)) is not None},
        )


def find_replay(recording: RecordRequest, view: View, decode: Decode) -> Decision[RecordResult] | None:
    """Return the answer of an earlier run, or None when the event is new.

    Raises:
        EventReused: the id belongs to another event.
    """
    earlier = view.documents.get((EVENTS, recording.event.id))
    if earlier is None:
        return None
    stored = decode(earlier)
    if stored.owner != recording.owner or stored.fingerprint != recording.fingerprint:
        raise already_recorded(recording.event.id)
    return Decision(value=RecordResult(stored, replayed=True))


def _versions(sets: TierSets | None) -> tuple[TierSet, ...]:
    return () if sets is None else sets.versions


def with_tiers(inputs: EvaluationInputs, sets: TierSets | None, standing: MemberState) -> EvaluationInputs:
    """Add what the member's tier depends on, where there are tiers."""
    versions = _versions(sets)
    assets = {tiers.asset for tiers in versions}
    return msgspec.structs.replace(
        inputs,
        tier_versions=tuple(tiers.version for tiers in versions),
        qualifying={asset: months for asset, months in standing.qualifying.items() if asset in assets},
    )


def refunded_of(owner: str, event_id: str, view: View) -> PurchaseRefunds | None:
    document = view.documents.get((REFUNDS, f"{owner}/{event_id}"))
    return None if document is None else msgspec.convert(document, PurchaseRefunds)


def inputs_of(recording: RecordRequest, view: View) -> EvaluationInputs:
    return EvaluationInputs(
        judged_at=recording.judged_at,
        decided_at=view.now_ms,
        engine=ENGINE,
        zone=recording.calendar.zone.key,
        place=view.position,
    )


def refunded_change(settled: EventOutcome, inputs: EvaluationInputs) -> list[DocumentChange]:
    """Write what has been refunded of a purchase, where that has changed."""
    if settled.refunded is None:
        return []
    return [counted_change(REFUNDS, settled.refunded, None if inputs.before is None else inputs.before.count)]


def owner_of(account: str) -> str:
    return account.rpartition(":")[0]


def member_state_changes(
    event: ShopEvent, before: MemberState, progress: TierProgress, settled: EventOutcome, *, moved: bool
) -> list[DocumentChange]:
    """What is written of the standing: a purchase, points for the tier, an achievement, or a tier that has changed by itself."""
    after = progress.standing
    if not before.owner:
        return []
    if event.type == PURCHASE and event.amount > 0:
        last = max(event.occurred_at, before.last_purchase_at or event.occurred_at)
        after = msgspec.structs.replace(after, purchases=before.purchases + 1, last_purchase_at=last)
    elif not moved and not progress.changes and not settled.achieved:
        return []
    if settled.achieved:
        after = msgspec.structs.replace(after, achieved={**before.achieved, **settled.achieved})
    return [member_state_change(before, after)]


def recorded_event(
    recording: RecordRequest,
    awards: list[Award],
    settled: EventOutcome,
    inputs: EvaluationInputs,
    *,
    tier_change: TierStep | None = None,
    releases: list[Release] | None = None,
) -> RecordedEvent:
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
        recorded_at=inputs.decided_at,
        recorded_by=recording.actor,
        awards=awards,
        decisions=settled.decisions,
        refund_of=event.refund_of,
        confirms=None if event.refund_of is not None else event.about,
        releases=[] if releases is None else releases,
        note=settled.note,
        inputs=inputs,
        tier_change=tier_change,
        preview=recording.preview,
    )
