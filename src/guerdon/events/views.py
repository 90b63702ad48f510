"""Answers that show recorded events."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from guerdon.campaigns.domain import (
    REFERRERS,
    Award,
    DecisionView,
    EvaluationInputs,
    EventVoid,
    PurchaseRefunds,
    RecordedEvent,
    Release,
    Released,
    TierStep,
)
from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.errors import GuerdonError
from guerdon.http.operation import problem_of


class AwardView(Struct, frozen=True):
    """An award of a campaign, or a clawback (negative)."""

    campaign: str
    """Id of the campaign."""
    version: int
    """Number of its version."""
    asset: str
    """Asset of the award."""
    amount: int
    """Amount in minor units of `asset`; negative if it was taken back."""
    status: Literal["paid", "pending", "preview"]
    """`paid`, `pending` until `available_at` or until the awaited event, or `preview`."""
    transaction_id: str | None
    """Transaction that booked the award. Null in a preview."""
    available_at: str | None
    """Time from which a pending award can be spent, RFC 3339 in UTC. Null: at once, or unknown until the awaited event."""
    expires_at: str | None
    """Time at which the award expires, RFC 3339 in UTC. Null: never."""
    to: Literal["referrer"] | UnsetType = UNSET
    """Present if the award was paid to the member's referrer."""
    awaits: str | UnsetType = UNSET
    """Type of the event that the award waits for, or has waited for. Without it the award expires."""
    released_by: str | UnsetType = UNSET
    """Id of the event that released the award. Shown when the purchase is read."""


class ReleaseView(Struct, frozen=True):
    """A waiting award that a confirmation has released."""

    campaign: str
    """Id of the campaign."""
    version: int
    """Number of its version."""
    asset: str
    """Asset of the award."""
    amount: int
    """Released amount in minor units of `asset`."""
    transaction_id: str | None
    """Transaction that booked the release. Null in a preview."""
    expires_at: str | None
    """Time at which the released value expires, RFC 3339 in UTC. Null: never."""
    to: Literal["referrer"] | UnsetType = UNSET
    """Present if the award belongs to the member's referrer."""


class WalletStateView(Struct, frozen=True):
    """State of a wallet before the event."""

    balance: int
    """Balance in minor units of the asset."""
    available: int
    """Amount that could be taken back without a debt, in minor units."""
    status: str
    """Status of the wallet."""
    ceiling: int
    """Highest permitted balance in minor units."""


class InputsView(Struct, frozen=True):
    """Inputs of the decisions besides the event and the campaign versions."""

    judged_at: str
    """Value of `now` in conditions, RFC 3339 in UTC."""
    decided_at: str
    """Time of the commit, RFC 3339 in UTC."""
    time_zone: str
    """Time zone of the programme."""
    tier: str | None
    """Tier of the member at the time of the event. Null: no tier."""
    qualifying: dict[str, dict[str, int]]
    """By asset and month: qualifying points before the event."""
    purchases: int
    """Number of the member's purchases that were recorded before the event."""
    last_purchase_at: str | None
    """Time of the last recorded purchase at or before the time of the event, RFC 3339 in UTC. Null: none."""
    wallets: dict[str, WalletStateView]
    """By asset: wallets that the awards depended on."""
    used: dict[str, int]
    """By account of a cap or budget: amount counted against it before the event. Members see their own caps only."""
    refunded_before: int | None
    """Amount refunded earlier of the purchase, in minor units. Null: no refund was recorded."""
    personal: bool
    """True if a campaign read the member's profile. The values that it read stay sealed and are not shown."""
    segments: list[str]
    """Segments of the member at the time of the commit."""


class VoidView(Struct, frozen=True):
    """Void of an event."""

    at: str
    """Time of the void, RFC 3339 in UTC."""
    reason: str
    """Reason in the caller's words."""
    awards: list[AwardView]
    """Clawbacks."""
    decisions: list[DecisionView]
    """Decision for each award of the event."""


class EventView(Struct, frozen=True):
    """A recorded event with its awards and the decision of each campaign."""

    id: str
    """Id of the event."""
    member_id: str | None
    """Id of the member. Null in a preview of an unknown member."""
    type: str
    """Type of the event."""
    amount: int
    """Amount in minor units of `currency`."""
    currency: str | None
    """Currency of the amount. Null: none."""
    refund_of: str | None
    """Id of the purchase that the event refunds. Null: none."""
    confirms: str | None
    """Id of the purchase that the event confirms. Null: none."""
    occurred_at: str
    """Time of the event, RFC 3339 in UTC."""
    recorded_at: str
    """Time at which the event was recorded, RFC 3339 in UTC."""
    awards: list[AwardView]
    """Awards and clawbacks of the event."""
    releases: list[ReleaseView]
    """Waiting awards that the event released."""
    decisions: list[DecisionView]
    """Decision of each campaign, in the order of evaluation."""
    note: str | None
    """A remark on the event as a whole. Null: none."""
    engine: str | None
    """Version of the engine that decided, and of the library that evaluates conditions."""
    inputs: InputsView | None
    """Inputs of the decisions. Null for events of early versions."""
    tier_change: TierStep | None
    """Change of the member's tier that the event caused. Null: none."""
    status: Literal["voided"] | UnsetType = UNSET
    """Present when an event is read that was voided: what it paid was taken back as a correction."""
    voided: VoidView | UnsetType = UNSET
    """Present with `status`: the void."""


