"""What each campaign wants for an event, before any balance, cap or budget is looked at. Pure: the time is an argument."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.achievements import Step, step
from guerdon.campaigns.award_amounts import award_amount
from guerdon.campaigns.birthdays import BIRTHDAY, birthday_on
from guerdon.campaigns.cel import Condition, Formula, compile_condition, compile_formula, facts_of
from guerdon.campaigns.cel_cost import CONDITION_US_MAX, ITEMS_SURE, STANDING_US_MAX
from guerdon.campaigns.domain import PURCHASE, REFUND, AchievementProgress, EvaluationInputs, ShopEvent
from guerdon.campaigns.line_items import chosen, cost_of
from guerdon.campaigns.models import Achievement, Campaign, FormulaAward
from guerdon.campaigns.periods import is_open, local_date
from guerdon.clock import rfc3339

MONETARY = (PURCHASE, REFUND)
"""Events of these types are about an amount, and earn nothing without one."""
DAY_MS = 86_400_000


class LiveCampaign(Struct, frozen=True):
    """A campaign's version with its expressions compiled."""

    campaign: Campaign
    audience: Condition
    condition: Condition
    formula: Formula | None
    reads_member: bool
    """Whether it asks for what only the member's sealed profile tells."""
    reads_member_state: bool
    """Whether it asks for what earlier events have made of the member: then it is judged in the commit."""
    bounded_cost_us: float
    """What it takes at most on an event of up to `ITEMS_SURE` items; nothing where nobody has bounded it."""

    @classmethod
    def of(cls, campaign: Campaign) -> "LiveCampaign":
        award = campaign.award
        audience = compile_condition(campaign.audience, "/audience")
        condition = compile_condition(campaign.condition, "/condition")
        formula = compile_formula(award.expression, "/award/expression") if isinstance(award, FormulaAward) else None
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
            or any(part.reads_standing for part in parts),
            bounded_cost_us=sum(part.cost_us(ITEMS_SURE) for part in parts) if campaign.bounded else 0,
        )

    def cost_us(self, items: int) -> float:
        """What it takes at most on an event of so many items."""
        if items <= ITEMS_SURE or not self.campaign.bounded:
            return self.bounded_cost_us
        return sum(part.cost_us(items) for part in (self.audience, self.condition, self.formula) if part is not None)


class Evaluation(Struct, frozen=True):
    """What a campaign wants. `amount` is positive; an unlinked refund takes it back."""

    campaign: Campaign
    outcome: Literal["awarded", "refused", "not_matched"]
    amount: int
    reason: str
    considered: bool = False
    """True when the campaign's conditions held: then the member's wallet is opened even if the event earns nothing."""
    step: Step | None = None
    """What the event is to the campaign's achievement."""


class Subject(Struct, frozen=True):
    """The member an event belongs to, as conditions see them. `id` is None for a preview of somebody unknown."""

    id: str | None
    external_id: str | None = None
    attributes: dict[str, Any] = {}
    sealed: bytes | None = None
    """The same under the member's own key, to be kept with the decision; None when nobody reads it."""
    unproven: bool = False
    """Nobody has looked yet whether there is such a member: the commit does."""


def reads_member(event: ShopEvent, campaigns: Sequence[LiveCampaign], calendar: Calendar) -> bool:
    """Whether a campaign that will be asked about the event reads what only the member's sealed profile tells."""
    return any(live.reads_member and _inactive_reason(event, live.campaign, calendar) is None for live in campaigns)


def reads_referrer(event: ShopEvent, campaigns: Sequence[LiveCampaign], calendar: Calendar) -> bool:
    """Whether a campaign that will be asked about the event pays whoever has referred the member."""
    return any(live.campaign.pays == "referrer" and _inactive_reason(event, live.campaign, calendar) is None for live in campaigns)


def sort_by_priority(campaigns: Sequence[LiveCampaign]) -> list[LiveCampaign]:
    """The order in which campaigns are asked and paid: the higher priority first, then the older id."""
    return sorted(campaigns, key=lambda live: (-live.campaign.stacking.priority, live.campaign.id))


def evaluate(
    event: ShopEvent, subject: Subject, campaigns: Sequence[LiveCampaign], inputs: EvaluationInputs, calendar: Calendar
) -> list[Evaluation]:
    """Ask the campaigns, in their order, by what `inputs` says of the member's standing."""
    judging = Evaluator(event, subject, inputs, calendar)
    return [judging.evaluate(live) for live in campaigns]


