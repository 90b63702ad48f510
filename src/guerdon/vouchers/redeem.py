"""Redemption of an offer as a ledger command: price, stock, limits, voucher, code and outbox event in one commit. Pure.

The stock of an offer and the redemptions of a member are accounts that count, so every check reads the state that is committed. A voucher is
an account too: it holds the uses that are left, or money, as a lot that expires with the voucher.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.cel import compile_eligibility, facts_of_member
from guerdon.campaigns.domain import PURCHASE, EvaluationInputs, MemberState, ShopEvent
from guerdon.campaigns.evaluation import Subject, member_facts
from guerdon.campaigns.member_segments import segment_refs, segments_of
from guerdon.campaigns.purchase_history import last_purchase_before
from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.errors import BusinessError, InsufficientFunds, LimitReached, NotEligible, NotFound, OfferUnavailable, Retry, SoldOut
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import (
    COUNTED,
    MERCHANT,
    Account,
    Command,
    Decision,
    DocumentRef,
    Entry,
    Idempotency,
    Posting,
    Transaction,
    View,
    transaction_id,
)
from guerdon.ledger.references import UndoRule, register_undo_rule
from guerdon.members.models import MEMBERS
from guerdon.money import BALANCE_CEILING, AmountText
from guerdon.offers.models import OFFERS, FixedValue, LimitPeriod, Offer
from guerdon.outbox import OUTBOX
from guerdon.tiers.member_state import TIERS_REF, member_state_of, member_state_ref, tiers_of
from guerdon.tiers.rules import tier_at
from guerdon.vouchers.models import (
    DEALT_CODES,
    REDEMPTIONS,
    VOUCHER_CODES,
    VOUCHERS,
    CodeRow,
    DealtCode,
    Voucher,
    account_of,
    filling_of,
    issue_evidence,
    pool_id,
)

REDEEM_BYTES = 4096


class PreparedVoucher(Struct, frozen=True):
    """Parts of a voucher that a pure decision cannot make: an id, a code and a sealed outbox row."""

    voucher_id: str
    code: str | None
    """Code as it is shown. None for external codes."""
    code_id: str | None
    """Normalised code."""
    outbox_row: dict[str, Any]


class RedeemRequest(Struct, frozen=True):
    """A redemption to decide."""

    offer: Offer
    subject: Subject
    idempotency: Idempotency
    """Key of the request; its owner is the member."""
    calendar: Calendar
    now_ms: int
    """Time of the request. The commit has its own time."""
    prepared: PreparedVoucher | None
    """None when the redemption is expected to be refused."""
    checks_member: bool
    """True to read the member's document, which proves that the member exists. An account of the member proves it too."""


class RedemptionCounter(Struct, frozen=True):
    """An account that counts a member's redemptions of an offer in a period, and their maximum."""

    period: LimitPeriod
    account: str
    limit: int | None


def redemption_counters(offer: Offer, member: str, now_ms: int, calendar: Calendar) -> list[RedemptionCounter]:
    """Return the counters that a redemption moves.

    The counter without a period always moves, so that a limit that is set later knows the redemptions before it.
    """
    counters = [RedemptionCounter("ever", f"{member}:ever.{offer.id}", offer.per_member_limit)]
    if offer.per_member_day_limit is not None:
        day, _ = calendar.names(now_ms)
        counters.append(RedemptionCounter("day", f"{member}:{day}.{offer.id}", offer.per_member_day_limit))
    if offer.per_member_month_limit is not None:
        _, month = calendar.names(now_ms)
        counters.append(RedemptionCounter("month", f"{member}:{month}.{offer.id}", offer.per_member_month_limit))
    return counters


def open_counter(counter: RedemptionCounter, member: str, now_ms: int) -> Account:
    """Return the account of a counter before its first redemption."""
    return Account(counter.account, member, counter.account.rpartition(":")[2], REDEMPTIONS, opened_at=now_ms)


