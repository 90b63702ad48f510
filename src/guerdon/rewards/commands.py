"""Which command an event is."""

from guerdon.ledger.models import Command
from guerdon.rewards.refunding import RefundRule
from guerdon.rewards.rules import EventRule, OpenWallet, Recording, Stored


def event_command(recording: Recording, open_wallet: OpenWallet, stored: Stored) -> Command:
    """Record the event and pay its awards in one commit. The same event again recalls the first answer.

    `decide` raises EventReused when the id belongs to another event.
    """
    linked = recording.event.refund_of is not None
    return (RefundRule if linked else EventRule)(recording, open_wallet, stored).command()
