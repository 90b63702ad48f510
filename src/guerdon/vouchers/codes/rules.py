"""Ledger commands of code batches. The start of a batch counts its codes in the stock; the end of an import raises the stock. Pure."""

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
    EntryKind,
    Idempotency,
    Posting,
    Transaction,
    View,
)
from guerdon.offers.code_patterns import DEFAULT_PATTERN, capitals, normalise, parse_pattern, require_secret
from guerdon.offers.models import OFFERS, Offer, stock_account
from guerdon.vouchers.codes.models import CARDS_MAX, CODE_BATCHES, STAGED_CODES, BatchKind, CodeBatch, StagedCodes
from guerdon.vouchers.codes.unissued_codes import bearer_id, bearer_voucher, card_id
from guerdon.vouchers.models import GIFT_CARD, VOUCHER_CODES, VOUCHERS, CodeRow, Voucher, account_of, filling_of, issue_evidence

BATCH_BYTES = 4096
WORKER = "system:worker"
SHARED_CHARACTERS_MIN = 4
TAKEN = "the code exists already"


class CodeBatchRequest(Struct, frozen=True):
    """A batch to create. Its id is generated before the command."""

    kind: BatchKind
    offer: str
    batch: str
    wanted: int
    """Number of codes."""
    idempotency: Idempotency
    calendar: Calendar

    def transaction(self, kind: EntryKind, offer: Offer, *postings: Posting) -> Transaction:
        metadata = {"batch": self.batch, "version": str(offer.version)}
        return Transaction(kind, postings, self.idempotency.actor, self.idempotency, metadata=metadata)

    def to_batch(self, offer: Offer, now_ms: int, *, pattern: str | None = None, done: bool = False) -> CodeBatch:
        """Return the batch as it begins."""
        days = offer.voucher_valid_days
        return CodeBatch(
            id=self.batch,
            owner=offer.id,
            kind=self.kind,
            status="done" if done else "running",
            open=not done,
            offer_version=offer.version,
            expires_at=None if days is None else self.calendar.end_of_day(now_ms, days),
            wanted=self.wanted,
            made=self.wanted if done else 0,
            cards=offer.kind == GIFT_CARD,
            pattern=pattern,
            created_at=now_ms,
            created_by=self.idempotency.actor,
            ended_at=now_ms if done else None,
        )


def generate_command(request: CodeBatchRequest, pattern: str | None) -> Command[CodeBatch | None]:
    """Return the command that starts the generation of secret codes. The stock counts all of them at once.

    `decide` raises NotFound, InvalidState, Validation or SoldOut.
    """

    def begin(view: View, offer: Offer, stock: Account) -> Decision[CodeBatch | None]:
        if offer.kind == "external_code":
            raise Validation.at("", "external codes are imported, not generated: POST /v1/offers/{offer_id}/codes/import")
        if offer.kind == GIFT_CARD and request.wanted > CARDS_MAX:
            raise Validation.at("/count", f"a batch has at most {CARDS_MAX} gift cards")
        parsed = parse_pattern(pattern or offer.code_pattern or DEFAULT_PATTERN)
        require_secret(parsed)
        _require_stock(stock, request.wanted)
        batch = request.to_batch(offer, view.now_ms, pattern=parsed.text)
        counted = request.transaction("issue", offer, Posting(stock.id, request.wanted, COUNTED))
        return Decision((counted,), inserts=((CODE_BATCHES, msgspec.to_builtins(batch)),), value=batch)

    return _start(request, begin)


