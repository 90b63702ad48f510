"""Fold of ledger entries into the state of their account and the aggregates of money and vouchers. Pure.

Entries of one account are folded in the order of their `seq`. Every entry that changes the balance of a wallet belongs to exactly one flow.
An entry that changes no balance and moves value from promotional to paid, as a repaid debt does, has a row of amount 0 in the flow `adjusted`,
so that the rows add up to the balances by source too.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from guerdon.calendar import Calendar
from guerdon.ledger.models import AWAITING_CONFIRMATION, COUNTED, SYSTEM
from guerdon.money import is_asset_code
from guerdon.projections.models import Folded, Increment, Target
from guerdon.views.cohorts import CohortBook
from guerdon.views.effects import Net, apply, campaign_of, moved_by
from guerdon.views.entries import AnyEntry
from guerdon.views.flows import HOLDER_FLOWS, WALLETS, flow_of
from guerdon.views.models import COHORTS, DAYS, LOTS, RANKINGS, TOTALS, AccountReadModel, Cohort, CohortQueue, Flow, HeldLots
from guerdon.views.voucher_steps import Issuer, issuer_of, voucher_increments

MEMBER, CARD = "mem_", "vch_"


def new_account(entry: AnyEntry, target: Target) -> AccountReadModel:
    """Return the state of an account before its first entry."""
    version, part = target
    account, asset = entry.account, entry.asset
    counts_money = is_asset_code(asset) and entry.counterparty != COUNTED
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
    campaign, version = campaign_of(entry)
    moved, held, holds = moved_by(entry, state.holds)
    apply(book, moved, entry, flow, Cohort(month, 0, campaign, version))
    for dates, change in moved.items():
        net[dates] = net.get(dates, 0) + change
    promotional = sum(change for dates, change in moved.items() if dates[0] == "promotional")
    if flow is not None or promotional:
        counterparty = entry.counterparty
        offer = issuer.offer or _paid_offer(entry)
        key = (day, asset, flow or "adjusted", kind, counterparty if counterparty.startswith(SYSTEM) else WALLETS, campaign, offer)
        sums = {"amount": amount, "paid": amount - promotional, "promotional": promotional, "count": 1 if amount else 0}
        increments.append(Increment(DAYS, key, sums))
    before, after, held_change = state.balance, entry.balance_after, entry.held_after - state.held
    increments += _totals(asset, first=state.seq == 0, before=before, after=after, held=held_change)
    increments += _lots(asset, net, held, calendar)
    for source, each, move, change in book.movements:
        key = (asset, source, each.month, each.campaign, each.version, move, month)
        increments.append(Increment(COHORTS, key, {"amount": change, "count": 1}))
    if flow is not None and entry.owner.startswith(MEMBER):
        if flow in ("earned", "clawed_back"):
            increments += _rankings(month, asset, entry.owner, {"earned": amount, "spent": 0})
        elif flow in ("redeemed", "restored"):
            increments += _rankings(month, asset, entry.owner, {"earned": 0, "spent": -amount})
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


def _paid_offer(entry: AnyEntry) -> str:
    """Return the offer whose price a wallet paid or got back, or "".

    The price is returned by a reversal of its own without a key; callers, who choose the metadata of their reversals, send one.
    """
    returned = entry.kind == "reversal" and entry.key is None and entry.transaction is None
    return entry.metadata.get("offer", "") if returned or entry.kind == "redeem" else ""


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


def _rankings(month: str, asset: str, owner: str, sums: dict[str, int]) -> list[Increment]:
    return [Increment(RANKINGS, (period, asset, owner), sums) for period in (month, month[:4], "all")]


def _lots(asset: str, net: Net, held: Net, calendar: Calendar) -> list[Increment]:
    increments: list[Increment] = []
    both: Net = {**net, **held} if held else net
    for dates in both:
        change, held_change = net.get(dates, 0), held.get(dates, 0)
        if change or held_change:
            source, available_at, expires_at, _ = dates
            key = (asset, source, _day_of(available_at, calendar), _day_of(expires_at, calendar))
            increments.append(Increment(LOTS, key, {"amount": change, "held": held_change}))
    return increments


def _day_of(at: int | None, calendar: Calendar) -> str:
    """Return the day of a date of a lot."""
    return "" if at is None else "awaiting" if at == AWAITING_CONFIRMATION else calendar.names(at)[0]
