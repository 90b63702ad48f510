"""What becomes of an award that waits for an event: released once, as far as it has not been refunded, or lapsed. Pure.

Value that waits lies in a lot of its own, which nobody can spend and which lapses when the event does not come in time. Releasing
makes what is left of the award spendable, with the life that its campaign gives it from then on.
"""

import msgspec

from guerdon.calendar import Calendar
from guerdon.campaigns.allocation import award_lot, rejection_reason
from guerdon.campaigns.domain import Award, AwardWallet, EvaluationInputs, PurchaseRefunds, Release
from guerdon.campaigns.refunds import award_wallet_name, has_expired
from guerdon.clock import rfc3339

CONFIRMED_MAX = 20
"""So many types of events that have confirmed a purchase are remembered for awards that are still to come."""


def lot_of(award: Award) -> str:
    """Names the lot in which an award waits, among the lots that an event releases from."""
    return f"{award_wallet_name(award)}/{award.expires_at}"


def released_now(
    award: Award, known: PurchaseRefunds, wallet: AwardWallet, inputs: EvaluationInputs, calendar: Calendar
) -> tuple[Release | None, str]:
    """Return what an event releases of an award that waits for it, or nothing, and why."""
    now_ms = inputs.decided_at
    before = known.released.get(award.campaign)
    if before is not None:
        return None, f"{before.event} has released it before"
    if award.waits is None or has_expired(award, now_ms):
        return None, f"it has lapsed: the event was to come before {rfc3339(award.expires_at or 0)}"
    amount = award.amount - known.taken.get(award.campaign, 0) + known.spared.get(award.campaign, 0)
    if amount <= 0:
        return None, "nothing is left of it: its purchase was refunded"
    if inputs.waiting is not None:
        amount = min(amount, inputs.waiting.get(lot_of(award), 0))
    if amount <= 0:
        return None, "nothing is left of it: it was taken back by hand"
    lot = award_lot(None, award.waits.expiry, amount, now_ms, calendar)
    # What is released is in the wallet already.
    hindrance = rejection_reason(msgspec.structs.replace(wallet, balance=0), lot)
    if hindrance is not None:
        return None, hindrance
    release = Release(
        campaign=award.campaign, version=award.version, asset=award.asset, amount=amount, expires_at=lot.expires_at, to=award.to
    )
    return release, f"{amount} of {award.amount} are released"