class EventResult(Struct, frozen=True, omit_defaults=True):
    """Result of one event of a bulk request."""

    status: int
    """HTTP status of this event: 201 recorded, 200 recorded before or in a dry run, or the status of `problem`."""
    event: EventView | None = None
    """The recorded event."""
    problem: dict[str, Any] | None = None
    """Problem document of an event that was refused."""
    replayed: bool = False
    """True if the event was recorded before."""


class EventResults(Struct, frozen=True):
    """Results of a bulk request."""

    results: list[EventResult]
    """One result for each event, in the order of the request."""


def view_event(event: RecordedEvent, *, whole: bool, since: PurchaseRefunds | None = None) -> EventView:
    """Return the view of an event. `whole` includes the use of budgets, which members do not see; `since` has later releases and the void."""
    voided = None if since is None else since.voided
    inputs = event.inputs
    released = {} if since is None else since.released
    return EventView(
        event.id,
        event.owner or None,
        event.type,
        event.amount,
        event.currency or None,
        event.refund_of,
        event.confirms,
        rfc3339(event.occurred_at),
        rfc3339(event.recorded_at),
        [view_award(award, released.get(award.campaign), preview=event.preview) for award in event.awards],
        [view_release(release) for release in event.releases],
        event.decisions,
        event.note,
        None if inputs is None else inputs.engine or None,
        None if inputs is None else _view_inputs(inputs, event, whole=whole),
        event.tier_change,
        UNSET if voided is None else "voided",
        UNSET if voided is None else view_void(voided),
    )


def view_void(voided: EventVoid) -> VoidView:
    return VoidView(rfc3339(voided.at), voided.reason, [view_award(award) for award in voided.awards], voided.decisions)


def _view_inputs(inputs: EvaluationInputs, event: RecordedEvent, *, whole: bool) -> InputsView:
    before = inputs.before
    refunded = None if before is None else before.amount
    if before is not None and inputs.awaits and event.currency in before.early:
        refunded = before.amount + before.early[event.currency].amount
    return InputsView(
        judged_at=rfc3339(inputs.judged_at),
        decided_at=rfc3339(inputs.decided_at),
        time_zone=inputs.zone,
        tier=inputs.tier,
        qualifying=inputs.qualifying,
        purchases=inputs.purchases,
        last_purchase_at=optional_rfc3339(inputs.last_purchase_at),
        wallets={
            asset: WalletStateView(wallet.balance, wallet.available, wallet.status, wallet.ceiling)
            for asset, wallet in inputs.wallets.items()
            if whole or not asset.startswith(REFERRERS)
        },
        used={name: amount for name, amount in inputs.used.items() if whole or name.startswith(f"{event.owner}:")},
        refunded_before=refunded,
        personal=inputs.person is not None,
        segments=list(inputs.segments),
    )


def view_award(award: Award, released: Released | None = None, *, preview: bool = False) -> AwardView:
    if award.waits is None:
        released = None
    available_at, expires_at = award.available_at, award.expires_at if released is None else released.expires_at
    return AwardView(
        award.campaign,
        award.version,
        award.asset,
        award.amount,
        "preview" if preview else "paid" if available_at is None or released is not None else "pending",
        award.transaction_id,
        None if available_at is None or award.waits is not None else rfc3339(available_at),
        optional_rfc3339(expires_at),
        UNSET if award.to is None else "referrer",
        UNSET if award.waits is None else award.waits.event_type,
        UNSET if released is None else released.event,
    )


def view_release(release: Release) -> ReleaseView:
    return ReleaseView(
        release.campaign,
        release.version,
        release.asset,
        release.amount,
        release.transaction_id,
        optional_rfc3339(release.expires_at),
        UNSET if release.to is None else "referrer",
    )


def view_result(result: tuple[RecordedEvent, bool] | GuerdonError, *, whole: bool, dry_run: bool = False) -> EventResult:
    if isinstance(result, GuerdonError):
        return EventResult(result.status, problem=problem_of(result))
    event, before = result
    return EventResult(200 if before or dry_run else 201, view_event(event, whole=whole), replayed=before)
