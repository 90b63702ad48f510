"""Differences between the simulated and the real state: wallets, caps, budgets and qualifying points. Pure: the time is an argument.

Every event stores the inputs of its evaluation. The simulated state is these inputs plus the difference between simulated and real awards
so far. Everything that the simulation does not change (spending, manual credits, freezes, earlier history) therefore is as recorded, and
a campaign that was really active gives exactly its real result.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import Award, AwardWallet, EvaluationInputs, Release
from guerdon.ledger.models import LOTS_MAX
from guerdon.simulations.models import LotDifference, SimulatedMember, Usage
from guerdon.tiers.rules import QualifyingGain, add_gains

Usages = dict[str, Usage]
"""Usage by account."""


# --- wallets ----------------------------------------------------------------------------------------------------------


def simulated_wallet(member: SimulatedMember, asset: str, wallet_name: str, inputs: EvaluationInputs) -> AwardWallet:
    """Return the real wallet of the event, or else the last known one, plus the differences of the simulation.

    `wallet_name` is the key of the wallet in `inputs.wallets`.
    """
    real = inputs.wallets.get(wallet_name) or member.wallets.get(asset) or AwardWallet()
    differences = [each for each in member.changes.get(asset, ()) if not _has_expired(each, inputs.decided_at)]
    if not differences:
        return real
    spendable = sum(each.amount for each in differences if not _is_pending(each, inputs.decided_at))
    full = real.full
    if full is None and len(differences) >= LOTS_MAX:
        full = tuple(("promotional", each.available_at, each.expires_at) for each in differences)
    return msgspec.structs.replace(
        real,
        balance=real.balance + sum(each.amount for each in differences),
        available=max(0, real.available + spendable),
        full=full,
    )


def update_wallets(
    member: SimulatedMember,
    inputs: EvaluationInputs,
    simulated: Sequence[Award],
    real: Sequence[Award],
    sources: tuple[Sequence[Award], Sequence[Award]],
) -> None:
    """Apply the simulated and the real awards of an event to one member.

    `sources` are the awards that clawbacks take from, simulated and real.
    """
    for award in real:
        wallet = member.wallets.get(award.asset, AwardWallet())
        spendable = award.amount if award.available_at is None else 0
        member.wallets[award.asset] = msgspec.structs.replace(
            wallet, balance=wallet.balance + award.amount, available=max(0, wallet.available + spendable)
        )
    differences: dict[str, list[LotDifference]] = {}
    for sign, awards, source in ((1, simulated, sources[0]), (-1, real, sources[1])):
        for award in awards:
            available_at, expires_at = _lot_dates(award, source)
            differences.setdefault(award.asset, []).append(
                LotDifference(amount=sign * award.amount, available_at=available_at, expires_at=expires_at)
            )
    for asset, added in differences.items():
        _add_differences(member, asset, added, inputs.decided_at)


def update_released(member: SimulatedMember, inputs: EvaluationInputs, release: Release, pending: Award, sign: int) -> None:
    """Apply the release of a pending award: `sign` is 1 for a simulated release and -1 for a real one."""
    if sign < 0 and (wallet := member.wallets.get(release.asset)) is not None:
        member.wallets[release.asset] = msgspec.structs.replace(wallet, available=wallet.available + release.amount)
    amount = sign * release.amount
    removed = LotDifference(amount=-amount, available_at=pending.available_at, expires_at=pending.expires_at)
    added = LotDifference(amount=amount, expires_at=release.expires_at)
    _add_differences(member, release.asset, [removed, added], inputs.decided_at)


def _add_differences(member: SimulatedMember, asset: str, added: Sequence[LotDifference], now_ms: int) -> None:
    merged = _merge([*member.changes.get(asset, ()), *added], now_ms)
    if merged:
        member.changes[asset] = merged
    else:
        member.changes.pop(asset, None)


def _lot_dates(award: Award, source: Sequence[Award]) -> tuple[int | None, int | None]:
    """Return `available_at` and `expires_at` of the lot that an award creates, or that a clawback takes from."""
    if award.amount < 0:
        award = next((each for each in source if each.campaign == award.campaign and each.amount > 0), award)
    return award.available_at, award.expires_at


def _merge(differences: Iterable[LotDifference], now_ms: int) -> list[LotDifference]:
    """Return the sum of the unexpired differences for each pair of dates, without zeros."""
    sums: dict[tuple[int | None, int | None], int] = {}
    for each in differences:
        if not _has_expired(each, now_ms):
            dates = each.available_at if _is_pending(each, now_ms) else None, each.expires_at
            sums[dates] = sums.get(dates, 0) + each.amount
    return [LotDifference(amount=amount, available_at=dates[0], expires_at=dates[1]) for dates, amount in sums.items() if amount]


def _has_expired(difference: LotDifference, now_ms: int) -> bool:
    return difference.expires_at is not None and difference.expires_at <= now_ms


def _is_pending(difference: LotDifference, now_ms: int) -> bool:
    return difference.available_at is not None and difference.available_at > now_ms


def store_real_wallets(member: SimulatedMember, inputs: EvaluationInputs, prefix: str = "") -> None:
    """Store the member's real wallets from the inputs of an event; `prefix` selects their keys in `inputs.wallets`."""
    for name, wallet in inputs.wallets.items():
        asset = name.removeprefix(prefix)
        if f"{prefix}{asset}" == name and ":" not in asset:
            member.wallets[asset] = wallet


