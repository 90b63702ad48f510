"""Vouchers at the till: tried, reserved, used, released, taken back, cancelled, and gift cards loaded into wallets."""

from collections.abc import Callable

from guerdon.clock import Clock, rfc3339
from guerdon.errors import AgainstPolicy, BusinessError, NotFound, Validation
from guerdon.http.cursor import decode_cursor, encode_cursor
from guerdon.http.respond import problem_of
from guerdon.ids import IdSource
from guerdon.ledger.models import (
    COUNTED,
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
from guerdon.offers.models import STOCK, Offer
from guerdon.offers.service import Offers
from guerdon.outbox import Outbox
from guerdon.permissions import NOBODYS, Actor
from guerdon.reversals.rules import back
from guerdon.vouchers.codes.unissued_codes import FoundVoucher
from guerdon.vouchers.models import GIFT_CARD, Voucher
from guerdon.vouchers.pos.commands import ExtraPostings, StepRequest, key_entry, step_command
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
    load,
    refused,
    release,
    reservation_of,
    reserve,
    unuse,
    use,
)
from guerdon.vouchers.pos.views import answer_of, step_of
from guerdon.vouchers.redeem import RedemptionCounter, limit_reached, open_counter, redemption_counters
from guerdon.vouchers.service import CHANNEL, OUTBOX_SECONDS, Vouchers
from guerdon.wallets.service import Request, new_account

MINUTE_MS, DAY_MS = 60_000, 86_400_000
EVENTS: dict[Step, str] = {
    "reserve": "voucher.reserved",
    "use": "voucher.used",
    "release": "voucher.released",
    "cancel": "voucher.cancelled",
    "unuse": "voucher.unused",
    "load": "voucher.loaded",
}
"""What others hear of each step."""