def reads_member(offer: Offer) -> bool:
    """Return whether the offer's eligibility reads the member's sealed profile."""
    return compile_eligibility(offer.eligibility, "/eligibility").reads_member


def documents_of(offers: Sequence[Offer], member: str) -> list[DocumentRef]:
    """Return the documents that a redemption of these offers reads."""
    documents: list[DocumentRef] = []
    reads_member_state = False
    for offer in offers:
        documents.append(DocumentRef(OFFERS, offer.id, offer.id))
        reads_member_state |= bool(offer.tiers) or compile_eligibility(offer.eligibility, "/eligibility").reads_member_state
    if reads_member_state:
        documents += [member_state_ref(member), TIERS_REF, *segment_refs(member)]
    return documents


def redeem_command(request: RedeemRequest) -> Command[Voucher | None]:
    """Return the command that issues a voucher and takes its price in one commit. A repeated request returns the first result.

    `decide` raises NotFound, OfferUnavailable, NotEligible, LimitReached, SoldOut or InsufficientFunds, in this order; and Retry when the
    offer, the day or the code is not the one that the command was made for, or when it lacks a voucher or a document that is needed.
    """
    offer, member, prepared = request.offer, request.idempotency.owner, request.prepared
    counters = redemption_counters(offer, member, request.now_ms, request.calendar)
    wallet = () if offer.price is None else (f"{member}:{offer.price.asset}",)
    own_accounts = (*wallet, *[counter.account for counter in counters])
    documents = documents_of([offer], member)
    if request.checks_member:
        documents.append(DocumentRef(MEMBERS, member, member))
    if prepared is not None and prepared.code_id is not None:
        documents.append(DocumentRef(VOUCHER_CODES, prepared.code_id, member))

    def decide(view: View) -> Decision[Voucher | None]:
        earlier = find_replay(view, request.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        document = view.documents.get((OFFERS, offer.id))
        known = (MEMBERS, member) in view.documents or not view.accounts.keys().isdisjoint(own_accounts)
        if document is None or (request.checks_member and not known):
            raise NotFound("there is no such offer or member")
        if (
            not known
            or document["count"] != offer.count
            or counters != redemption_counters(offer, member, view.now_ms, request.calendar)
        ):
            raise Retry
        rejection = rejection_reason(offer, RedeemContext(member, request.subject, view, request.calendar), counters)
        if rejection is not None:
            raise rejection
        if prepared is None or (VOUCHER_CODES, prepared.code_id) in view.documents:
            raise Retry
        return _issue(request, prepared, counters, view)

    return Command(
        owners=(member, offer.id),
        accounts=(*own_accounts, offer.stock_account),
        decide=decide,
        unique_keys=request.idempotency.unique_keys,
        documents=tuple(documents),
        idempotency=request.idempotency,
        size_bytes=REDEEM_BYTES,
    )


# --- rejections -----------------------------------------------------------------------------------------------------


class RedeemContext(Struct, frozen=True, dict=True):
    """A member and the state that offers are checked against. Tier and facts are computed when an offer first asks for them."""

    member: str
    subject: Subject
    view: View
    calendar: Calendar

    @cached_property
    def member_state(self) -> MemberState:
        return member_state_of(self.member, self.view)

    @cached_property
    def tier(self) -> str | None:
        tier_sets = tiers_of(self.view)
        versions = () if tier_sets is None else tier_sets.versions
        return tier_at(versions, self.member_state.qualifying, self.view.now_ms, self.calendar)

    @cached_property
    def facts(self) -> Any:
        """Facts for an eligibility: those of a campaign for a purchase by the member now."""
        purchase = ShopEvent(id="", type=PURCHASE, occurred_at=self.view.now_ms, amount=0, currency="")
        inputs = EvaluationInputs(
            judged_at=self.view.now_ms,
            tier=self.tier,
            purchases=self.member_state.purchases,
            last_purchase_at=last_purchase_before(self.member_state, self.view.now_ms),
            referrer=self.member_state.referrer,
            segments=segments_of(self.member, self.view),
        )
        return facts_of_member(member_facts(self.subject, purchase, inputs, self.calendar), self.view.now_ms)


def rejection_reason(offer: Offer, context: RedeemContext, counters: Sequence[RedemptionCounter]) -> BusinessError | None:
    """Return why the member cannot redeem the offer now, or None. Reasons that concern every member come first."""
    now_ms, accounts = context.view.now_ms, context.view.accounts
    rejection = unavailable(offer, now_ms) or ineligible(offer, context)
    if rejection is not None:
        return rejection
    for counter in counters:
        account = accounts.get(counter.account)
        reached = limit_reached(counter, 0 if account is None else account.balance, context.calendar, now_ms)
        if reached is not None:
            return reached
    stock = accounts.get(offer.stock_account)
    if stock is not None and stock.balance >= stock.ceiling and stock.ceiling != BALANCE_CEILING:
        return SoldOut(f"all {stock.ceiling} vouchers of the offer are issued", stock=stock.ceiling)
    return unaffordable(offer, context)


def unavailable(offer: Offer, now_ms: int) -> BusinessError | None:
    """Return an error unless the offer is active and within its window."""
    before = offer.starts_at is not None and now_ms < offer.starts_at
    after = offer.ends_at is not None and now_ms >= offer.ends_at
    if offer.status == "active" and not before and not after:
        return None
    starts = optional_rfc3339(offer.starts_at)
    ends = optional_rfc3339(offer.ends_at)
    reason = f"is {offer.status}" if offer.status != "active" else f"begins at {starts}" if before else f"ended at {ends}"
    return OfferUnavailable(f"the offer {reason}", status_now=offer.status, starts_at=starts, ends_at=ends)


def ineligible(offer: Offer, context: RedeemContext) -> BusinessError | None:
    """Return an error unless the member has one of the offer's tiers and its eligibility holds."""
    if offer.tiers and context.tier not in offer.tiers:
        return NotEligible(
            f"the offer is for members of the tiers {', '.join(offer.tiers)}", which="tier", tiers=offer.tiers, tier=context.tier
        )
    if offer.eligibility == "true":
        return None
    holds, error = compile_eligibility(offer.eligibility, "/eligibility").evaluate(context.facts)
    if holds:
        return None
    # The condition is not quoted: it can name other members.
    reason = "the offer's condition does not hold" if error is None else f"the offer's condition could not be evaluated: {error}"
    return NotEligible(reason, which="eligibility")


def limit_reached(counter: RedemptionCounter, redeemed: int, calendar: Calendar, now_ms: int) -> LimitReached | None:
    """Return an error when the member has reached the counter's limit."""
    if counter.limit is None or redeemed < counter.limit:
        return None
    period_end = {"day": calendar.end_of_day, "month": calendar.month_ends_at}.get(counter.period)
    return LimitReached(
        f"the member has redeemed {redeemed} of {counter.limit}" + ("" if counter.period == "ever" else f" this {counter.period}"),
        period=counter.period,
        limit=counter.limit,
        redeemed=redeemed,
        resets_at=None if period_end is None else rfc3339(period_end(now_ms)),
    )


def unaffordable(offer: Offer, context: RedeemContext) -> BusinessError | None:
    """Return an error when the member's wallet does not cover the price."""
    if offer.price is None:
        return None
    price, name = offer.price, f"{context.member}:{offer.price.asset}"
    wallet = context.view.accounts.get(name)
    available = 0 if wallet is None else max(wallet.spendable, 0)
    if available >= price.amount:
        return None
    return InsufficientFunds(
        AmountText("{available} available, {needed} needed", price.asset, available=available, needed=price.amount),
        asset=price.asset,
        available=available,
        needed=price.amount,
        wallet=name,
    )


def _voucher_document(entry: Entry) -> DocumentRef:
    return DocumentRef(VOUCHERS, entry.metadata["voucher"], entry.owner)


# The entry with the reference of a redemption is that of the price, or that of the first counter if there is no price.
register_undo_rule(("redeem", "issue"), UndoRule(_voucher_document, lambda _, voucher, __: voucher["state"] == "cancelled"))


# --- issue ----------------------------------------------------------------------------------------------------------


def _issue(
    request: RedeemRequest, prepared: PreparedVoucher, counters: Sequence[RedemptionCounter], view: View
) -> Decision[Voucher | None]:
    offer, idempotency, now_ms = request.offer, request.idempotency, view.now_ms
    stock = view.accounts[offer.stock_account]
    metadata = {"offer": offer.id, "version": str(offer.version), "voucher": prepared.voucher_id}
    payment, payment_id = None, None
    if offer.price is not None:
        name = f"{idempotency.owner}:{offer.price.asset}"
        wallet = view.accounts[name]
        payment = Posting(wallet.id, -offer.price.amount, MERCHANT, spends=True)
        payment_id = transaction_id(wallet.id, wallet.seq + 1)
    counted: list[str] = []
    postings: list[Posting] = []
    opens: list[Account] = []
    for counter in counters:
        counted.append(counter.account)
        postings.append(Posting(counter.account, 1, COUNTED))
        opens.append(open_counter(counter, idempotency.owner, now_ms))
    voucher = _voucher(request, prepared, (*counted, stock.id), stock.balance + 1, (now_ms, payment_id))
    evidence = issue_evidence(voucher, offer)
    transactions: list[Transaction] = []
    if payment is not None:
        transactions.append(Transaction("redeem", (payment,), idempotency.actor, idempotency, metadata=metadata, evidence=evidence))
    issue = Transaction(
        "issue",
        (*postings, Posting(stock.id, 1, COUNTED), filling_of(voucher)),
        idempotency.actor,
        idempotency if payment is None else None,
        metadata=metadata,
        evidence=evidence,
    )
    if prepared.code_id is not None:
        row = CodeRow(id=prepared.code_id, owner=voucher.owner, offer=offer.id, voucher=voucher.id)
        code = (VOUCHER_CODES, msgspec.to_builtins(row))
    else:
        dealt = DealtCode(id=pool_id(offer.id, voucher.number or 0), owner=offer.id, voucher=voucher.id, member=voucher.owner)
        code = (DEALT_CODES, msgspec.to_builtins(dealt))
    return Decision(
        (*transactions, issue),
        (*opens, account_of(voucher)),
        ((VOUCHERS, msgspec.to_builtins(voucher)), code, (OUTBOX, prepared.outbox_row)),
        value=voucher,
    )


def _voucher(
    request: RedeemRequest, prepared: PreparedVoucher, counted: tuple[str, ...], number: int, issued: tuple[int, str | None]
) -> Voucher:
    """`number` counts the offer's vouchers from 1; `issued` is the time of the issue and the transaction of the price."""
    offer, member, (now_ms, payment_id) = request.offer, request.idempotency.owner, issued
    card = offer.value if offer.kind == "gift_card" and isinstance(offer.value, FixedValue) else None
    return Voucher(
        id=prepared.voucher_id,
        owner=member,
        member=member,
        offer=offer.id,
        offer_version=offer.version,
        name=offer.name,
        kind=offer.kind,
        code=prepared.code,
        number=number if prepared.code is None else None,
        value=offer.value,
        minimum_basket=offer.minimum_basket,
        uses=1 if card is None else card.amount,
        price=offer.price,
        transaction=payment_id,
        counted=counted,
        account=f"{member}:uses.{prepared.voucher_id}" if card is None else f"{prepared.voucher_id}:{card.currency}",
        issued_at=now_ms,
        expires_at=None if offer.voucher_valid_days is None else request.calendar.end_of_day(now_ms, offer.voucher_valid_days),
    )