def shared_command(request: CodeBatchRequest, code: str, uses: int) -> Command[CodeBatch | None]:
    """Return the command that issues one code for many uses. The stock counts all uses at once.

    `decide` raises NotFound, InvalidState, Validation or SoldOut.
    """
    shown = capitals(code)
    code_id = normalise(shown)

    def begin(view: View, offer: Offer, stock: Account) -> Decision[CodeBatch | None]:
        if offer.kind not in {"discount", "item"}:
            raise Validation.at("", "only offers of the kinds discount and item can have a shared code")
        if len(code_id) < SHARED_CHARACTERS_MIN:
            raise Validation.at("/code", f"a code needs {SHARED_CHARACTERS_MIN} characters besides spaces and hyphens")
        if (VOUCHER_CODES, code_id) in view.documents:
            raise Validation.at("/code", TAKEN)
        _require_stock(stock, uses)
        batch = request.to_batch(offer, view.now_ms, done=True)
        voucher = bearer_voucher(
            offer, bearer_id(code_id), shown, batch=batch.id, expires_at=batch.expires_at, issued_at=view.now_ms, uses=uses
        )
        batch = msgspec.structs.replace(batch, code=shown, voucher=voucher.id)
        issued = request.transaction("issue", offer, Posting(stock.id, uses, COUNTED), filling_of(voucher))
        issued = msgspec.structs.replace(
            issued, metadata={**issued.metadata, "voucher": voucher.id}, evidence=issue_evidence(voucher, offer)
        )
        row = CodeRow(id=code_id, owner=offer.id, offer=offer.id, voucher=voucher.id, batch=batch.id)
        inserts = ((CODE_BATCHES, batch), (VOUCHERS, voucher), (VOUCHER_CODES, row))
        return Decision(
            (issued,),
            (account_of(voucher),),
            tuple((collection, msgspec.to_builtins(document)) for collection, document in inserts),
            value=batch,
        )

    return _start(
        request,
        begin,
        owners=(bearer_id(code_id),),
        accounts=(f"{bearer_id(code_id)}:uses.{bearer_id(code_id)}",),
        documents=(DocumentRef(VOUCHER_CODES, code_id, request.offer),),
    )


def import_command(request: CodeBatchRequest, parts: Sequence[StagedCodes], size_bytes: int) -> Command[CodeBatch | None]:
    """Return the command that starts an import. Its codes become available together, when all of them are in the pool.

    `decide` raises NotFound, InvalidState or Validation.
    """

    def begin(view: View, offer: Offer, stock: Account) -> Decision[CodeBatch | None]:
        if offer.kind != "external_code":
            raise Validation.at("", "only an offer of the kind external_code can import codes")
        batch = request.to_batch(offer, view.now_ms)
        # The ceiling stays the same: the entry records the start of the import and the idempotency key.
        started = request.transaction("terms", offer, Posting(stock.id, 0, RULES, terms=AccountRules(ceiling=stock.ceiling)))
        staged = [(STAGED_CODES, msgspec.to_builtins(part)) for part in parts]
        return Decision((started,), inserts=((CODE_BATCHES, msgspec.to_builtins(batch)), *staged), value=batch)

    return _start(request, begin, size_bytes=BATCH_BYTES + size_bytes)


def _start(
    request: CodeBatchRequest,
    begin: Callable[[View, Offer, Account], Decision[CodeBatch | None]],
    *,
    owners: tuple[str, ...] = (),
    accounts: tuple[str, ...] = (),
    documents: tuple[DocumentRef, ...] = (),
    size_bytes: int = BATCH_BYTES,
) -> Command[CodeBatch | None]:
    stock = stock_account(request.offer)

    def decide(view: View) -> Decision[CodeBatch | None]:
        earlier = find_replay(view, request.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        document, account = view.documents.get((OFFERS, request.offer)), view.accounts.get(stock)
        if document is None or account is None:
            raise NotFound("there is no such offer")
        offer = msgspec.convert(document, Offer)
        if offer.status == "ended":
            raise InvalidState("the offer has ended", status_now=offer.status)
        return begin(view, offer, account)

    return Command(
        owners=(request.offer, *owners),
        accounts=(stock, *accounts),
        decide=decide,
        unique_keys=request.idempotency.unique_keys,
        documents=(DocumentRef(OFFERS, request.offer, request.offer), *documents),
        idempotency=request.idempotency,
        size_bytes=size_bytes,
    )


def _require_stock(stock: Account, wanted: int) -> None:
    """
    Raises:
        SoldOut: fewer than `wanted` are left in the stock.
    """
    left = stock.ceiling - stock.balance
    if wanted > left:
        raise SoldOut(f"{left} vouchers are left in the stock, {wanted} are needed", stock=stock.ceiling, left=left, wanted=wanted)


# --- worker ---------------------------------------------------------------------------------------------------------


def finish_import_command(batch: CodeBatch) -> Command[bool]:
    """Return the command that raises the stock to the codes in the pool, which makes them available.

    Its value is False, and nothing is written, when the batch was cancelled or the stock changed meanwhile.
    """
    assert batch.first_number is not None
    first = batch.first_number
    stock = stock_account(batch.owner)
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
            changes=(_batch_change(batch, document["count"], fields),),
            value=True,
        )

    return _worker_command(batch, idempotency, decide)


