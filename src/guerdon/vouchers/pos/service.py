"""Vouchers at the point of sale: validated, reserved, used, released, restored, cancelled, and gift cards loaded into wallets."""

from collections.abc import Callable

from msgspec.structs import replace

from guerdon.clock import Clock, rfc3339
from guerdon.errors import AgainstPolicy, BusinessError, NotFound, Validation
from guerdon.http.cursor import decode_number, encode_cursor
from guerdon.http.idempotency import KeyedRequest
from guerdon.http.operation import problem_of
from guerdon.ids import IdSource
from guerdon.ledger.models import (
    COUNTED,
    SEQ_DIGITS,
    Account,
    DocumentChange,
    DocumentRef,
    Entry,
    Idempotency,
    Posting,
    Transaction,
    View,
    entry_id,
    parse_location,
)
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import REVERSALS
from guerdon.members.service import Members
from guerdon.offers.models import Offer, stock_account
from guerdon.offers.refusals import RefusalCounts
from guerdon.offers.service import Offers
from guerdon.outbox import Outbox
from guerdon.permissions import MISSING_OR_FOREIGN, Actor
from guerdon.reversals.rules import reversal_posting
from guerdon.vouchers.codes.unissued_codes import FoundVoucher
from guerdon.vouchers.models import GIFT_CARD, Voucher
from guerdon.vouchers.pos.commands import FurtherTransactions, StepRequest, key_entry, step_command
from guerdon.vouchers.pos.discount import Discount, discount_of, reserved_discount
from guerdon.vouchers.pos.models import (
    Basket,
    CancelCreate,
    LoadCreate,
    ReleaseCreate,
    ReserveCreate,
    StepAnswer,
    StepQuery,
    StepView,
    UnuseCreate,
    UseCreate,
    ValidateAnswer,
    ValidateCreate,
)
from guerdon.vouchers.pos.rules import (
    Step,
    VoucherBefore,
    VoucherStep,
    cancel,
    invalid_state,
    load,
    release,
    reservation_of,
    reserve,
    unuse,
    use,
)
from guerdon.vouchers.pos.views import answer_of, step_of
from guerdon.vouchers.redeem import RedemptionCounter, limit_reached, open_counter, redemption_counters
from guerdon.vouchers.service import CHANNEL, OUTBOX_SECONDS, Vouchers
from guerdon.wallets.service import new_account

MINUTE_MS, DAY_MS = 60_000, 86_400_000
EVENTS: dict[Step, str] = {
    "reserve": "voucher.reserved",
    "use": "voucher.used",
    "release": "voucher.released",
    "cancel": "voucher.cancelled",
    "unuse": "voucher.unused",
    "load": "voucher.loaded",
}
"""Outbox event of each step."""


