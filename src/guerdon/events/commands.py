"""Which command an event is."""

from guerdon.events.confirmation import ConfirmationRule
from guerdon.events.record import EventCodec, EventRule, OpenWallet, RecordRequest, RecordResult
from guerdon.events.refund import RefundRule
from guerdon.ledger.models import Command


def event_command(recording: RecordRequest, open_wallet: OpenWallet, stored: EventCodec) -> Command[RecordResult]:
    """Record the event and pay its awards in one commit. The same event again recalls the first answer.

    `decide` raises EventReused when the id belongs to another event.
    """
    event = recording.event
    rule = EventRule if event.about is None else ConfirmationRule if event.refund_of is None else RefundRule
    return rule(recording, open_wallet, stored).command()
