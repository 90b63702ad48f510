"""Evaluation of an event by each campaign, before balances, caps and budgets. Pure: the time is an argument."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.achievements import Step, step
from guerdon.campaigns.award_types import award_amount, formula_of, reads_money, refunded_share
from guerdon.campaigns.birthdays import NO_BIRTHDAY, birthday_on
from guerdon.campaigns.cel import Condition, Formula, compile_condition, compile_formula, facts_of
from guerdon.campaigns.cel_cost import COMMIT_US_MAX, CONDITION_US_MAX, ITEMS_SURE
from guerdon.campaigns.domain import PURCHASE, REFUND, AchievementProgress, EvaluationInputs, Refundable, ShopEvent
from guerdon.campaigns.line_items import chosen, cost_of
from guerdon.campaigns.models import Achievement, Campaign
from guerdon.campaigns.periods import is_open, local_date
from guerdon.clock import rfc3339
from guerdon.members.models import BIRTHDAY
from guerdon.money import is_currency
from guerdon.proofs import content_digest

MONETARY = (PURCHASE, REFUND)
"""Event types that have an amount."""
DAY_MS = 86_400_000


class LiveCampaign(Struct, frozen=True, dict=True):
    """A version of a campaign with its expressions compiled."""

    campaign: Campaign
    audience: Condition
    condition: Condition
    formula: Formula | None
    reads_member: bool
    """True if an expression reads the member's sealed profile."""
    reads_member_state: bool
    """True if the evaluation depends on earlier events of the member. It then takes place in the commit."""
    turns_money: str | None
    """Currency of the award, if the award is money and is computed from money."""
    bounded_cost_us: float
    """Maximum cost on an event of up to `ITEMS_SURE` items, in microseconds; 0 for a campaign that was saved before costs were bounded."""

    @classmethod
    def of(cls, campaign: Campaign) -> "LiveCampaign":
        expression = formula_of(campaign.award)
        audience = compile_condition(campaign.audience, "/audience")
        condition = compile_condition(campaign.condition, "/condition")
        formula = None if expression is None else compile_formula(expression, "/award/expression")
        parts = [part for part in (audience, condition, formula) if part is not None]
        return cls(
            campaign,
            audience,
            condition,
            formula,
            reads_member=any(part.reads_member for part in parts),
            reads_member_state=bool(campaign.tier_multipliers)
            or campaign.achievement is not None
            or campaign.pays == "referrer"
            or any(part.reads_member_state for part in parts),
            turns_money=campaign.asset if is_currency(campaign.asset) and reads_money(campaign.award, formula) else None,
            bounded_cost_us=sum(part.cost_us(ITEMS_SURE) for part in parts) if campaign.bounded else 0,
        )

    @cached_property
    def digest(self) -> str:
        """Digest of the content of the version, as it is used."""
        return content_digest(self.campaign)

    def cost_us(self, items: int) -> float:
        """Return the maximum cost on an event with this number of items, in microseconds."""
        if items <= ITEMS_SURE or not self.campaign.bounded:
            return self.bounded_cost_us
        return sum(part.cost_us(items) for part in (self.audience, self.condition, self.formula) if part is not None)


class Evaluation(Struct, frozen=True):
    """Result of one campaign for one event. `amount` is positive; an unlinked refund takes it back."""

    campaign: Campaign
    outcome: Literal["awarded", "refused", "not_matched"]
    amount: int
    reason: str
    considered: bool = False
    """True if the conditions held. The member's wallet is then opened, even if the event earns nothing."""
    step: Step | None = None
    """Progress that the event makes in the campaign's achievement."""


class Subject(Struct, frozen=True):
    """The member of an event, as conditions read it. `id` is None in a preview of an unknown member."""

    id: str | None
    external_id: str | None = None
    attributes: dict[str, Any] = {}
    sealed: bytes | None = None
    """The profile sealed under the member's own key, kept with the decision. None if no campaign reads it."""
    unproven: bool = False
    """True if the member's existence has not been checked. The commit checks it."""