class Evaluator:
    """Asks one campaign after another about one event."""

    def __init__(self, event: ShopEvent, subject: Subject, inputs: EvaluationInputs, calendar: Calendar) -> None:
        self._event = event
        self._subject = subject
        self._inputs = inputs
        self._calendar = calendar
        self._facts: Any = None
        self._in_commit_us = 0.0

    def evaluate(self, live: LiveCampaign) -> Evaluation:
        """What the campaign wants for the event."""
        event, inputs = self._event, self._inputs
        why_not = _inactive_reason(event, live.campaign, self._calendar)
        if why_not is not None:
            return Evaluation(live.campaign, "not_matched", 0, why_not)
        if self._takes_too_long(live):
            why = f"its conditions could take too long on an event of {len(event.items)} items"
            return Evaluation(live.campaign, "refused", 0, why)
        if self._facts is None:
            member = member_facts(self._subject, event, inputs, self._calendar)
            self._facts = facts_of(_event_facts(event), member, inputs.judged_at)
        judgement = _evaluate_one(event, live, self._facts, inputs)
        if live.campaign.achievement is not None and judgement.outcome == "awarded":
            judgement = _count(event, judgement, live.campaign.achievement, inputs, self._calendar)
        return judgement

    def _takes_too_long(self, live: LiveCampaign) -> bool:
        """Whether the campaign alone, or with the others that are asked in the commit, would hold up everybody else."""
        items = len(self._event.items)
        if items <= ITEMS_SURE and not live.reads_member_state:
            return False  # It was looked at when it was saved.
        cost = live.cost_us(items)
        if cost > CONDITION_US_MAX or not live.reads_member_state:
            return cost > CONDITION_US_MAX
        self._in_commit_us += cost
        return self._in_commit_us > STANDING_US_MAX


def _inactive_reason(event: ShopEvent, campaign: Campaign, calendar: Calendar) -> str | None:
    """Say why the campaign is not about events of this type and time, or None when it is."""
    if event.type not in campaign.event_types:
        return f"a {event.type} is not one of {', '.join(campaign.event_types)}"
    if campaign.starts_at is not None and event.occurred_at < campaign.starts_at:
        return f"the event is before the campaign's start, {rfc3339(campaign.starts_at)}"
    if campaign.ends_at is not None and event.occurred_at >= campaign.ends_at:
        return f"the event is not before the campaign's end, {rfc3339(campaign.ends_at)}"
    if not is_open(campaign.schedule, event.occurred_at, calendar):
        return f"the event is outside of the campaign's hours ({calendar.zone.key})"
    return None


def _evaluate_one(event: ShopEvent, live: LiveCampaign, facts: Any, inputs: EvaluationInputs) -> Evaluation:
    campaign = live.campaign
    if campaign.pays == "referrer" and inputs.referrer is None:
        return Evaluation(campaign, "not_matched", 0, "nobody has referred the member")
    for name, condition in (("audience", live.audience), ("condition", live.condition)):
        holds, error = condition.judge(facts)
        if error is not None:
            return Evaluation(campaign, "refused", 0, f"the {name} could not be evaluated: {error}")
        if not holds:
            return Evaluation(campaign, "not_matched", 0, f"the {name} is false: {condition.source[:200]}")
    if event.amount <= 0 and (event.type in MONETARY or event.amount < 0):
        return Evaluation(campaign, "not_matched", 0, f"the amount {event.amount} earns nothing", considered=True)
    of_it, among = event.amount, ""
    if campaign.items is not None:
        lines = chosen(event.items, campaign.items)
        if not lines:
            return Evaluation(campaign, "not_matched", 0, "none of its items is one of the campaign's")
        of_it = min(cost_of(lines), event.amount)
        among = f"{of_it} of {event.amount} is of the campaign's items; "
    amount, why = award_amount(campaign, live.formula, of_it, inputs.tier, facts)
    why = among + why
    if amount is None:
        return Evaluation(campaign, "refused", 0, why, considered=True)
    return Evaluation(campaign, "awarded" if amount else "not_matched", amount, why, considered=True)


def _count(
    event: ShopEvent, judgement: Evaluation, wanted: Achievement, inputs: EvaluationInputs, calendar: Calendar
) -> Evaluation:
    """Count an event that the campaign would pay, and pay it only when it completes the goal."""
    if inputs.before is not None and 2 * inputs.before.amount >= event.amount > 0:
        return msgspec.structs.replace(
            judgement, outcome="not_matched", amount=0, reason="half of it was refunded before it arrived"
        )
    known = inputs.achieved.get(judgement.campaign.id, AchievementProgress())
    taken = step(known, wanted, event.id, local_date(event.occurred_at, calendar))
    if taken.completed:
        return msgspec.structs.replace(judgement, reason=f"{taken.reason}; {judgement.reason}", step=taken)
    return msgspec.structs.replace(judgement, outcome="not_matched", amount=0, reason=taken.reason, step=taken)


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


def member_facts(subject: Subject, event: ShopEvent, inputs: EvaluationInputs, calendar: Calendar) -> dict[str, Any]:
    """What conditions see of the member at an event."""
    last = inputs.last_purchase_at
    birthday = birthday_on(local_date(event.occurred_at, calendar), subject.attributes.get(BIRTHDAY))
    return {
        "id": subject.id or "",
        "external_id": subject.external_id or "",
        "attributes": subject.attributes,
        "birthday_today": birthday.today,
        "birthday_month": birthday.month,
        "referred": inputs.referrer is not None,
        "tier": inputs.tier or "",
        "segments": [],
        "first_purchase": event.type == PURCHASE and inputs.purchases == 0,
        "days_since_last": -1 if last is None else max(0, (event.occurred_at - last) // DAY_MS),
    }
