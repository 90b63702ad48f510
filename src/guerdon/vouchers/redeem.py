"""Redeeming, as a command for the ledger: price, stock, limits, voucher, code and what others hear of it, in one commit. Pure.

The stock and what a member has redeemed are accounts that count, so whatever is judged here is judged on the very state that is committed.
A voucher is an account too: what it holds is the uses that are left, or money, as a lot that lapses when the voucher does.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.cel import compile_eligibility, facts_of_member
from guerdon.campaigns.domain import PURCHASE, EvaluationInputs, MemberState, ShopEvent
from guerdon.campaigns.evaluation import Subject, member_facts
from guerdon.campaigns.periods import window_name
from guerdon.clock import rfc3339
from guerdon.errors import BusinessError, InsufficientFunds, LimitReached, NotEligible, NotFound, OfferUnavailable, Retry, SoldOut
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import (
    COUNTED,
    MERCHANT,
    Account,
    Command,
    Decision,
    DocumentRef,
    Idempotency,
    Posting,
    Transaction,
    View,
    transaction_id,
)
from guerdon.members.models import MEMBERS
from guerdon.money import BALANCE_CEILING
from guerdon.offers.models import OFFERS, FixedValue, LimitPeriod, Offer
from guerdon.outbox import OUTBOX
from guerdon.tiers.member_state import TIERS_REF, member_state_of, member_state_ref, tiers_of
from guerdon.tiers.rules import tier_at
from guerdon.vouchers.codes.bearer_codes import account_of, filling_of
from guerdon.vouchers.models import (
    DEALT_CODES,
    REDEMPTIONS,
    VOUCHER_CODES,
    VOUCHERS,
    CodeRow,
    DealtCode,
    Voucher,
    pool_id,
)

REDEEM_BYTES = 4096


class NewVoucher(Struct, frozen=True):
    """What a voucher is made of that cannot be made in a decision: an id, a code, and a sealed row."""

    voucher_id: str
    code: str | None
    """As it is shown; None for external codes."""
    code_id: str | None
    """What it is known by."""
    row: dict[str, Any]
    """What others are to hear."""


class RedeemRequest(Struct, frozen=True):
    """What is asked for."""

    offer: Offer
    subject: Subject
    idempotency: Idempotency
    calendar: Calendar
    now_ms: int
    """When it was asked for; the commit has its own time."""
    blank: NewVoucher | None
    """None where it is not expected that a voucher will be issued."""
    thorough: bool
    """Whether the member's document is read too. It need not be where an account says that there is such a member."""

    @property
    def member(self) -> str:
        assert self.subject.id is not None
        return self.subject.id


class RedemptionCounter(Struct, frozen=True):
    """An account that counts what a member has redeemed of an offer in a period, and how far it may."""

    period: LimitPeriod
    account: str
    limit: int | None


def redemption_counters(offer: Offer, member: str, now_ms: int, calendar: Calendar) -> list[RedemptionCounter]:
    """What a redemption counts against. The one for ever is always moved, so that a limit that is set later knows what was before it."""
    limits: list[tuple[LimitPeriod, int | None]] = [("ever", offer.per_member_limit)]
    if offer.per_member_day_limit is not None:
        limits.append(("day", offer.per_member_day_limit))
    if offer.per_member_month_limit is not None:
        limits.append(("month", offer.per_member_month_limit))
    return [
        RedemptionCounter(period, f"{member}:{window_name(period, now_ms, calendar)}.{offer.id}", limit) for period, limit in limits
    ]


def reads_member_state(offer: Offer) -> bool:
    """Whether the offer asks for what events have made of a member."""
    return bool(offer.tiers) or compile_eligibility(offer.eligibility, "/eligibility").reads_standing


def reads_member(offer: Offer) -> bool:
    """Whether the offer asks for what only the member's sealed profile tells."""
    return compile_eligibility(offer.eligibility, "/eligibility").reads_member


def documents_of(offers: Sequence[Offer], member: str) -> list[DocumentRef]:
    """The documents that these offers are judged on."""
    documents = [DocumentRef(OFFERS, offer.id, offer.id) for offer in offers]
    if any(map(reads_member_state, offers)):
        documents += [member_state_ref(member), TIERS_REF]
    return documents