def reads_member(event: ShopEvent, campaigns: Sequence[LiveCampaign], calendar: Calendar) -> bool:
    """Return whether a campaign that evaluates the event reads the member's sealed profile."""
    return any(live.reads_member and _inactive_reason(event, live.campaign, calendar) is None for live in campaigns)


def reads_referrer(event: ShopEvent, campaigns: Sequence[LiveCampaign], calendar: Calendar) -> bool:
    """Return whether a campaign that evaluates the event pays the member's referrer."""
    return any(live.campaign.pays == "referrer" and _inactive_reason(event, live.campaign, calendar) is None for live in campaigns)


def sort_by_priority(campaigns: Sequence[LiveCampaign]) -> list[LiveCampaign]:
    """Return campaigns in the order in which they are evaluated and paid: by priority, the highest first, then by id, the oldest first."""
    return sorted(campaigns, key=lambda live: (-live.campaign.stacking.priority, live.campaign.id))


def evaluate(
    event: ShopEvent, subject: Subject, campaigns: Sequence[LiveCampaign], inputs: EvaluationInputs, calendar: Calendar
) -> list[Evaluation]:
    """Evaluate an event by campaigns, in their order, on the member state in `inputs`."""
    evaluator = Evaluator(event, subject, inputs, calendar)
    return [evaluator.evaluate(live) for live in campaigns]


class Evaluator:
    """Evaluates one event by one campaign after another."""

    def __init__(self, event: ShopEvent, subject: Subject, inputs: EvaluationInputs, calendar: Calendar) -> None:
        self._event = event
        self._subject = subject
        self._inputs = inputs
        self._calendar = calendar
        self._facts: Any = None
        self._in_commit_us = 0.0

    def evaluate(self, live: LiveCampaign) -> Evaluation:
        """Return the campaign's result for the event."""
        event, inputs = self._event, self._inputs
        inactive = _inactive_reason(event, live.campaign, self._calendar)
        if inactive is not None:
            return Evaluation(live.campaign, "not_matched", 0, inactive)
        if live.turns_money is not None and event.currency and event.currency != live.turns_money:
            reason = f"the award is a part of an amount in {live.turns_money}; the event is in {event.currency}"
            return Evaluation(live.campaign, "not_matched", 0, reason)
        if (live.reads_member_state or len(event.items) > ITEMS_SURE) and self._takes_too_long(live):
            reason = f"its conditions could take too long on an event of {len(event.items)} items"
            return Evaluation(live.campaign, "refused", 0, reason)
        if self._facts is None:
            member = member_facts(self._subject, event, inputs, self._calendar)
            self._facts = facts_of(_event_facts(event), member, inputs.judged_at)
        evaluation = _evaluate_one(event, live, self._facts, inputs)
        if live.campaign.achievement is not None and evaluation.outcome == "awarded":
            evaluation = _count(event, evaluation, live.campaign.achievement, inputs, self._calendar)
        return evaluation

    def _takes_too_long(self, live: LiveCampaign) -> bool:
        """Return whether the campaign alone, or together with the others in the commit, could block the process for too long.

        A campaign that does not read the member state was checked for events of up to `ITEMS_SURE` items when it was saved.
        """
        cost = live.cost_us(len(self._event.items))
        if cost > CONDITION_US_MAX or not live.reads_member_state:
            return cost > CONDITION_US_MAX
        self._in_commit_us += cost
        return self._in_commit_us > COMMIT_US_MAX


def _inactive_reason(event: ShopEvent, campaign: Campaign, calendar: Calendar) -> str | None:
    """Return why the campaign does not evaluate an event of this type and time, or None if it does."""
    if event.type not in campaign.event_types:
        return f"a {event.type} is not one of {', '.join(campaign.event_types)}"
    if campaign.starts_at is not None and event.occurred_at < campaign.starts_at:
        return f"the event is before the campaign's start, {rfc3339(campaign.starts_at)}"
    if campaign.ends_at is not None and event.occurred_at >= campaign.ends_at:
        return f"the event is not before the campaign's end, {rfc3339(campaign.ends_at)}"
    if campaign.schedule is not None and not is_open(campaign.schedule, event.occurred_at, calendar):
        return f"the event is outside of the campaign's hours ({calendar.zone.key})"
    return None


