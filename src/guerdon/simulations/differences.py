"""How a simulated world differs from the real one: wallets, caps, budgets and points for tiers. Pure: the time is an argument.

What an event was really judged on is stored with it. The simulated world is that, and on top of it what the simulation has paid more or
less until then. So what it does not change (spending, credits by hand, freezes, what was before) is as it was, and a campaign that was
really active comes out as it really did.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import Award, AwardWallet, EvaluationInputs, Release
from guerdon.ledger.models import LOTS_MAX
from guerdon.simulations.models import LotDifference, SimulatedMember, Use
from guerdon.tiers.rules import QualifyingGain, counted

Uses = dict[str, Use]


# --- wallets ----------------------------------------------------------------------------------------------------------


def simulated_wallet(member: SimulatedMember, asset: str, place: str, inputs: EvaluationInputs) -> AwardWallet:
    """The wallet as it really was, or was when somebody last looked, with what the simulation has changed.

    `place` is its name among the wallets of the decision.
    """
    real = inputs.wallets.get(place) or member.wallets.get(asset) or AwardWallet()
    changes = [each for each in member.changes.get(asset, ()) if not _lapsed(each, inputs.decided_at)]
    if not changes:
        return real
    spendable = sum(each.amount for each in changes if not _waits(each, inputs.decided_at))
    full = real.full
    if full is None and len(changes) >= LOTS_MAX:
        full = tuple(("promotional", each.available_at, each.expires_at) for each in changes)
    return msgspec.structs.replace(
        real,
        balance=real.balance + sum(each.amount for each in changes),
        available=max(0, real.available + spendable),
        full=full,
    )


def move_wallets(
    member: SimulatedMember,
    inputs: EvaluationInputs,
    simulated: Sequence[Award],
    real: Sequence[Award],
    sources: tuple[Sequence[Award], ...],
) -> None:
    """Book what an event paid to one member in both worlds. `sources` are the awards that take-backs are about, simulated and real."""
    for award in real:
        wallet = member.wallets.get(award.asset, AwardWallet())
        spendable = award.amount if award.available_at is None else 0
        member.wallets[award.asset] = msgspec.structs.replace(
            wallet, balance=wallet.balance + award.amount, available=max(0, wallet.available + spendable)
        )
    moved: dict[str, list[LotDifference]] = {}
    for sign, awards, source in ((1, simulated, sources[0]), (-1, real, sources[1])):
        for award in awards:
            available_at, expires_at = _dates_of(award, source)
            moved.setdefault(award.asset, []).append(
                LotDifference(amount=sign * award.amount, available_at=available_at, expires_at=expires_at)
            )
    for asset, changes in moved.items():
        _change(member, asset, changes, inputs.decided_at)


def move_release(member: SimulatedMember, inputs: EvaluationInputs, release: Release, waiting: Award, sign: int) -> None:
    """Book what has become spendable of an award that waited: in the simulated world, or with a `sign` of -1 in the real one."""
    if sign < 0 and (wallet := member.wallets.get(release.asset)) is not None:
        member.wallets[release.asset] = msgspec.structs.replace(wallet, available=wallet.available + release.amount)
    amount = sign * release.amount
    there = LotDifference(amount=-amount, available_at=waiting.available_at, expires_at=waiting.expires_at)
    _change(member, release.asset, [there, LotDifference(amount=amount, expires_at=release.expires_at)], inputs.decided_at)


def _change(member: SimulatedMember, asset: str, changes: Sequence[LotDifference], now_ms: int) -> None:
    left = _merged([*member.changes.get(asset, ()), *changes], now_ms)
    if left:
        member.changes[asset] = left
    else:
        member.changes.pop(asset, None)


def _dates_of(award: Award, source: Sequence[Award]) -> tuple[int | None, int | None]:
    """The dates of the lot that an award makes, or that it is taken back from."""
    if award.amount < 0:
        award = next((each for each in source if each.campaign == award.campaign and each.amount > 0), award)
    return award.available_at, award.expires_at


def _merged(changes: Iterable[LotDifference], now_ms: int) -> list[LotDifference]:
    """The changes that still matter, one for each pair of dates."""
    sums: dict[tuple[int | None, int | None], int] = {}
    for each in changes:
        if not _lapsed(each, now_ms):
            dates = each.available_at if _waits(each, now_ms) else None, each.expires_at
            sums[dates] = sums.get(dates, 0) + each.amount
    return [LotDifference(amount=amount, available_at=dates[0], expires_at=dates[1]) for dates, amount in sums.items() if amount]


def _lapsed(change: LotDifference, now_ms: int) -> bool:
    return change.expires_at is not None and change.expires_at <= now_ms


def _waits(change: LotDifference, now_ms: int) -> bool:
    return change.available_at is not None and change.available_at > now_ms


def see_wallets(member: SimulatedMember, inputs: EvaluationInputs, prefix: str = "") -> None:
    """Note how the member's wallets really were; they stand behind `prefix` among those of the decision."""
    for place, wallet in inputs.wallets.items():
        asset = place.removeprefix(prefix)
        if f"{prefix}{asset}" == place and ":" not in asset:
            member.wallets[asset] = wallet


