"""Batches as commands for the ledger: what begins one counts its codes against the stock, and what ends an import raises it. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.errors import InvalidState, NotFound, SoldOut, Validation
from guerdon.ids import digest
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import (
    COUNTED,
    RULES,
    Account,
    AccountRules,
    Command,
    Decision,
    DocumentChange,
    DocumentRef,
    Idempotency,
    Posting,
    Transaction,
    View,
)
from guerdon.offers.code_patterns import DEFAULT_PATTERN, normalise, parse_pattern, require_secret
from guerdon.offers.models import OFFERS, STOCK, Offer
from guerdon.vouchers.codes.bearer_codes import account_of, bearer_id, bearer_voucher, card_id, filling_of
from guerdon.vouchers.codes.models import CARDS_MAX, CODE_BATCHES, STAGED_CODES, BatchKind, CodeBatch, StagedCodes
from guerdon.vouchers.models import GIFT_CARD, VOUCHER_CODES, VOUCHERS, CodeRow, Voucher

BATCH_BYTES = 4096
WORKER = "system:worker"
TAKEN = "there is this code already"


class CodeBatchRequest(Struct, frozen=True):
    """A batch that somebody asks for. Its id is made before the command."""

    kind: BatchKind
    offer: str
    batch: str
    wanted: int
    """How many codes."""
    idempotency: Idempotency
    calendar: Calendar

    def transaction(self, kind: str, *postings: Posting) -> Transaction:
        return Transaction(kind, postings, self.idempotency.actor, self.idempotency, metadata={"batch": self.batch})

    def made_of(self, offer: Offer, now_ms: int, *, pattern: str | None = None, status: str = "running") -> CodeBatch:
        """The batch as it begins."""
        days = offer.voucher_valid_days
        return CodeBatch(
            id=self.batch,
            owner=offer.id,
            kind=self.kind,
            status="done" if status == "done" else "running",
            open=status != "done",
            offer_version=offer.version,
            expires_at=None if days is None else self.calendar.end_of_day(now_ms, days),
            wanted=self.wanted,
            made=self.wanted if status == "done" else 0,
            cards=offer.kind == GIFT_CARD,
            pattern=pattern,
            created_at=now_ms,
            created_by=self.idempotency.actor,
            ended_at=now_ms if status == "done" else None,
        )


def generate_command(wish: CodeBatchRequest, pattern: str | None) -> Command[CodeBatch | None]:
    """Begin to make secret codes: all of them count against the stock from now on.

    `decide` raises NotFound, InvalidState, Validation or SoldOut.
    """

    def begin(view: View, offer: Offer, stock: Account) -> Decision[CodeBatch | None]:
        if offer.kind == "external_code":
            raise Validation.at("", "codes of another house are imported: POST /v1/offers/{offer_id}/codes/import")
        if offer.kind == GIFT_CARD and wish.wanted > CARDS_MAX:
            raise Validation.at("/count", f"a batch of gift cards has {CARDS_MAX} at most")
        chosen = parse_pattern(pattern or offer.code_pattern or DEFAULT_PATTERN)
        require_secret(chosen)
        _require_left(stock, wish.wanted)
        batch = wish.made_of(offer, view.now_ms, pattern=chosen.text)
        counted = wish.transaction("issue", Posting(stock.id, wish.wanted, COUNTED))
        return Decision((counted,), inserts=((CODE_BATCHES, msgspec.to_builtins(batch)),), value=batch)

    return _beginning(wish, begin)


def shared_command(wish: CodeBatchRequest, code: str, uses: int) -> Command[CodeBatch | None]:
    """Issue one code for many uses, all of which count against the stock from now on.

    `decide` raises NotFound, InvalidState, Validation or SoldOut.
    """
    shown = code.upper()
    known = normalise(shown)

    def begin(view: View, offer: Offer, stock: Account) -> Decision[CodeBatch | None]:
        if offer.kind not in {"discount", "item"}:
            raise Validation.at("", "gift cards and codes of another house are not shared")
        if (VOUCHER_CODES, known) in view.documents:
            raise Validation.at("/code", TAKEN)
        _require_left(stock, uses)
        batch = wish.made_of(offer, view.now_ms, status="done")
        voucher = bearer_voucher(
            offer, bearer_id(known), shown, batch=batch.id, expires_at=batch.expires_at, issued_at=view.now_ms, uses=uses
        )
        batch = msgspec.structs.replace(batch, code=shown, voucher=voucher.id)
        issued = wish.transaction("issue", Posting(stock.id, uses, COUNTED), filling_of(voucher))
        row = CodeRow(id=known, owner=offer.id, offer=offer.id, voucher=voucher.id, batch=batch.id)
        inserts = ((CODE_BATCHES, batch), (VOUCHERS, voucher), (VOUCHER_CODES, row))
        return Decision(
            (issued,),
            (account_of(voucher),),
            tuple((collection, msgspec.to_builtins(document)) for collection, document in inserts),
            value=batch,
        )

    return _beginning(
        wish,
        begin,
        owners=(bearer_id(known),),
        accounts=(f"{bearer_id(known)}:uses.{bearer_id(known)}",),
        documents=(DocumentRef(VOUCHER_CODES, known, wish.offer),),
    )


def import_command(wish: CodeBatchRequest, parts: Sequence[StagedCodes], size_bytes: int) -> Command[CodeBatch | None]:
    """Take a file of codes over. None of them can be had before all of them are in the pool.

    `decide` raises NotFound, InvalidState or Validation.
    """

    def begin(view: View, offer: Offer, stock: Account) -> Decision[CodeBatch | None]:
        if offer.kind != "external_code":
            raise Validation.at("", "only an offer of the kind external_code takes codes that another house has made")
        batch = wish.made_of(offer, view.now_ms)
        # It changes nothing yet: the stock's history says that the import has begun, and the key has its place.
        began = wish.transaction("terms", Posting(stock.id, 0, RULES, terms=AccountRules(ceiling=stock.ceiling)))
        staged = [(STAGED_CODES, msgspec.to_builtins(part)) for part in parts]
        return Decision((began,), inserts=((CODE_BATCHES, msgspec.to_builtins(batch)), *staged), value=batch)

    return _beginning(wish, begin, size_bytes=BATCH_BYTES + size_bytes)


def _beginning(
    wish: CodeBatchRequest,
    begin: Callable[[View, Offer, Account], Decision[CodeBatch | None]],
    *,
    owners: tuple[str, ...] = (),
    accounts: tuple[str, ...] = (),
    documents: tuple[DocumentRef, ...] = (),
    size_bytes: int = BATCH_BYTES,
) -> Command[CodeBatch | None]:
    stock = f"{wish.offer}:{STOCK}"

    def decide(view: View) -> Decision[CodeBatch | None]:
        earlier = find_replay(view, wish.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        document, account = view.documents.get((OFFERS, wish.offer)), view.accounts.get(stock)
        if document is None or account is None:
            raise NotFound("there is no such offer")
        offer = msgspec.convert(document, Offer)
        if offer.status == "ended":
            raise InvalidState("the offer has ended", status_now=offer.status)
        return begin(view, offer, account)

    return Command(
        owners=(wish.offer, *owners),
        accounts=(stock, *accounts),
        decide=decide,
        unique_keys=wish.idempotency.unique_keys,
        documents=(DocumentRef(OFFERS, wish.offer, wish.offer), *documents),
        idempotency=wish.idempotency,
        size_bytes=size_bytes,
    )


def _require_left(stock: Account, wanted: int) -> None:
    """
    Raises:
        SoldOut: the stock has not so many left.
    """
    left = stock.ceiling - stock.balance
    if wanted > left:
        raise SoldOut(f"{left} are left, {wanted} are wanted", stock=stock.ceiling, left=left, wanted=wanted)


# --- the worker's ---------------------------------------------------------------------------------------------------


def finish_import_command(batch: CodeBatch) -> Command[bool]:
    """Raise the stock to the codes that are in the pool: from now on they can be had.

    The answer is False when the batch was cancelled meanwhile, or the stock is not what it was: nothing is written then.
    """
    assert batch.first_number is not None
    first = batch.first_number
    stock = f"{batch.owner}:{STOCK}"
    idempotency = _worker_key(batch, "finish")

    def decide(view: View) -> Decision[bool]:
        earlier = find_replay(view, idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,), value=True)
        document, account = view.documents[CODE_BATCHES, batch.id], view.accounts[stock]
        if document["status"] != "running" or account.ceiling != first - 1:
            return Decision(value=False)
        ceiling = first - 1 + batch.wanted
        raised = Posting(stock, 0, RULES, terms=AccountRules(ceiling=ceiling))
        fields = {"status": "done", "open": False, "ended_at": view.now_ms}
        return Decision(
            (Transaction("terms", (raised,), WORKER, idempotency, metadata={"batch": batch.id}),),
            changes=(_decided(batch, document["count"], fields),),
            value=True,
        )

    return _ending(batch, idempotency, decide)


def give_back_command(batch: CodeBatch) -> Command[bool]:
    """Count what was never made, or is void, against the stock no more, and close the batch."""
    stock = f"{batch.owner}:{STOCK}"
    idempotency = _worker_key(batch, "give back")

    def decide(view: View) -> Decision[bool]:
        earlier = find_replay(view, idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,), value=True)
        back = Posting(stock, -batch.wanted, COUNTED)
        return Decision(
            (Transaction("cancel", (back,), WORKER, idempotency, metadata={"batch": batch.id}),),
            changes=(_decided(batch, view.documents[CODE_BATCHES, batch.id]["count"], {"open": False}),),
            value=True,
        )

    return _ending(batch, idempotency, decide)


def _ending(batch: CodeBatch, idempotency: Idempotency, decide: Callable[[View], Decision[bool]]) -> Command[bool]:
    return Command(
        owners=(batch.owner,),
        accounts=(f"{batch.owner}:{STOCK}",),
        decide=decide,
        unique_keys=idempotency.unique_keys,
        documents=(DocumentRef(CODE_BATCHES, batch.id, batch.owner),),
        size_bytes=BATCH_BYTES,
    )


def _worker_key(batch: CodeBatch, step: str) -> Idempotency:
    return Idempotency(batch.owner, WORKER, f"{batch.id}/{step}", digest(batch.id, step)[:16])


def _decided(batch: CodeBatch, count: int, fields: dict[str, Any]) -> DocumentChange:
    return DocumentChange(CODE_BATCHES, batch.id, batch.owner, {**fields, "count": count + 1}, counted=True, count=count)


def card_command(batch: CodeBatch, offer: Offer, number: int, candidates: Sequence[tuple[str, str]]) -> Command[bool]:
    """Issue the gift card `number` of a batch under the first code, (shown, known), that is free. The same number again recalls.

    The answer is False when none of the codes is free.
    """
    voucher_id = card_id(batch.id, number)
    idempotency = Idempotency(voucher_id, WORKER, batch.id, digest(batch.id, str(number))[:16])

    def issued(shown: str, issued_at: int) -> Voucher:
        return bearer_voucher(offer, voucher_id, shown, batch=batch.id, expires_at=batch.expires_at, issued_at=issued_at)

    def decide(view: View) -> Decision[bool]:
        earlier = find_replay(view, idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,), value=True)
        free = next((each for each in candidates if (VOUCHER_CODES, each[1]) not in view.documents), None)
        if free is None:
            return Decision(value=False)
        voucher = issued(free[0], view.now_ms)
        row = CodeRow(id=free[1], owner=batch.owner, offer=batch.owner, voucher=voucher_id, batch=batch.id)
        told = {"offer": batch.owner, "voucher": voucher_id, "batch": batch.id}
        return Decision(
            (Transaction("issue", (filling_of(voucher),), WORKER, idempotency, metadata=told),),
            (account_of(voucher),),
            ((VOUCHERS, msgspec.to_builtins(voucher)), (VOUCHER_CODES, msgspec.to_builtins(row))),
            value=True,
        )

    return Command(
        owners=(voucher_id,),
        accounts=(issued("", 0).account,),
        decide=decide,
        unique_keys=idempotency.unique_keys,
        documents=tuple(DocumentRef(VOUCHER_CODES, known, batch.owner) for _, known in candidates),
        size_bytes=BATCH_BYTES,
    )