# --- caps and budgets -------------------------------------------------------------------------------------------------


def simulated_usage(usages: Usages, account: str, inputs: EvaluationInputs, *, was_read: bool) -> int:
    """Return the simulated usage of a cap or a budget.

    Where it differs from the real usage, it is at least everything that the simulation has counted. `was_read` is True if the real
    evaluation read the account, so that an account missing from the inputs had no usage.
    """
    usage = usages.get(account)
    if usage is None:
        return inputs.used.get(account, 0)
    real = inputs.used.get(account, 0 if was_read else usage.real)
    return max(real + usage.moved, usage.own) if usage.moved else real


def update_usages(usages: Usages, inputs: EvaluationInputs, simulated: Sequence[Award], real: Sequence[Award], prefix: str) -> None:
    """Count the simulated and the real awards of an event against the accounts whose ids begin with `prefix`."""
    for account, used in inputs.used.items():
        if account.startswith(prefix):
            usages.setdefault(account, Usage()).real = used
    for award in real:
        for account in award.counted:
            if account.startswith(prefix):
                usage = usages.setdefault(account, Usage())
                usage.real = max(0, usage.real + award.amount)
                usage.moved -= award.amount
    for award in simulated:
        for account in award.counted:
            if account.startswith(prefix):
                usage = usages.setdefault(account, Usage())
                usage.own = max(0, usage.own + award.amount)
                usage.moved += award.amount


def newest_periods(usages: Usages) -> Usages:
    """Return the usages of the newest period of each cap: events are processed in chronological order, so earlier ones are not read."""
    kept: dict[tuple[str, str], str] = {}
    for account in sorted(usages):
        window, _, campaign = account.rpartition(":")[2].partition(".")
        # With all digits replaced by 0, a window names its kind of period: `2026-11-22`, `2026-W47`, `2026-11` and `ever` all differ.
        kept[campaign, window.translate(_DIGITS)] = account
    return {account: usages[account] for account in kept.values()}


_DIGITS = str.maketrans("0123456789", "0" * 10)


# --- tiers ------------------------------------------------------------------------------------------------------------


def simulated_qualifying(member: SimulatedMember, inputs: EvaluationInputs) -> dict[str, dict[str, int]]:
    """Return the simulated qualifying points by asset and month."""
    sums = {asset: dict(months) for asset, months in inputs.qualifying.items()}
    for asset, months in member.qualifying.items():
        simulated = sums.setdefault(asset, {})
        for month, points in months.items():
            simulated[month] = simulated.get(month, 0) + points
    return sums


def update_qualifying(
    member: SimulatedMember,
    inputs: EvaluationInputs,
    simulated: Sequence[QualifyingGain],
    real: Sequence[QualifyingGain],
    calendar: Calendar,
) -> None:
    """Apply the simulated and the real qualifying points of an event to its member."""
    if list(simulated) == list(real):
        return
    subtracted = [msgspec.structs.replace(gain, amount=-gain.amount) for gain in real]
    sums = add_gains(member.qualifying, [*simulated, *subtracted], inputs.decided_at, calendar)
    member.qualifying = {asset: kept for asset, months in sums.items() if (kept := _without_zeros(months))}


def _without_zeros(months: Mapping[str, int]) -> dict[str, int]:
    return {month: points for month, points in months.items() if points}
