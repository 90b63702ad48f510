"""How recorded events are shown."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from guerdon.campaigns.domain import (
    REFERRERS,
    Award,
    DecisionView,
    EvaluationInputs,
    PurchaseRefunds,
    RecordedEvent,
    Release,
    Released,
    TierStep,
)
from guerdon.clock import rfc3339
from guerdon.errors import GuerdonError
from guerdon.http.respond import problem_of


class AwardView(Struct, frozen=True):
    """What a campaign paid, or took back (negative). `pending` until `available_at`; it lapses at `expires_at`."""

    campaign: str
    version: int
    asset: str
    amount: int
    status: Literal["paid", "pending", "preview"]
    transaction_id: str | None
    available_at: str | None
    expires_at: str | None
    to: Literal["referrer"] | UnsetType = UNSET
    """There where it is not the member who was paid."""
    awaits: str | UnsetType = UNSET
    """There where it waits, or has waited, for an event of this type: it has no date before that has come, and lapses without it."""
    released_by: str | UnsetType = UNSET
    """There where that event has come; shown by the purchase when it is read."""


class ReleaseView(Struct, frozen=True):
    """What an event that confirms a purchase has made spendable of one of its awards."""

    campaign: str
    version: int
    asset: str
    amount: int
    transaction_id: str | None
    expires_at: str | None
    to: Literal["referrer"] | UnsetType = UNSET


class WalletStateView(Struct, frozen=True):
    """What mattered of a wallet."""

    balance: int
    available: int
    status: str
    ceiling: int


class InputsView(Struct, frozen=True):
    """What an event was judged on besides itself and the campaigns' versions; with it the decision can be made again."""

    judged_at: str
    decided_at: str
    time_zone: str
    tier: str | None
    qualifying: dict[str, dict[str, int]]
    """By asset and month: what counted for the tier before."""
    purchases: int
    """How many the member had made before."""
    last_purchase_at: str | None
    wallets: dict[str, WalletStateView]
    used: dict[str, int]
    """By cap and budget: what was counted against it before."""
    refunded_before: int | None
    """What had been refunded of this purchase, or of the one that this refunds."""
    personal: bool
    """A campaign read the member's profile; what it could see is kept sealed, and nobody is shown it."""


class EventView(Struct, frozen=True):
    """A recorded event with its awards and every campaign's decision."""

    id: str
    member_id: str | None
    type: str
    amount: int
    currency: str | None
    refund_of: str | None
    confirms: str | None
    occurred_at: str
    recorded_at: str
    awards: list[AwardView]
    releases: list[ReleaseView]
    decisions: list[DecisionView]
    note: str | None
    """What is to be known besides the decisions."""
    engine: str | None
    """The versions that decided: of this program's judging, and of the library that evaluates conditions."""
    inputs: InputsView | None
    """What was known when it was judged; the use of budgets is nothing for members."""
    tier_change: TierStep | None
    """What the event has made of the member's tier."""


class EventResult(Struct, frozen=True, omit_defaults=True):
    """The outcome of one event of a bulk request: 201 when it was recorded, 200 when it had been before, or a problem."""

    status: int
    event: EventView | None = None
    problem: dict[str, Any] | None = None
    replayed: bool = False


class EventResults(Struct, frozen=True):
    """One result for each event, in their order."""

    results: list[EventResult]


def view_event(event: RecordedEvent, *, whole: bool, since: PurchaseRefunds | None = None) -> EventView:
    """Show an event; `whole` with the use of budgets, which is nothing for members. `since` is what has happened to it since then."""
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
        None if inputs is None else _view_inputs(inputs, event.owner, whole=whole),
        event.tier_change,
    )


def _view_inputs(inputs: EvaluationInputs, owner: str, *, whole: bool) -> InputsView:
    last = inputs.last_purchase_at
    return InputsView(
        judged_at=rfc3339(inputs.judged_at),
        decided_at=rfc3339(inputs.decided_at),
        time_zone=inputs.zone,
        tier=inputs.tier,
        qualifying=inputs.qualifying,
        purchases=inputs.purchases,
        last_purchase_at=None if last is None else rfc3339(last),
        wallets={
            asset: WalletStateView(wallet.balance, wallet.available, wallet.status, wallet.ceiling)
            for asset, wallet in inputs.wallets.items()
            if whole or not asset.startswith(REFERRERS)
        },
        used={name: amount for name, amount in inputs.used.items() if whole or name.startswith(f"{owner}:")},
        refunded_before=None if inputs.before is None else inputs.before.amount,
        personal=inputs.person is not None,
    )


def view_award(award: Award, released: Released | None = None, *, preview: bool = False) -> AwardView:
    if award.waits is None:
        released = None
    waits, lapses = award.available_at, award.expires_at if released is None else released.expires_at
    return AwardView(
        award.campaign,
        award.version,
        award.asset,
        award.amount,
        "preview" if preview else "paid" if waits is None or released is not None else "pending",
        award.transaction_id,
        None if waits is None or award.waits is not None else rfc3339(waits),
        None if lapses is None else rfc3339(lapses),
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
        None if release.expires_at is None else rfc3339(release.expires_at),
        UNSET if release.to is None else "referrer",
    )


def view_result(result: tuple[RecordedEvent, bool] | GuerdonError, *, whole: bool) -> EventResult:
    if isinstance(result, GuerdonError):
        return EventResult(result.status, problem=problem_of(result))
    event, before = result
    return EventResult(200 if before else 201, view_event(event, whole=whole), replayed=before)