# --- caps and budgets -------------------------------------------------------------------------------------------------


def simulated_use(uses: Uses, account: str, inputs: EvaluationInputs, *, looked: bool) -> int:
    """What is counted against a cap or a budget. Where the simulation has gone its own way, at least all that it has counted itself.

    `looked`: whether it was really looked at, so that what is not recorded of it was not there.
    """
    use = uses.get(account)
    if use is None:
        return inputs.used.get(account, 0)
    real = inputs.used.get(account, 0 if looked else use.real)
    return max(real + use.moved, use.own) if use.moved else real


def move_uses(uses: Uses, inputs: EvaluationInputs, simulated: Sequence[Award], real: Sequence[Award], prefix: str) -> None:
    """Count what an event paid in both worlds against the accounts whose names begin with `prefix`."""
    for account, used in inputs.used.items():
        if account.startswith(prefix):
            uses.setdefault(account, Use()).real = used
    for award in real:
        for account in award.counted:
            if account.startswith(prefix):
                use = uses.setdefault(account, Use())
                use.real = max(0, use.real + award.amount)
                use.moved -= award.amount
    for award in simulated:
        for account in award.counted:
            if account.startswith(prefix):
                use = uses.setdefault(account, Use())
                use.own = max(0, use.own + award.amount)
                use.moved += award.amount


def newest(uses: Uses) -> Uses:
    """The counters of the newest periods: events come in the order in which they occurred, so nobody asks for the others again."""
    kept: dict[tuple[str, str], str] = {}
    for account in sorted(uses):
        window, _, campaign = account.rpartition(":")[2].partition(".")
        # `2026-11-22`, `2026-W47`, `2026-11` and `ever` differ in their digits' places.
        kept[campaign, window.translate(_DIGITS)] = account
    return {account: uses[account] for account in kept.values()}


_DIGITS = str.maketrans("0123456789", "0" * 10)


# --- tiers ------------------------------------------------------------------------------------------------------------


def simulated_qualifying(member: SimulatedMember, inputs: EvaluationInputs) -> dict[str, dict[str, int]]:
    """What counts for the tier, by asset and month."""
    sums = {asset: dict(months) for asset, months in inputs.qualifying.items()}
    for asset, months in member.qualifying.items():
        there = sums.setdefault(asset, {})
        for month, points in months.items():
            there[month] = there.get(month, 0) + points
    return sums


def move_qualifying(
    member: SimulatedMember,
    inputs: EvaluationInputs,
    simulated: Sequence[QualifyingGain],
    real: Sequence[QualifyingGain],
    calendar: Calendar,
) -> None:
    """Book what counts for tiers in both worlds."""
    if list(simulated) == list(real):
        return
    lost = [msgspec.structs.replace(gain, amount=-gain.amount) for gain in real]
    sums = counted(member.qualifying, [*simulated, *lost], inputs.decided_at, calendar)
    member.qualifying = {asset: kept for asset, months in sums.items() if (kept := _without_zeros(months))}


def _without_zeros(months: Mapping[str, int]) -> dict[str, int]:
    return {month: points for month, points in months.items() if points}
