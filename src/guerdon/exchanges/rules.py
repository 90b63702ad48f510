"""Amounts of exchanges, and exchanges as ledger commands. Pure: time is an argument."""

import msgspec
from msgspec import Struct

from guerdon.errors import ExchangeLimit, Forbidden, NotFound, RateChanged
from guerdon.exchanges.models import RATES, Rate
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import EXCHANGE, Account, Command, Decision, DocumentRef, Idempotency, Posting, Transaction, View
from guerdon.lifecycle import version_id
from guerdon.money import AMOUNT_MAX, AmountText, divide
from guerdon.permissions import Actor
from guerdon.wallets.rules import COMMAND_BYTES, missing_wallet, require_effective


class ExchangeRequest(Struct, frozen=True):
    """A requested exchange."""

    actor: Actor
    idempotency: Idempotency
    rate_id: str
    wallet: str
    """Wallet that is debited."""
    to: str
    """Wallet that is credited."""
    amount: int
    rate_version: int | None = None
    reason: str | None = None
    metadata: dict[str, str] = {}
    effective_at: int | None = None
    """Stated effective time in milliseconds."""
    opens: tuple[Account, ...] = ()


def rate_id(source: str, target: str) -> str:
    return f"{source}-{target}"


def smallest(rate: Rate) -> int:
    """Return the smallest amount that gives at least 1 minor unit."""
    if rate.rounding == "ceil":
        return 1
    if rate.rounding == "floor":
        return -(-rate.from_amount // rate.to_amount)
    # More than half a minor unit is rounded up; exactly half is rounded to the even number, 0.
    return rate.from_amount // (2 * rate.to_amount) + 1


def converted(rate: Rate, amount: int) -> int:
    """Return what `amount` of the first asset gives: exact arithmetic of whole numbers, rounded once.

    Raises:
        ExchangeLimit: The amount is outside the bounds of the rate, or gives less than 1 or more than 10^15 minor units.
    """
    minimum = max(rate.minimum or 1, smallest(rate))
    maximum = rate.maximum
    result = divide(amount * rate.to_amount, rate.from_amount, rate.rounding)
    if result > AMOUNT_MAX:
        largest = AMOUNT_MAX * rate.from_amount // rate.to_amount
        maximum = largest if maximum is None else min(largest, maximum)
    if amount < minimum:
        wording = AmountText("at least {minimum} can be exchanged, {amount} requested", rate.source, minimum=minimum, amount=amount)
    elif maximum is not None and amount > maximum:
        wording = AmountText("at most {maximum} can be exchanged, {amount} requested", rate.source, maximum=maximum, amount=amount)
    else:
        return result
    raise ExchangeLimit(wording, asset=rate.source, minimum=minimum, maximum=maximum, amount=amount)


def require_open_to(actor: Actor, rate: Rate) -> None:
    """Check that a member may exchange at the rate.

    Raises:
        Forbidden: The caller is a member, and the rate is not open to members.
    """
    if actor.kind == "member" and not rate.members:
        raise Forbidden("this rate is not open to members")


def missing_rate(rate: str) -> NotFound:
    return NotFound(f"there is no rate {rate}")


def exchange_command(request: ExchangeRequest) -> Command:
    """Return the command that exchanges value at the rate of the snapshot."""

    def decide(view: View) -> Decision:
        earlier = find_replay(view, request.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        document = view.documents.get((RATES, request.rate_id))
        if document is None:
            raise missing_rate(request.rate_id)
        rate = msgspec.convert(document, Rate)
        require_open_to(request.actor, rate)
        opens = {account.id for account in request.opens}
        for wallet in (request.wallet, request.to):
            if wallet not in view.accounts and (wallet == request.wallet or wallet not in opens):
                raise missing_wallet(wallet)
        if request.rate_version not in (None, rate.version):
            raise RateChanged(
                f"the current version of the rate is {rate.version}, not {request.rate_version}", rate=rate.id, version=rate.version
            )
        require_effective(request.effective_at, view.now_ms)
        given = Posting(request.wallet, -request.amount, EXCHANGE, spends=True)
        received = Posting(request.to, converted(rate, request.amount), EXCHANGE)
        transaction = Transaction(
            kind="exchange",
            postings=(given, received),
            actor=request.actor.id,
            idempotency=request.idempotency,
            reason=request.reason,
            metadata=request.metadata,
            effective_at=request.effective_at,
            lists_sides=True,
            rate=version_id(rate.id, rate.version),
        )
        return Decision((transaction,), request.opens)

    return Command(
        owners=(request.idempotency.owner,),
        accounts=(request.wallet, request.to),
        decide=decide,
        unique_keys=request.idempotency.unique_keys,
        documents=(DocumentRef(RATES, request.rate_id, request.rate_id),),
        idempotency=request.idempotency,
        size_bytes=COMMAND_BYTES,
    )
