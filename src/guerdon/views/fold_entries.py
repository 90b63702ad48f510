"""Fold of ledger entries into the state of their account and the aggregates of money and vouchers. Pure.

Entries of one account are folded in the order of their `seq`. Every entry that changes the balance of a wallet belongs to exactly one flow.
An entry that changes no balance and moves value from promotional to paid, as a repaid debt does, has a row of amount 0 in the flow `adjusted`,
so that the rows add up to the balances by source too.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from guerdon.calendar import Calendar
from guerdon.ledger.lots import UNDATED
from guerdon.ledger.models import AWAITING_CONFIRMATION, COUNTED, SYSTEM, Lot, LotDates
from guerdon.projections.models import Folded, Increment, Target
from guerdon.views.cohorts import CohortBook
from guerdon.views.entries import AnyEntry
from guerdon.views.flows import HOLDER_FLOWS, MOVES, WALLETS, flow_of, is_return
from guerdon.views.models import COHORTS, DAYS, LOTS, RANKINGS, TOTALS, AccountReadModel, Cohort, CohortQueue, Flow, HeldLots
from guerdon.views.voucher_steps import Issuer, issuer_of, voucher_increments

CAMPAIGN_KINDS = frozenset({"award", "clawback"})
"""Kinds of entries whose metadata names a campaign. Only events write them, so callers cannot choose that metadata."""
PAYMENT_OF_VOUCHER = "redeem"
MEMBER, CARD = "mem_", "vch_"
Net = dict[LotDates, int]
"""Signed change of each lot, held value included. `UNDATED` is undated paid value."""


def new_account(entry: AnyEntry, target: Target) -> AccountReadModel:
    """Return the state of an account before its first entry."""
    version, part = target
    account, asset = entry.account, entry.asset
    counts_money = "A" <= asset[:1] <= "Z" and entry.counterparty != COUNTED
    return AccountReadModel(
        id=f"{version}|{account}",
        version=version,
        part=part,
        account=account,
        owner=entry.owner,
        asset=asset,
        kind=_kind_of(entry.owner, asset, counts_money=counts_money),
        counts_money=counts_money,
    )


def _kind_of(owner: str, asset: str, *, counts_money: bool) -> str:
    if counts_money:
        return "gift_card" if owner.startswith(CARD) else "wallet"
    if asset in ("stock", "budget"):
        return asset
    if asset.startswith("uses."):
        return "voucher"
    return "redemptions" if ".off_" in asset else "cap"


def fold_entry(state: AccountReadModel | None, entry: AnyEntry, target: Target, *, calendar: Calendar) -> Folded[AccountReadModel]:
    """Return the account after its next entry, and the changes of the aggregates. `state` is None before the first entry.

    Raises:
        ValueError: The entry is not the next one, or takes value from a lot that does not have it.
    """
    if state is None:
        state = new_account(entry, target)
    seq = entry.seq
    if seq != state.seq + 1:
        raise ValueError(f"entry {entry.id} follows number {state.seq}")
    day, month = calendar.names(entry.at)
    increments: list[Increment] = []
    issuer = Issuer(state.offer, state.offer_version)
    if state.kind != "wallet":
        issuer = issuer_of(entry, issuer)
        increments += voucher_increments(state.kind, entry, issuer, day)
    if not state.counts_money:
        return Folded(
            replace(
                state,
                seq=seq,
                at=entry.at,
                balance=entry.balance_after,
                held=entry.held_after,
                offer=issuer.offer,
                offer_version=issuer.version,
            ),
            increments,
        )
    return _fold_money(state, entry, (day, month), issuer, calendar, increments)


def _fold_money(
    state: AccountReadModel,
    entry: AnyEntry,
    names: tuple[str, str],
    issuer: Issuer,
    calendar: Calendar,
    increments: list[Increment],
) -> Folded[AccountReadModel]:
    (day, month), amount, kind, asset = names, entry.amount, entry.kind, entry.asset
    book = CohortBook(state.queues, state.consumed)
    net: Net = {}
    for dates, matured in book.mature(entry.at):
        net[dates] = net.get(dates, 0) - matured
        available = (dates[0], None, dates[2], dates[3])
        net[available] = net.get(available, 0) + matured
    flow: Flow | None = flow_of(entry) if amount else None
    campaign, version = "", 0
    if kind in CAMPAIGN_KINDS:
        metadata = entry.metadata
        campaign, number = metadata.get("campaign", ""), metadata.get("version", "")
        version = int(number) if number.isdecimal() else 0
    holds = state.holds
    if entry.lots is None and entry.hold is None:
        moved: Net = {UNDATED: amount} if amount else {}
    else:
        moved, holds = _moved(state, entry)
    if flow is None:
        _shift(book, moved)
    else:
        cohort = Cohort(month, 0, campaign, version)
        _apply(book, moved, entry, flow, cohort)
    for dates, change in moved.items():
        net[dates] = net.get(dates, 0) + change
    promotional = sum(change for dates, change in moved.items() if dates[0] == "promotional")
    if flow is not None or promotional:
        counterparty = entry.counterparty
        offer = entry.metadata.get("offer", "") if kind == PAYMENT_OF_VOUCHER else issuer.offer
        key = (day, asset, flow or "adjusted", kind, counterparty if counterparty.startswith(SYSTEM) else WALLETS, campaign, offer)
        sums = {"amount": amount, "paid": amount - promotional, "promotional": promotional, "count": 1 if amount else 0}
        increments.append(Increment(DAYS, key, sums))
    before, after, held = state.balance, entry.balance_after, entry.held_after - state.held
    increments += _totals(asset, first=state.seq == 0, before=before, after=after, held=held)
    increments += _lots(asset, net, calendar)
    for source, each, move, change in book.movements:
        key = (asset, source, each.month, each.campaign, each.version, move, month)
        increments.append(Increment(COHORTS, key, {"amount": change, "count": 1}))
    if flow is not None and entry.owner.startswith(MEMBER):
        if flow in ("earned", "clawed_back"):
            increments.append(Increment(RANKINGS, (month, asset, entry.owner), {"earned": amount, "spent": 0}))
        elif flow in ("redeemed", "restored"):
            increments.append(Increment(RANKINGS, (month, asset, entry.owner), {"earned": 0, "spent": -amount}))
    queues = book.result()
    caused_by_holder = flow in HOLDER_FLOWS or kind == "hold"
    return Folded(
        AccountReadModel(
            state.id, state.version, state.part, state.account, state.owner, asset, state.kind,
            issuer.offer, issuer.version, state.seq + 1, entry.at, after, entry.held_after, True,
            queues, book.consumed, holds,
            _next_expiry(queues, holds),
            entry.at if caused_by_holder else state.last_activity_at,
        ),
        increments,
    )  # fmt: skip


# --- lots -----------------------------------------------------------------------------------------------------------


def _moved(state: AccountReadModel, entry: AnyEntry) -> tuple[Net, tuple[HeldLots, ...]]:
    """Return the change of each lot with its held value, and the holds after the entry."""
    net: Net = {}
    hold, lots, holds = entry.hold, entry.lots or (), state.holds
    if hold is not None and hold.change > 0:
        # The value is set aside and stays in its lots.
        taken = tuple(replace(lot, amount=-lot.amount) for lot in lots)
        return net, ((*holds, HeldLots(hold.seq, taken)) if taken else holds)
    for lot in lots:
        net[lot.dates] = net.get(lot.dates, 0) + lot.amount
    if hold is not None:
        held = next((each.lots for each in holds if each.seq == hold.seq), ())
        holds = tuple([each for each in holds if each.seq != hold.seq])
        if entry.amount:
            rest = _without(held, lots)
            holds = (*holds, HeldLots(hold.seq, rest)) if rest else holds
        else:
            for lot in held:
                net[lot.dates] = net.get(lot.dates, 0) - lot.amount
    undated = entry.amount - sum(net.values())
    if undated:
        net[UNDATED] = undated
    return {dates: change for dates, change in net.items() if change}, holds


def _without(held: Iterable[Lot], captured: Iterable[Lot]) -> tuple[Lot, ...]:
    """Return what is left of held lots after a capture, whose lots have negative amounts."""
    amounts = {lot.dates: lot.amount for lot in captured}
    rest = [replace(lot, amount=lot.amount + amounts.get(lot.dates, 0)) for lot in held]
    return tuple([lot for lot in rest if lot.amount])


def _apply(book: CohortBook, moved: Net, entry: AnyEntry, flow: Flow, cohort: Cohort) -> None:
    """Apply an entry that changes the balance. `cohort` is that of value that arrives; its amount is 0."""
    move = MOVES[flow]
    if entry.amount < 0:
        campaign = cohort.campaign if flow == "clawed_back" else ""
        for dates, change in moved.items():
            book.leave(dates, -change, move, campaign=campaign, month=cohort.month)
        return
    returns = is_return(entry)
    for dates, change in moved.items():
        part = cohort.of_amount(change)
        if returns:
            book.give_back(dates, part, move)
        else:
            book.arrive(dates, part, move)


def _shift(book: CohortBook, moved: Net) -> None:
    """Apply an entry that moves value between lots or repays a debt, and does not change the balance."""
    if moved:
        before = [(dates, -change) for dates, change in moved.items() if change < 0]
        after = [(dates, change) for dates, change in moved.items() if change > 0 and dates != UNDATED]
        book.shift(before, after, moved.get(UNDATED, 0))


def _next_expiry(queues: Iterable[CohortQueue], holds: tuple[HeldLots, ...]) -> int | None:
    """Return the earliest expiry of value that is not held, or None."""
    earliest: int | None = None
    for queue in queues:
        expires_at = queue.expires_at
        if expires_at is None or (earliest is not None and expires_at >= earliest):
            continue
        if holds:
            # A lot that has expired stays as long as it is held.
            left = sum(cohort.amount for cohort in queue.cohorts)
            left -= sum(lot.amount for hold in holds for lot in hold.lots if lot.dates == queue.dates)
            if not left:
                continue
        earliest = expires_at
    return earliest


# --- aggregates -----------------------------------------------------------------------------------------------------


def _totals(asset: str, *, first: bool, before: int, after: int, held: int) -> list[Increment]:
    if before == after and not held and not first:
        return []
    sums = {"wallets": 1 if first else 0, "balance": after - before, "held": held, "debt": min(after, 0) - min(before, 0)}
    return [Increment(TOTALS, (asset,), sums)]


def _lots(asset: str, net: Net, calendar: Calendar) -> list[Increment]:
    increments: list[Increment] = []
    for dates, change in net.items():
        if change:
            source, available_at, expires_at, _ = dates
            available_on = (
                ""
                if available_at is None
                else "awaiting"
                if available_at == AWAITING_CONFIRMATION
                else calendar.names(available_at)[0]
            )
            expires_on = "" if expires_at is None else calendar.names(expires_at)[0]
            increments.append(Increment(LOTS, (asset, source, available_on, expires_on), {"amount": change}))
    return increments