class PointOfSale:
    """What happens to vouchers after they were issued."""

    def __init__(
        self,
        ledger: Ledger,
        vouchers: Vouchers,
        offers: Offers,
        identity: Members,
        *,
        outbox: Outbox,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._ledger = ledger
        self._vouchers = vouchers
        self._offers = offers
        self._identity = identity
        self._outbox = outbox
        self._clock = clock
        self._ids = ids

    # --- at the till ------------------------------------------------------------------------------------------------

    async def validate(self, actor: Actor, code: str, body: ValidateCreate) -> ValidateAnswer:
        """Say whether a use would be accepted now and what it would come to, or why not. Nothing changes.

        Raises:
            NotFound: no such code, or a member asks for one that is not theirs.
            Validation: the voucher has to know more of the basket.
        """
        found = await self._find(actor, code)
        key = self._ids.new("try")
        asked = await self._use(Request(actor, key, key.encode()), found, body, body.reservation, None)
        shown = await self._vouchers.view(found)
        try:
            outcome = await self._ledger.preview(step_command(asked))
        except BusinessError as problem:
            return ValidateAnswer(valid=False, voucher=shown, problem=problem_of(problem))
        told = key_entry(outcome.entries).metadata
        discount = told.get("discount")
        return ValidateAnswer(
            valid=True,
            voucher=shown,
            discount=None if discount is None else int(discount),
            currency=told.get("currency"),
        )

    async def reserve(self, request: Request, code: str, body: ReserveCreate) -> tuple[StepAnswer, bool]:
        """Set a use, or money of a gift card, aside for somebody who is about to pay.

        Raises:
            NotFound: no such code.
            InvalidState: the voucher is reserved, used, cancelled or has lapsed.
            NotApplicable, LimitReached, Validation: see `use`.
            IdempotencyKeyReused: see the ledger's rules.
        """
        found = await self._find(request.actor, code)
        counters = await self._counters(request.actor, found.voucher, body.member_id)
        reference = {} if body.reference is None else {"reference": body.reference}

        def move(view: View, before: VoucherBefore) -> VoucherStep:
            value = reserved_discount(before.voucher, body, before.account.spendable)
            waiting = sum(each.member == body.member_id for each in before.reserved)
            self._require_counters(view, before, counters, waiting)
            told = {**_told(value), **reference}
            return reserve(before, value, body.expires_in_seconds * 1000, told, body.member_id)

        accounts = tuple(counter.account for counter in counters or ())
        return await self._submit(self._asked("reserve", request, found, move, accounts=accounts))

    async def use(self, request: Request, code: str, body: UseCreate) -> tuple[StepAnswer, bool]:
        """Use a voucher on a basket.

        Raises:
            NotFound: no such code, or no such member.
            InvalidState: the voucher is reserved for somebody else, used, cancelled or has lapsed; or the reservation has.
            NotApplicable: the basket is too small, in another currency, or without the voucher's item.
            LimitReached: this member has used the offer as often as one may.
            Validation: the voucher has to know more of the basket.
            ReferenceReused, IdempotencyKeyReused: see the ledger's rules.
        """
        found = await self._find(request.actor, code)
        return await self._submit(await self._use(request, found, body, body.reservation, body.reference))

    async def release(self, request: Request, code: str, body: ReleaseCreate) -> tuple[StepAnswer, bool]:
        """Give a reservation up.

        Raises:
            NotFound: no such code.
            InvalidState: there is no such reservation, or it has ended.
            IdempotencyKeyReused: see the ledger's rules.
        """
        found = await self._find(request.actor, code)

        def move(_: View, before: VoucherBefore) -> VoucherStep:
            return release(before, body.reservation, {})

        return await self._submit(self._asked("release", request, found, move, reason=body.reason))

    async def unuse(self, request: Request, code: str, body: UnuseCreate) -> tuple[StepAnswer, bool]:
        """Take a use back, as far as the offer allows it.

        Raises:
            NotFound: no such code.
            InvalidState: there is no such use, or it was taken back. AgainstPolicy: the offer does not allow it, or not any more.
            IdempotencyKeyReused: see the ledger's rules.
        """
        found = await self._find(request.actor, code)
        voucher = found.voucher
        policy = (await self._offer_of(voucher)).unuse
        name = body.use or voucher.last_use
        entry = None if name is None else await self._use_entry(voucher, name)
        counted = () if entry is None else tuple(entry.metadata.get("counted", "").split())

        def move(view: View, before: VoucherBefore) -> VoucherStep:
            if entry is None or (REVERSALS, entry.transaction_id) in view.documents:
                raise refused(before.status, "there is no such use, or it was taken back")
            until = None if policy.minutes is None else entry.at + policy.minutes * MINUTE_MS
            _require_policy(policy.allowed, until, before.now_ms, "a use cannot be taken back")
            more = tuple(Posting(account, -1, COUNTED) for account in counted)
            return unuse(before, entry, more, {})

        documents = () if entry is None else (DocumentRef(REVERSALS, entry.transaction_id, entry.owner),)
        asked = self._asked("unuse", request, found, move, accounts=counted, documents=documents, reason=body.reason)
        return await self._submit(asked)

    # --- given back, loaded -----------------------------------------------------------------------------------------

    async def cancel(self, request: Request, code: str, body: CancelCreate) -> tuple[StepAnswer, bool]:
        """Give a voucher back: its price returns to the very lots it came from, and it counts against stock and limits no more.

        Raises:
            NotFound: no such code, or a member asks for one that is not theirs.
            InvalidState: it is reserved, used, cancelled or has lapsed. AgainstPolicy: the offer does not allow it, or not any more.
            WalletFrozen, WalletClosed, BalanceLimit, IdempotencyKeyReused: see the ledger's rules.
        """
        found = await self._find(request.actor, code)
        voucher = found.voucher
        policy = (await self._offer_of(voucher)).cancellation
        paid = None if voucher.transaction is None else await self._entry(voucher.transaction)
        counted = given_back(voucher)

        def move(_: View, before: VoucherBefore) -> VoucherStep:
            until = None if policy.days is None else voucher.issued_at + policy.days * DAY_MS
            _require_policy(policy.allowed, until, before.now_ms, "vouchers cannot be given back")
            told = {} if paid is None else {"refunded": str(-paid.amount)}
            return cancel(before, tuple(Posting(account, -1, COUNTED) for account in counted), told)

        def refund(_: View, before: VoucherBefore) -> ExtraPostings:
            if paid is None:
                return ExtraPostings()
            posting = back(paid, 0, -paid.amount, self._ledger.calendar, before.now_ms)
            told = {"voucher": voucher.id}
            name = paid.transaction_id
            reversal = Transaction("reversal", (posting,), request.actor.id, reason=body.reason, metadata=told, reverses=name)
            taken_back = {"reversed": -paid.amount, "at": before.now_ms}
            return ExtraPostings((reversal,), (DocumentChange(REVERSALS, name, paid.owner, taken_back),))

        accounts = (*counted, *(() if paid is None else (paid.account,)))
        documents = () if paid is None else (DocumentRef(REVERSALS, paid.transaction_id, paid.owner),)
        asked = self._asked(
            "cancel", request, found, move, accounts=accounts, documents=documents, besides=refund, reason=body.reason
        )
        return await self._submit(asked)

    async def load(self, request: Request, code: str, body: LoadCreate) -> tuple[StepAnswer, bool]:
        """Move money of a gift card into a wallet; the first credit opens that.

        Raises:
            NotFound: no such code, no such member, or a member asks for a card that is somebody else's.
            InvalidState: the card is reserved, empty, cancelled or has lapsed.
            NotApplicable: it is no gift card. InsufficientFunds: less is on it.
            Validation: a service did not say into whose wallet.
            WalletFrozen, WalletClosed, BalanceLimit, ReferenceReused, IdempotencyKeyReused: see the ledger's rules.
        """
        found = await self._find(request.actor, code)
        member = await self._member(request.actor, body.member_id)
        wallet = new_account(member, found.voucher.account.rpartition(":")[2], self._clock.now_ms())

        def move(_: View, before: VoucherBefore) -> VoucherStep:
            return load(before, wallet.id, body.amount, {"wallet": wallet.id})

        opens = (wallet,) if found.voucher.kind == GIFT_CARD else ()
        asked = self._asked("load", request, found, move, accounts=(wallet.id,), opens=opens, reference=body.reference)
        return await self._submit(asked)

    # --- queries ----------------------------------------------------------------------------------------------------

    async def list_history(self, actor: Actor, code: str, query: StepQuery) -> tuple[list[StepView], str | None]:
        """Return one page of what has happened to a voucher, newest first, and the cursor of the next.

        Raises:
            NotFound: no such code, or a member asks for one that is not theirs.
            Validation: the cursor is not one of this list.
        """
        voucher = (await self._find(actor, code)).voucher
        # Of a code that nobody has opened there is no account, and so no history.
        where = {"$gt": voucher.account + "#", "$lt": entry_id(voucher.account, _seq_of(query.cursor))}
        entries = await self._ledger.list_entries({"_id": where}, limit=query.limit + 1)
        page = entries[: query.limit]
        steps = [step_of(voucher, entry) for entry in page]
        return steps, encode_cursor(str(page[-1].seq)) if len(entries) > query.limit else None

    # --- how --------------------------------------------------------------------------------------------------------

    async def _find(self, actor: Actor, code: str) -> FoundVoucher:
        """
        Raises:
            NotFound: no such code, or a member asks for one that is not theirs.
        """
        found = await self._vouchers.look(code, actor.id)
        if found is None:
            raise NotFound(NOBODYS)
        voucher = found.voucher
        # What belongs to nobody is theirs who hold it, as long as it is good for anything.
        held = voucher.member is None and voucher.state not in {"used", "cancelled"}
        if actor.kind == "member" and voucher.member != actor.id and not held:
            raise NotFound(NOBODYS)
        return found

    async def _use(
        self, request: Request, found: FoundVoucher, basket: Basket, reservation: str | None, reference: str | None
    ) -> StepRequest:
        counters = await self._counters(request.actor, found.voucher, basket.member_id)
        opens = tuple(open_counter(each, basket.member_id or "", self._clock.now_ms()) for each in counters or ())
        names = tuple(account.id for account in opens)

        def move(view: View, before: VoucherBefore) -> VoucherStep:
            hold = None if reservation is None else reservation_of(before, reservation)
            if hold is None and before.status == "reserved":
                raise refused("reserved", "the voucher is reserved: use it with its reservation")
            free = before.account.spendable if hold is None else hold.left
            value = discount_of(before.voucher, basket, free)
            waiting = sum(each.member == basket.member_id for each in before.reserved if hold is None or each.seq != hold.seq)
            self._require_counters(view, before, counters, waiting)
            told = {**_told(value), **({"counted": " ".join(names)} if names else {})}
            return use(before, hold, value, tuple(Posting(name, 1, COUNTED) for name in names), told)

        return self._asked("use", request, found, move, accounts=names, opens=opens, reference=reference)

    def _asked(
        self,
        step: Step,
        request: Request,
        found: FoundVoucher,
        move: Callable[[View, VoucherBefore], VoucherStep],
        *,
        accounts: tuple[str, ...] = (),
        opens: tuple[Account, ...] = (),
        documents: tuple[DocumentRef, ...] = (),
        besides: Callable[[View, VoucherBefore], ExtraPostings] | None = None,
        reference: str | None = None,
        reason: str | None = None,
    ) -> StepRequest:
        voucher = found.voucher
        owner = voucher.account.partition(":")[0]
        # An order may be paid with several vouchers of one member: its reference is unique for each of them.
        known_as = None if reference is None else f"{voucher.id}/{reference}"
        said = {"voucher": voucher.id, "offer": voucher.offer, "step": step}
        return StepRequest(
            step=step,
            voucher=voucher,
            idempotency=Idempotency(owner, request.actor.id, request.key, request.fingerprint, known_as),
            move=move,
            opening=found.opening,
            accounts=accounts,
            opens=opens,
            documents=documents,
            reason=reason,
            besides=besides,
            row=self._outbox.row_of(EVENTS[step], voucher.owner, said, channel=CHANNEL, ttl_seconds=OUTBOX_SECONDS),
        )

    async def _submit(self, asked: StepRequest) -> tuple[StepAnswer, bool]:
        outcome = await self._ledger.submit(step_command(asked))
        voucher = asked.voucher
        code = None if voucher.number is None else await self._vouchers.pool_code(voucher.offer, voucher.number)
        return answer_of(voucher, key_entry(outcome.entries), code), outcome.replayed

    # --- limits, policies, members ----------------------------------------------------------------------------------

    async def _counters(self, actor: Actor, voucher: Voucher, member: str | None) -> list[RedemptionCounter] | None:
        """What a use by a member counts against: only of a shared code, since others were counted when they were redeemed.

        Raises:
            NotFound: there is no such member, or the caller is another one.
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

    def _require_counters(self, view: View, before: VoucherBefore, counters: list[RedemptionCounter] | None, waiting: int) -> None:
        """
        Raises:
            Validation: the member is not named. LimitReached: they have used, or reserved, as much as one may.
            Overloaded: a day ended in between.
        """
        if counters is None:
            raise Validation.at("/member_id", "a member may use this code only so often: say who uses it")
        for counter in counters:
            account = view.accounts.get(counter.account)
            had = waiting + (0 if account is None else account.balance)
            reached = limit_reached(counter, had, self._ledger.calendar, before.now_ms)
            if reached is not None:
                raise reached

    async def _member(self, actor: Actor, member_id: str | None) -> str:
        """
        Raises:
            Validation: a service did not say for whom. NotFound: there is no such member, or the caller is another one.
        """
        if member_id is None:
            if actor.kind != "member":
                raise Validation.at("/member_id", "say into whose wallet")
            return actor.id
        actor.require_reach(member_id)
        if not await self._identity.exists(member_id):
            raise NotFound("there is no such member")
        return member_id

    async def _offer_of(self, voucher: Voucher) -> Offer:
        return await self._offers.version(voucher.offer, voucher.offer_version)

    async def _use_entry(self, voucher: Voucher, name: str) -> Entry | None:
        """The entry of a use of this voucher; None when there is none of that name."""
        place = parse_location(name)
        entry = None if place is None or place[0] != voucher.account else await self._entry(name)
        return None if entry is None or entry.kind != "use" or entry.transaction is not None else entry

    async def _entry(self, name: str) -> Entry | None:
        place = parse_location(name)
        return None if place is None else await self._ledger.get_entry(*place, place[0].partition(":")[0])


def given_back(voucher: Voucher) -> tuple[str, ...]:
    """The accounts that a cancelled voucher does not count against any more.

    The stock keeps another house's code, which is never dealt again, and what a batch has counted when it was made: those codes are printed.
    """
    kept = f"{voucher.offer}:{STOCK}" if voucher.kind == "external_code" or voucher.batch is not None else None
    return tuple(account for account in voucher.counted if account != kept)


def _require_policy(allowed: bool, until: int | None, now_ms: int, detail: str) -> None:
    """
    Raises:
        AgainstPolicy: the offer does not allow it, or not any more.
    """
    if not allowed:
        raise AgainstPolicy(f"{detail}: the offer does not allow it", until=None)
    if until is not None and now_ms >= until:
        raise AgainstPolicy(f"{detail} any more", until=rfc3339(until))


def _told(value: Discount) -> dict[str, str]:
    told = {} if value.discount is None else {"discount": str(value.discount)}
    return told if value.currency is None else {**told, "currency": value.currency}


def _seq_of(cursor: str | None) -> int:
    """
    Raises:
        Validation: the cursor is not one of this list.
    """
    if cursor is None:
        return 10**12 - 1
    position = decode_cursor(cursor)
    if not position.isdecimal() or len(position) > 12:
        raise Validation.at("cursor", "not a cursor that this list has given out")
    return int(position)