def redeem_command(asked: RedeemRequest) -> Command[Voucher | None]:
    """Issue a voucher and take its price in one commit. The same request again recalls the first answer.

    `decide` raises NotFound, OfferUnavailable, NotEligible, LimitReached, SoldOut or InsufficientFunds, in this order; and Retry when the
    offer, the day or the code is not the one that the command was made for, or when it lacks a voucher or a document that is needed.
    """
    offer, member = asked.offer, asked.member
    counters = redemption_counters(offer, member, asked.now_ms, asked.calendar)
    wallet = () if offer.price is None else (f"{member}:{offer.price.asset}",)
    own = (*wallet, *(counter.account for counter in counters))
    documents = documents_of([offer], member)
    if asked.thorough:
        documents.append(DocumentRef(MEMBERS, member, member))
    if asked.blank is not None and asked.blank.code_id is not None:
        documents.append(DocumentRef(VOUCHER_CODES, asked.blank.code_id, member))

    def decide(view: View) -> Decision[Voucher | None]:
        earlier = find_replay(view, asked.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        document = view.documents.get((OFFERS, offer.id))
        known = (MEMBERS, member) in view.documents or any(name in view.accounts for name in own)
        if document is None or (asked.thorough and not known):
            raise NotFound("there is no such offer or member")
        if (
            not known
            or document["count"] != offer.count
            or counters != redemption_counters(offer, member, view.now_ms, asked.calendar)
        ):
            raise Retry
        hindrance = rejection_reason(offer, RedeemContext.of(asked.subject, view, asked.calendar), counters)
        if hindrance is not None:
            raise hindrance
        if asked.blank is None or (VOUCHER_CODES, asked.blank.code_id) in view.documents:
            raise Retry
        return _issue(asked, asked.blank, counters, view)

    return Command(
        owners=(member, offer.id),
        accounts=(*own, offer.stock_account),
        decide=decide,
        unique_keys=asked.idempotency.unique_keys,
        documents=tuple(documents),
        idempotency=asked.idempotency,
        size_bytes=REDEEM_BYTES,
    )


# --- why not --------------------------------------------------------------------------------------------------------


class RedeemContext:
    """A member before the catalogue: what offers are judged on, worked out when the first of them asks."""

    def __init__(self, subject: Subject, standing: MemberState, tier: str | None, view: View, calendar: Calendar) -> None:
        assert subject.id is not None
        self.subject = subject
        self.member = subject.id
        self.standing = standing
        self.tier = tier
        self.accounts = view.accounts
        self.now_ms = view.now_ms
        self.calendar = calendar
        self._facts: Any = None

    @classmethod
    def of(cls, subject: Subject, view: View, calendar: Calendar) -> "RedeemContext":
        standing, sets = member_state_of(subject.id or "", view), tiers_of(view)
        versions = () if sets is None else sets.versions
        return cls(subject, standing, tier_at(versions, standing.qualifying, view.now_ms, calendar), view, calendar)

    @property
    def facts(self) -> Any:
        """What an eligibility sees: what a campaign would, of somebody who buys something now."""
        if self._facts is None:
            visit = ShopEvent(id="", type=PURCHASE, occurred_at=self.now_ms, amount=0, currency="")
            inputs = EvaluationInputs(
                judged_at=self.now_ms,
                tier=self.tier,
                purchases=self.standing.purchases,
                last_purchase_at=self.standing.last_purchase_at,
                referrer=self.standing.referrer,
            )
            self._facts = facts_of_member(member_facts(self.subject, visit, inputs, self.calendar), self.now_ms)
        return self._facts

    def redeemed(self, counter: RedemptionCounter) -> int:
        account = self.accounts.get(counter.account)
        return 0 if account is None else account.balance


def rejection_reason(offer: Offer, seen: RedeemContext, counters: Sequence[RedemptionCounter]) -> BusinessError | None:
    """Say why a member cannot redeem an offer now, or None when they can: first what would stand in everybody's way."""
    return (
        unavailable(offer, seen.now_ms)
        or ineligible(offer, seen)
        or at_limit(counters, seen)
        or sold_out(offer, seen)
        or unaffordable(offer, seen)
    )


def unavailable(offer: Offer, now_ms: int) -> BusinessError | None:
    starts, ends = (None if moment is None else rfc3339(moment) for moment in (offer.starts_at, offer.ends_at))
    before = offer.starts_at is not None and now_ms < offer.starts_at
    after = offer.ends_at is not None and now_ms >= offer.ends_at
    if offer.status == "active" and not before and not after:
        return None
    why = f"is {offer.status}" if offer.status != "active" else f"begins at {starts}" if before else f"ended at {ends}"
    return OfferUnavailable(f"the offer {why}", status_now=offer.status, starts_at=starts, ends_at=ends)


def ineligible(offer: Offer, seen: RedeemContext) -> BusinessError | None:
    if offer.tiers and seen.tier not in offer.tiers:
        return NotEligible(f"it is for {', '.join(offer.tiers)}", which="tier", tiers=offer.tiers, tier=seen.tier)
    holds, error = compile_eligibility(offer.eligibility, "/eligibility").judge(seen.facts if offer.eligibility != "true" else None)
    if holds:
        return None
    # Not the condition itself: it may say of others what is nobody's business.
    why = "the offer's condition does not hold" if error is None else f"the offer's condition could not be evaluated: {error}"
    return NotEligible(why, which="eligibility")


def at_limit(counters: Sequence[RedemptionCounter], seen: RedeemContext) -> BusinessError | None:
    for counter in counters:
        reached = limit_reached(counter, seen.redeemed(counter), seen.calendar, seen.now_ms)
        if reached is not None:
            return reached
    return None


def limit_reached(counter: RedemptionCounter, redeemed: int, calendar: Calendar, now_ms: int) -> LimitReached | None:
    """Say that a member has had as much as one may in the counter's period."""
    if counter.limit is None or redeemed < counter.limit:
        return None
    resets = {"day": calendar.end_of_day, "month": calendar.month_ends_at}.get(counter.period)
    return LimitReached(
        f"{redeemed} of {counter.limit} were redeemed by this member"
        + ("" if counter.period == "ever" else f" this {counter.period}"),
        period=counter.period,
        limit=counter.limit,
        redeemed=redeemed,
        resets_at=None if resets is None else rfc3339(resets(now_ms)),
    )


def sold_out(offer: Offer, seen: RedeemContext) -> BusinessError | None:
    stock = seen.accounts.get(offer.stock_account)
    if stock is None or stock.balance < stock.ceiling or stock.ceiling == BALANCE_CEILING:
        return None
    return SoldOut(f"all {stock.ceiling} are issued", stock=stock.ceiling)


def unaffordable(offer: Offer, seen: RedeemContext) -> BusinessError | None:
    if offer.price is None:
        return None
    price, name = offer.price, f"{seen.member}:{offer.price.asset}"
    wallet = seen.accounts.get(name)
    available = 0 if wallet is None else max(wallet.spendable, 0)
    if available >= price.amount:
        return None
    return InsufficientFunds(
        f"{price.amount} {price.asset} are needed, {available} are available",
        asset=price.asset,
        available=available,
        needed=price.amount,
        wallet=name,
    )


# --- what is issued -------------------------------------------------------------------------------------------------


def _issue(asked: RedeemRequest, blank: NewVoucher, counters: Sequence[RedemptionCounter], view: View) -> Decision[Voucher | None]:
    offer, member, now_ms = asked.offer, asked.member, view.now_ms
    stock = view.accounts[offer.stock_account]
    metadata = {"offer": offer.id, "version": str(offer.version), "voucher": blank.voucher_id}
    price = None
    if offer.price is not None:
        name = f"{member}:{offer.price.asset}"
        wallet = view.accounts[name]
        posting = Posting(wallet.id, -offer.price.amount, MERCHANT, spends=True)
        price = Transaction("redeem", (posting,), asked.idempotency.actor, asked.idempotency, metadata=metadata)
        paid_by = transaction_id(wallet.id, wallet.seq + 1)
    else:
        paid_by = None
    counted = (*(counter.account for counter in counters), stock.id)
    voucher = _voucher(asked, blank, counted, stock.balance + 1, (now_ms, paid_by))
    issue = Transaction(
        "issue",
        (
            *(Posting(counter.account, 1, COUNTED) for counter in counters),
            Posting(stock.id, 1, COUNTED),
            filling_of(voucher),
        ),
        asked.idempotency.actor,
        asked.idempotency if price is None else None,
        metadata=metadata,
    )
    return Decision(
        (issue,) if price is None else (price, issue),
        (*(open_counter(counter, member, now_ms) for counter in counters), account_of(voucher)),
        ((VOUCHERS, msgspec.to_builtins(voucher)), _coded(blank, voucher), (OUTBOX, blank.row)),
        value=voucher,
    )


def _voucher(asked: RedeemRequest, blank: NewVoucher, counted: tuple[str, ...], number: int, at: tuple[int, str | None]) -> Voucher:
    """`number` is which of the offer's vouchers it is, and `at` when it is issued and the transaction of its price."""
    offer, member, (now_ms, paid_by) = asked.offer, asked.member, at
    card = offer.value if offer.kind == "gift_card" and isinstance(offer.value, FixedValue) else None
    return Voucher(
        id=blank.voucher_id,
        owner=member,
        member=member,
        offer=offer.id,
        offer_version=offer.version,
        name=offer.name,
        kind=offer.kind,
        code=blank.code,
        number=number if blank.code is None else None,
        value=offer.value,
        minimum_basket=offer.minimum_basket,
        uses=1 if card is None else card.amount,
        price=offer.price,
        transaction=paid_by,
        counted=counted,
        account=f"{member}:uses.{blank.voucher_id}" if card is None else f"{blank.voucher_id}:{card.currency}",
        issued_at=now_ms,
        expires_at=None if offer.voucher_valid_days is None else asked.calendar.end_of_day(now_ms, offer.voucher_valid_days),
    )


def open_counter(counter: RedemptionCounter, member: str, now_ms: int) -> Account:
    return Account(counter.account, member, counter.account.rpartition(":")[2], REDEMPTIONS, opened_at=now_ms)


def _coded(blank: NewVoucher, voucher: Voucher) -> tuple[str, dict[str, Any]]:
    """The row by which the voucher is found, or the mark on the code of the pool that it has got."""
    if blank.code_id is None:
        number = voucher.number or 0
        dealt = DealtCode(id=pool_id(voucher.offer, number), owner=voucher.offer, voucher=voucher.id, member=voucher.owner)
        return DEALT_CODES, msgspec.to_builtins(dealt)
    row = CodeRow(id=blank.code_id, owner=voucher.owner, offer=voucher.offer, voucher=voucher.id)
    return VOUCHER_CODES, msgspec.to_builtins(row)