class PointOfSale:
    """Steps of vouchers after their issue."""

    def __init__(
        self,
        ledger: Ledger,
        vouchers: Vouchers,
        offers: Offers,
        members: Members,
        *,
        refusals: RefusalCounts,
        outbox: Outbox,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._ledger = ledger
        self._vouchers = vouchers
        self._offers = offers
        self._members = members
        self._refusals = refusals
        self._outbox = outbox
        self._clock = clock
        self._ids = ids

    # --- uses -------------------------------------------------------------------------------------------------------

    async def validate(self, actor: Actor, code: str, body: ValidateCreate) -> ValidateAnswer:
        """Return the discount that a use would give now, or the problem that it would return. Nothing changes.

        Raises:
            NotFound: the code does not exist, or the voucher is not the calling member's.
            Validation: the basket lacks a field that the voucher needs.
        """
        found = await self._find(actor, code)
        key = self._ids.new("try")
        step = await self._use(KeyedRequest(actor, key, key.encode()), found, body, body.reservation, None)
        view = await self._vouchers.view(found)
        try:
            outcome = await self._ledger.preview(step_command(step))
        except BusinessError as problem:
            return ValidateAnswer(valid=False, voucher=view, problem=problem_of(problem))
        metadata = key_entry(outcome.entries).metadata
        discount = metadata.get("discount")
        return ValidateAnswer(
            valid=True,
            voucher=view,
            discount=None if discount is None else int(discount),
            currency=metadata.get("currency"),
        )

    async def reserve(self, request: KeyedRequest, code: str, body: ReserveCreate) -> tuple[StepAnswer, bool]:
        """Reserve a use, or money of a gift card, for a checkout. Return the result, and whether an earlier request gave it.

        Raises:
            NotFound: the code does not exist.
            InvalidState: the voucher is reserved, used, cancelled or expired.
            NotApplicable, LimitReached, Validation: see `use`.
            IdempotencyKeyReused: see the rules of the ledger.
        """
        found = await self._find(request.actor, code)
        counters = await self._counters(request.actor, found.voucher, body.member_id)
        reference = {} if body.reference is None else {"reference": body.reference}

        def apply(view: View, before: VoucherBefore) -> VoucherStep:
            discount = reserved_discount(before.voucher, body, before.account.spendable)
            reserved = sum(each.member == body.member_id for each in before.reserved)
            self._require_counters(view, before, counters, reserved)
            metadata = {**_metadata_of(discount), **reference}
            return reserve(before, discount, body.expires_in_seconds * 1000, metadata, body.member_id)

        accounts = tuple(counter.account for counter in counters or ())
        return await self._submit(request, self._step_request("reserve", request, found, apply, accounts=accounts))

    async def use(self, request: KeyedRequest, code: str, body: UseCreate) -> tuple[StepAnswer, bool]:
        """Use a voucher on a basket. Return the result, and whether an earlier request gave it.

        Raises:
            NotFound: the code or the member does not exist.
            InvalidState: the voucher is used, cancelled or expired, or is reserved and the reservation was not named or has ended.
            NotApplicable: the basket is too small, in another currency, or without the voucher's item.
            LimitReached: the member has reached a limit of the offer.
            Validation: the basket lacks a field that the voucher needs.
            ReferenceReused, IdempotencyKeyReused: see the rules of the ledger.
        """
        found = await self._find(request.actor, code)
        return await self._submit(request, await self._use(request, found, body, body.reservation, body.reference))

    async def release(self, request: KeyedRequest, code: str, body: ReleaseCreate) -> tuple[StepAnswer, bool]:
        """Release a reservation. Return the result, and whether an earlier request gave it.

        Raises:
            NotFound: the code does not exist.
            InvalidState: the reservation does not exist or has ended.
            IdempotencyKeyReused: see the rules of the ledger.
        """
        found = await self._find(request.actor, code)

        def apply(_: View, before: VoucherBefore) -> VoucherStep:
            return release(before, body.reservation, {})

        return await self._submit(request, self._step_request("release", request, found, apply, reason=body.reason))

    async def unuse(self, request: KeyedRequest, code: str, body: UnuseCreate) -> tuple[StepAnswer, bool]:
        """Undo a use, if the offer allows it. Return the result, and whether an earlier request gave it.

        Raises:
            NotFound: the code does not exist.
            InvalidState: the use does not exist or was undone. AgainstPolicy: the offer does not allow it, or its time limit has passed.
            IdempotencyKeyReused: see the rules of the ledger.
        """
        found = await self._find(request.actor, code)
        voucher = found.voucher
        policy = (await self._offer_of(voucher)).unuse
        use_id = body.use or voucher.last_use
        entry = None if use_id is None else await self._use_entry(voucher, use_id)
        counted = () if entry is None else tuple(entry.metadata.get("counted", "").split())

        def apply(view: View, before: VoucherBefore) -> VoucherStep:
            if entry is None or (REVERSALS, entry.transaction_id) in view.documents:
                raise invalid_state(before.status, "the use does not exist or was undone")
            until = None if policy.minutes is None else entry.at + policy.minutes * MINUTE_MS
            _require_policy(policy.allowed, until, before.now_ms, "the use cannot be undone")
            postings = tuple(Posting(account, -1, COUNTED) for account in counted)
            return unuse(before, entry, postings, {})

        documents = () if entry is None else (DocumentRef(REVERSALS, entry.transaction_id, entry.owner),)
        step = self._step_request("unuse", request, found, apply, accounts=counted, documents=documents, reason=body.reason)
        return await self._submit(request, step)

    # --- cancellation and transfer ----------------------------------------------------------------------------------

    async def cancel(self, request: KeyedRequest, code: str, body: CancelCreate) -> tuple[StepAnswer, bool]:
        """Cancel a voucher: its price returns to the lots that it was taken from, and the stock and the limits no longer count it.

        Raises:
            NotFound: the code does not exist, or the voucher is not the calling member's.
            InvalidState: the voucher is reserved, used, cancelled or expired.
            AgainstPolicy: the offer does not allow it, or its time limit has passed.
            WalletFrozen, WalletClosed, BalanceLimit, IdempotencyKeyReused: see the rules of the ledger.
        """
        found = await self._find(request.actor, code)
        voucher = found.voucher
        policy = (await self._offer_of(voucher)).cancellation
        paid = None if voucher.transaction is None else await self._entry_of(voucher.transaction)
        counted = released_accounts(voucher)

        def apply(_: View, before: VoucherBefore) -> VoucherStep:
            until = None if policy.days is None else voucher.issued_at + policy.days * DAY_MS
            _require_policy(policy.allowed, until, before.now_ms, "the voucher cannot be cancelled")
            metadata = {} if paid is None else {"refunded": str(-paid.amount)}
            return cancel(before, tuple(Posting(account, -1, COUNTED) for account in counted), metadata)

        def refund(_: View, before: VoucherBefore) -> FurtherTransactions:
            if paid is None:
                return FurtherTransactions()
            posting = reversal_posting(paid, 0, -paid.amount, self._ledger.calendar, before.now_ms)
            metadata = {"offer": voucher.offer, "voucher": voucher.id}
            paid_id = paid.transaction_id
            reversal = Transaction(
                "reversal", (posting,), request.actor.id, reason=body.reason, metadata=metadata, reverses=paid_id
            )
            fields = {"reversed": -paid.amount, "at": before.now_ms}
            return FurtherTransactions((reversal,), (DocumentChange(REVERSALS, paid_id, paid.owner, fields),))

        accounts = (*counted, *(() if paid is None else (paid.account,)))
        documents = () if paid is None else (DocumentRef(REVERSALS, paid.transaction_id, paid.owner),)
        step = self._step_request(
            "cancel", request, found, apply, accounts=accounts, documents=documents, further=refund, reason=body.reason
        )
        return await self._submit(request, step)

    async def load(self, request: KeyedRequest, code: str, body: LoadCreate) -> tuple[StepAnswer, bool]:
        """Move money from a gift card to a wallet, which the first credit opens.

        Raises:
            NotFound: the code or the member does not exist, or the card is not the calling member's.
            InvalidState: the card is reserved, empty, cancelled or expired.
            NotApplicable: the voucher is not a gift card. InsufficientFunds: the card has less.
            Validation: a service key did not name the member.
            WalletFrozen, WalletClosed, BalanceLimit, ReferenceReused, IdempotencyKeyReused: see the rules of the ledger.
        """
        found = await self._find(request.actor, code)
        member = await self._member(request.actor, body.member_id)
        wallet = new_account(member, found.voucher.account.rpartition(":")[2], self._clock.now_ms())

        def apply(_: View, before: VoucherBefore) -> VoucherStep:
            return load(before, wallet.id, body.amount, {"wallet": wallet.id})

        opens = (wallet,) if found.voucher.kind == GIFT_CARD else ()
        step = self._step_request("load", request, found, apply, accounts=(wallet.id,), opens=opens, reference=body.reference)
        return await self._submit(request, step)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def list_history(self, actor: Actor, code: str, query: StepQuery) -> tuple[list[StepView], str | None]:
        """Return one page of a voucher's history, newest first, and the cursor of the next page.

        Raises:
            NotFound: the code does not exist, or the voucher is not the calling member's.
            Validation: the cursor was not returned by this list.
        """
        voucher = (await self._find(actor, code)).voucher
        # A code without a step has no account, so its history is empty.
        before = 10**SEQ_DIGITS - 1 if query.cursor is None else decode_number(query.cursor, SEQ_DIGITS)
        where = {"$gt": voucher.account + "#", "$lt": entry_id(voucher.account, before)}
        entries = await self._ledger.list_entries({"_id": where}, limit=query.limit + 1)
        page = entries[: query.limit]
        steps = [step_of(voucher, entry) for entry in page]
        return steps, encode_cursor(str(page[-1].seq)) if len(entries) > query.limit else None

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _find(self, actor: Actor, code: str) -> FoundVoucher:
        """
        Raises:
            NotFound: the code does not exist, or the voucher is not the calling member's.
        """
        found = await self._vouchers.look(code, actor.id)
        if found is None:
            raise NotFound(MISSING_OR_FOREIGN)
        voucher = found.voucher
        # A voucher without a member belongs to the bearer of its code until it is used or cancelled.
        bearer = voucher.member is None and voucher.state not in {"used", "cancelled"}
        if actor.kind == "member" and voucher.member != actor.id and not bearer:
            raise NotFound(MISSING_OR_FOREIGN)
        return found

    async def _use(
        self, request: KeyedRequest, found: FoundVoucher, basket: Basket, reservation: str | None, reference: str | None
    ) -> StepRequest:
        counters = await self._counters(request.actor, found.voucher, basket.member_id)
        opens = tuple(open_counter(each, basket.member_id or "", self._clock.now_ms()) for each in counters or ())
        names = tuple(account.id for account in opens)

        def apply(view: View, before: VoucherBefore) -> VoucherStep:
            hold = None if reservation is None else reservation_of(before, reservation)
            if hold is None and before.status == "reserved":
                raise invalid_state("reserved", "the voucher is reserved; name the reservation to use it")
            available = before.account.spendable if hold is None else hold.left
            discount = discount_of(before.voucher, basket, available)
            reserved = sum(each.member == basket.member_id for each in before.reserved if hold is None or each.seq != hold.seq)
            self._require_counters(view, before, counters, reserved)
            metadata = {**_metadata_of(discount), **({"counted": " ".join(names)} if names else {})}
            return use(before, hold, discount, tuple(Posting(name, 1, COUNTED) for name in names), metadata)

        return self._step_request("use", request, found, apply, accounts=names, opens=opens, reference=reference)

    def _step_request(
        self,
        step: Step,
        request: KeyedRequest,
        found: FoundVoucher,
        apply: Callable[[View, VoucherBefore], VoucherStep],
        *,
        accounts: tuple[str, ...] = (),
        opens: tuple[Account, ...] = (),
        documents: tuple[DocumentRef, ...] = (),
        further: Callable[[View, VoucherBefore], FurtherTransactions] | None = None,
        reference: str | None = None,
        reason: str | None = None,
    ) -> StepRequest:
        voucher = found.voucher
        owner = voucher.account.partition(":")[0]
        # Several vouchers of a member can pay one order, so a reference is unique per voucher.
        unique_reference = None if reference is None else f"{voucher.id}/{reference}"
        event = {"voucher": voucher.id, "offer": voucher.offer, "step": step}
        return StepRequest(
            step=step,
            voucher=voucher,
            idempotency=Idempotency(owner, request.actor.id, request.key, request.fingerprint, unique_reference),
            apply=apply,
            opening=found.opening,
            accounts=accounts,
            opens=opens,
            documents=documents,
            reason=reason,
            further=further,
            outbox_row=self._outbox.row_of(EVENTS[step], voucher.owner, event, channel=CHANNEL, ttl_seconds=OUTBOX_SECONDS),
        )

    async def _submit(self, request: KeyedRequest, step: StepRequest) -> tuple[StepAnswer, bool]:
        with self._refusals.counting(step.voucher.offer, step.step, dry_run=request.dry_run):
            outcome = await self._ledger.submit(step_command(step), dry_run=request.dry_run)
        code = await self._vouchers.pool_code(step.voucher)
        answer = answer_of(step.voucher, key_entry(outcome.entries), code)
        if request.dry_run and step.step == "reserve":
            answer = replace(answer, reservation=None)
        return answer, outcome.replayed

    # --- limits, policies, members ----------------------------------------------------------------------------------

    async def _counters(self, actor: Actor, voucher: Voucher, member: str | None) -> list[RedemptionCounter] | None:
        """Return the counters that a use moves: those of a shared code. Other vouchers were counted when they were redeemed.

        None for a code with limits per member when no member is named.

        Raises:
            NotFound: the member does not exist, or the caller is another member.
        """
        if member is not None:
            await self._member(actor, member)
        if voucher.uses == 1 or voucher.kind == GIFT_CARD:
            return []
        offer = await self._offer_of(voucher)
        if member is None:
            limits = (offer.per_member_limit, offer.per_member_day_limit, offer.per_member_month_limit)
            return [] if limits == (None, None, None) else None
        return redemption_counters(offer, member, self._clock.now_ms(), self._ledger.calendar)

    def _require_counters(self, view: View, before: VoucherBefore, counters: list[RedemptionCounter] | None, reserved: int) -> None:
        """
        Raises:
            Validation: the member is not named. LimitReached: the member's uses and reservations have reached a limit.
        """
        if counters is None:
            raise Validation.at("/member_id", "the code has limits per member; name the member who uses it")
        for counter in counters:
            account = view.accounts.get(counter.account)
            uses = reserved + (0 if account is None else account.balance)
            reached = limit_reached(counter, uses, self._ledger.calendar, before.now_ms)
            if reached is not None:
                raise reached

    async def _member(self, actor: Actor, member_id: str | None) -> str:
        """
        Raises:
            Validation: a service key did not name the member. NotFound: the member does not exist, or the caller is another member.
        """
        if member_id is None:
            if actor.kind != "member":
                raise Validation.at("/member_id", "name the member whose wallet is credited")
            return actor.id
        actor.require_reach(member_id)
        if not await self._members.exists(member_id):
            raise NotFound("there is no such member")
        return member_id

    async def _offer_of(self, voucher: Voucher) -> Offer:
        return await self._offers.version(voucher.offer, voucher.offer_version)

    async def _use_entry(self, voucher: Voucher, transaction_id: str) -> Entry | None:
        """Return the entry of a use of this voucher, or None."""
        location = parse_location(transaction_id)
        entry = None if location is None or location[0] != voucher.account else await self._entry_of(transaction_id)
        return None if entry is None or entry.kind != "use" or entry.transaction is not None else entry

    async def _entry_of(self, transaction_id: str) -> Entry | None:
        location = parse_location(transaction_id)
        return None if location is None else await self._ledger.get_entry(*location, location[0].partition(":")[0])


def released_accounts(voucher: Voucher) -> tuple[str, ...]:
    """Return the accounts that no longer count a cancelled voucher.

    The stock keeps counting external codes, which are dealt once, and codes of a batch, which may be printed.
    """
    kept = stock_account(voucher.offer) if voucher.kind == "external_code" or voucher.batch is not None else None
    return tuple(account for account in voucher.counted if account != kept)


def _require_policy(allowed: bool, until: int | None, now_ms: int, detail: str) -> None:
    """
    Raises:
        AgainstPolicy: the offer does not allow it, or its time limit has passed.
    """
    if not allowed:
        raise AgainstPolicy(f"{detail}: the offer does not allow it", until=None)
    if until is not None and now_ms >= until:
        raise AgainstPolicy(f"{detail}: the time limit of the offer has passed", until=rfc3339(until))


def _metadata_of(discount: Discount) -> dict[str, str]:
    metadata = {} if discount.discount is None else {"discount": str(discount.discount)}
    return metadata if discount.currency is None else {**metadata, "currency": discount.currency}
