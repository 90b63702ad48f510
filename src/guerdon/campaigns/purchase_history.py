"""Times of a member's purchases, so that a late event is evaluated as of the time at which it occurred. Pure."""

from collections.abc import Sequence

import msgspec

from guerdon.campaigns.domain import MemberState

PURCHASES_KEPT = 64
"""Number of purchases, the newest, whose times a member state keeps. Data of a point of sale that arrives late is older than few of them."""


def last_purchase_before(state: MemberState, at_ms: int) -> int | None:
    """Return the time of the last purchase at or before a time, or None.

    If the time is before all kept purchases and there were others, the last one is not known. The oldest kept one is returned, so that
    `days_since_last` is 0: a campaign that waits for members to come back then pays nothing.
    """
    kept = _kept(state)
    before = [each for each in kept if each <= at_ms]
    if before:
        return before[-1]
    return kept[0] if kept and state.purchases > len(kept) else None


def with_purchase(state: MemberState, at_ms: int) -> MemberState:
    """Return the state after a further purchase at a time."""
    kept = _kept(state)
    if not kept or at_ms >= kept[0] or state.purchases <= len(kept):
        kept = sorted([*kept, at_ms])[-PURCHASES_KEPT:]
    return msgspec.structs.replace(state, purchases=state.purchases + 1, last_purchase_at=kept[-1], purchase_times=tuple(kept))


def _kept(state: MemberState) -> list[int]:
    """Return the kept times, oldest first. States from before the times were kept have the last one only."""
    if state.purchase_times or state.last_purchase_at is None:
        return list(state.purchase_times)
    return [state.last_purchase_at]


def knows_other_purchases(state: MemberState, at_ms: int) -> bool:
    """Return whether the state knows the last purchase that is left without one purchase at this time."""
    return state.purchases <= 1 or bool(_without(state.purchase_times, at_ms))


def without_purchase(state: MemberState, at_ms: int, times_left: Sequence[int] | None) -> MemberState:
    """Return the state without one purchase at a time. `times_left` are the times of the others, if the state does not know them."""
    kept = list(_without(state.purchase_times, at_ms) if times_left is None else times_left)
    purchases = state.purchases - 1
    return msgspec.structs.replace(
        state, purchases=purchases, last_purchase_at=kept[-1] if kept and purchases else None, purchase_times=tuple(kept)
    )


def _without(times: Sequence[int], at_ms: int) -> list[int]:
    left = list(times)
    if at_ms in left:
        left.remove(at_ms)
    return left