def _evaluate_one(event: ShopEvent, live: LiveCampaign, facts: Any, inputs: EvaluationInputs) -> Evaluation:
    campaign = live.campaign
    if campaign.pays == "referrer" and inputs.referrer is None:
        return Evaluation(campaign, "not_matched", 0, "nobody has referred the member")
    for name, condition in (("audience", live.audience), ("condition", live.condition)):
        holds, error = condition.evaluate(facts)
        if error is not None:
            return Evaluation(campaign, "refused", 0, f"the {name} could not be evaluated: {error}")
        if not holds:
            return Evaluation(campaign, "not_matched", 0, f"the {name} is false: {condition.source[:200]}")
    if event.amount < 0 or (event.type == REFUND and event.amount == 0):
        return Evaluation(campaign, "not_matched", 0, f"the amount {event.amount} earns nothing", considered=True)
    base, share = event.amount, ""
    if campaign.items is not None:
        lines = chosen(event.items, campaign.items)
        if not lines:
            return Evaluation(campaign, "not_matched", 0, "none of its items is one of the campaign's")
        base = min(cost_of(lines), event.amount)
        share = f"{base} of {event.amount} is of the campaign's items; "
    amount, reason = award_amount(campaign, live.formula, base, inputs.tier, facts)
    reason = share + reason
    if amount is None:
        return Evaluation(campaign, "refused", 0, reason, considered=True)
    return Evaluation(campaign, "awarded" if amount else "not_matched", amount, reason, considered=True)


def _count(
    event: ShopEvent, evaluation: Evaluation, achievement: Achievement, inputs: EvaluationInputs, calendar: Calendar
) -> Evaluation:
    """Count an event towards the campaign's achievement; it earns the award only if it completes the goal."""
    purchase = Refundable(event.amount, (), event.items)
    if inputs.before is not None and event.amount >= 0 and 2 * refunded_share(inputs.before, purchase) >= 1:
        return msgspec.structs.replace(
            evaluation, outcome="not_matched", amount=0, reason="half of it was refunded before it arrived"
        )
    progress = inputs.achieved.get(evaluation.campaign.id, AchievementProgress())
    taken = step(progress, achievement, event.id, local_date(event.occurred_at, calendar))
    if taken.completed:
        return msgspec.structs.replace(evaluation, reason=f"{taken.reason}; {evaluation.reason}", step=taken)
    return msgspec.structs.replace(evaluation, outcome="not_matched", amount=0, reason=taken.reason, step=taken)


def _event_facts(event: ShopEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "amount": event.amount,
        "currency": event.currency,
        "items": [
            {
                "sku": item.sku,
                # CEL has no decimals. Conditions compare the nearest double; amounts are computed from the exact quantity.
                "quantity": item.quantity if isinstance(item.quantity, int) else float(item.quantity),
                "unit_price": item.unit_price,
                "category": item.category or "",
            }
            for item in event.items
        ],
        "attributes": event.attributes,
        "occurred_at": rfc3339(event.occurred_at),
    }


def member_facts(subject: Subject, event: ShopEvent, inputs: EvaluationInputs, calendar: Calendar) -> dict[str, Any]:
    """Return what conditions read of the member at the time of an event."""
    last = inputs.last_purchase_at
    birthday = NO_BIRTHDAY
    if BIRTHDAY in subject.attributes:
        birthday = birthday_on(local_date(event.occurred_at, calendar), subject.attributes[BIRTHDAY])
    return {
        "id": subject.id or "",
        "external_id": subject.external_id or "",
        "attributes": subject.attributes,
        "birthday_today": birthday.today,
        "birthday_month": birthday.month,
        "referred": inputs.referrer is not None,
        "tier": inputs.tier or "",
        "segments": list(inputs.segments),
        "first_purchase": event.type == PURCHASE and inputs.purchases == 0,
        "days_since_last": -1 if last is None else max(0, (event.occurred_at - last) // DAY_MS),
    }