def give_back_command(batch: CodeBatch) -> Command[bool]:
    """Return the command that takes a failed or cancelled batch out of the stock and closes it."""
    stock = stock_account(batch.owner)
    idempotency = _worker_key(batch, "give back")

    def decide(view: View) -> Decision[bool]:
        earlier = find_replay(view, idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,), value=True)
        back = Posting(stock, -batch.wanted, COUNTED)
        return Decision(
            (Transaction("cancel", (back,), WORKER, idempotency, metadata={"batch": batch.id}),),
            changes=(_batch_change(batch, view.documents[CODE_BATCHES, batch.id]["count"], {"open": False}),),
            value=True,
        )

    return _worker_command(batch, idempotency, decide)


def _worker_command(batch: CodeBatch, idempotency: Idempotency, decide: Callable[[View], Decision[bool]]) -> Command[bool]:
    return Command(
        owners=(batch.owner,),
        accounts=(stock_account(batch.owner),),
        decide=decide,
        unique_keys=idempotency.unique_keys,
        documents=(DocumentRef(CODE_BATCHES, batch.id, batch.owner),),
        size_bytes=BATCH_BYTES,
    )


def _worker_key(batch: CodeBatch, step: str) -> Idempotency:
    return Idempotency(batch.owner, WORKER, f"{batch.id}/{step}", digest(batch.id, step)[:16])


def _batch_change(batch: CodeBatch, count: int, fields: dict[str, Any]) -> DocumentChange:
    return DocumentChange(CODE_BATCHES, batch.id, batch.owner, {**fields, "count": count + 1}, counted=True, count=count)


def card_command(batch: CodeBatch, offer: Offer, number: int, candidates: Sequence[tuple[str, str]]) -> Command[bool]:
    """Return the command that issues gift card `number` of a batch with the first free code of `candidates`, pairs (shown, normalised).

    Its value is False when every candidate exists. A repeated number returns the first result.
    """
    voucher_id = card_id(batch.id, number)
    idempotency = Idempotency(voucher_id, WORKER, batch.id, digest(batch.id, str(number))[:16])

    def card(shown: str, issued_at: int) -> Voucher:
        return bearer_voucher(offer, voucher_id, shown, batch=batch.id, expires_at=batch.expires_at, issued_at=issued_at)

    def decide(view: View) -> Decision[bool]:
        earlier = find_replay(view, idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,), value=True)
        free = next((each for each in candidates if (VOUCHER_CODES, each[1]) not in view.documents), None)
        if free is None:
            return Decision(value=False)
        voucher = card(free[0], view.now_ms)
        row = CodeRow(id=free[1], owner=batch.owner, offer=batch.owner, voucher=voucher_id, batch=batch.id)
        metadata = {"offer": batch.owner, "version": str(offer.version), "voucher": voucher_id, "batch": batch.id}
        return Decision(
            (
                Transaction(
                    "issue", (filling_of(voucher),), WORKER, idempotency, metadata=metadata, evidence=issue_evidence(voucher, offer)
                ),
            ),
            (account_of(voucher),),
            ((VOUCHERS, msgspec.to_builtins(voucher)), (VOUCHER_CODES, msgspec.to_builtins(row))),
            value=True,
        )

    return Command(
        owners=(voucher_id,),
        accounts=(card("", 0).account,),
        decide=decide,
        unique_keys=idempotency.unique_keys,
        documents=tuple(DocumentRef(VOUCHER_CODES, code_id, batch.owner) for _, code_id in candidates),
        size_bytes=BATCH_BYTES,
    )
