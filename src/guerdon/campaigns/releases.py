"""Release of awards that wait for an event: once, and as far as they were not refunded and have not expired. Pure.

A waiting award lies in a lot that cannot be spent, and that expires if the event does not occur in time. Its release makes the rest of the
award spendable, with the expiry of its campaign counted from the release.
"""

import msgspec

from guerdon.calendar import Calendar
from guerdon.campaigns.allocation import rejection_reason
from guerdon.campaigns.domain import Award, AwardWallet, EvaluationInputs, PurchaseRefunds, Release
from guerdon.campaigns.periods import expires_at
from guerdon.campaigns.refunds import has_expired, lot_name
from guerdon.clock import rfc3339
from guerdon.ledger.models import Lot

CONFIRMED_MAX = 20
"""Maximum number of confirming event types that are kept for a purchase that has not been recorded yet."""


def released_now(
    award: Award, known: PurchaseRefunds, wallet: AwardWallet, inputs: EvaluationInputs, calendar: Calendar
) -> tuple[Release | None, str]:
    """Return what an event releases of an award that waits for it, or None, and the reason."""
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
        amount = min(amount, inputs.waiting.get(lot_name(award), 0))
    if amount <= 0:
        return None, "nothing is left of it: it was taken back by hand"
    lot = Lot(amount, "promotional", expires_at=expires_at(award.waits.expiry, now_ms, calendar))
    # The amount is part of the balance already, so the ceiling cannot reject it.
    rejection = rejection_reason(msgspec.structs.replace(wallet, balance=0), lot)
    if rejection is not None:
        return None, rejection
    release = Release(
        campaign=award.campaign, version=award.version, asset=award.asset, amount=amount, expires_at=lot.expires_at, to=award.to
    )
    return release, f"{amount} of {award.amount} are released"
