"""Events: recorded once, judged by every live campaign, paid in the same commit."""

from collections.abc import Sequence
from typing import cast

import msgspec
from msgspec import UNSET

from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import GuerdonError, NotFound, Validation
from guerdon.http import utc_ms
from guerdon.identity.service import Identity
from guerdon.ids import digest
from guerdon.ledger.models import Account, Command, Outcome
from guerdon.ledger.service import Ledger
from guerdon.rewards.campaigns import Campaigns
from guerdon.rewards.models import EVENTS, EventCreate, Item, RecordedEvent, ShopEvent
from guerdon.rewards.rules import LiveCampaign, Recording, Subject, already_recorded, event_command, judge
from guerdon.security import NOBODYS, Actor
from guerdon.wallets.service import new_account

_canonical = msgspec.json.Encoder(order="sorted")


class Events:
    """What happened in the shop, and what it earned."""

    def __init__(self, ledger: Ledger, identity: Identity, campaigns: Campaigns, *, database: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._identity = identity
        self._campaigns = campaigns
        self._collection = database.collection(EVENTS, RecordedEvent)
        self._clock = clock

    async def record(self, actor: Actor, event: ShopEvent) -> tuple[RecordedEvent, bool]:
        """Record an event and pay its awards in one commit; return it and whether it was recorded before.

        Raises:
            NotFound: the event names a member id that does not exist.
            EventReused: the id belongs to another event.
        """
        campaigns = await self._campaigns.list_live()
        subject = await self._subject(event, campaigns, create=True)
        command = self._command(actor, event, subject, campaigns)
        return _recorded(await self._ledger.submit(command))

    async def record_all(
        self, actor: Actor, events: Sequence[ShopEvent], campaigns: Sequence[LiveCampaign]
    ) -> list[tuple[RecordedEvent, bool] | GuerdonError]:
        """Record many events, judged by exactly the given campaigns; an import of history names its own.

        Raises:
            NotFound: an event names a member id that does not exist; nothing was done.
        """
        strangers = {event.external_id for event in events if event.external_id is not None}
        member_ids = await self._identity.ensure_members(strangers) if strangers else {}
        whole = any(live.reads_member for live in campaigns)
        commands: list[Command] = []
        for event in events:
            known = event.member_id if event.external_id is None else member_ids[event.external_id]
            subject = Subject(known, event.external_id) if known and not whole else await self._whole_subject(known)
            commands.append(self._command(actor, event, subject, campaigns))
        verdicts = await self._ledger.submit_all(commands)
        return [_recorded(verdict) if isinstance(verdict, Outcome) else verdict for verdict in verdicts]

    async def preview(self, actor: Actor, event: ShopEvent) -> RecordedEvent:
        """Judge like `record`, on the balances of this moment, and write nothing, not even a new member.

        Raises:
            NotFound: the event names a member id that does not exist.
            EventReused: the id belongs to another event.
        """
        campaigns = await self._campaigns.list_live()
        subject = await self._subject(event, campaigns, create=False)
        command = self._command(actor, event, subject, campaigns, preview=True)
        recorded, _ = _recorded(await self._ledger.preview(command))
        return recorded

    async def get_event(self, actor: Actor, event_id: str) -> RecordedEvent:
        """
        Raises:
            NotFound: no such event, or not the caller's.
        """
        event = await self._collection.get(event_id)
        if event is None:
            raise NotFound(NOBODYS)
        actor.require_reach(event.owner)
        return event

    def _command(
        self, actor: Actor, event: ShopEvent, subject: Subject, campaigns: Sequence[LiveCampaign], *, preview: bool = False
    ) -> Command:
        owner = subject.id or ""
        judgements = judge(event, subject, campaigns, self._clock.now_ms())
        recording = Recording(
            event=event,
            owner=owner,
            actor=actor.id,
            fingerprint=_fingerprint(owner, event),
            judgements=judgements,
            preview=preview,
        )

        def open_wallet(asset: str, now_ms: int) -> Account:
            return new_account(owner, asset, now_ms)

        return event_command(recording, open_wallet=open_wallet, encode=self._collection.encode, decode=self._collection.decode)

    async def _subject(self, event: ShopEvent, campaigns: Sequence[LiveCampaign], *, create: bool) -> Subject:
        """Find the member, or make one; what is not needed is not read."""
        member_id = event.member_id
        if event.external_id is not None:
            member_id = await self._identity.find_member_id(event.external_id)
            if member_id is None and create:
                # A refused event must not leave a member behind: what is recorded already cannot be somebody unknown's.
                if await self._collection.get(event.id) is not None:
                    raise already_recorded(event.id)
                member_id = await self._identity.ensure_member(event.external_id)
            if member_id is None or not any(live.reads_member for live in campaigns):
                return Subject(member_id, event.external_id)
        return await self._whole_subject(member_id)

    async def _whole_subject(self, member_id: str | None) -> Subject:
        if member_id is None:
            raise NotFound("the event names no member")
        profile = (await self._identity.get_person(member_id)).profile
        return Subject(member_id, profile.external_id, profile.attributes)


def shop_event(body: EventCreate) -> ShopEvent:
    """Return the event that a request describes.

    Raises:
        Validation: it names no member or two, or a time without an offset.
    """
    external_id = None if body.member.external_id is UNSET else body.member.external_id
    member_id = None if body.member.id is UNSET else body.member.id
    if (external_id is None) == (member_id is None):
        raise Validation.at("/member", "name the member by exactly one of external_id and id")
    return ShopEvent(
        id=body.id,
        type=body.type,
        occurred_at=utc_ms(body.occurred_at, "/occurred_at"),
        amount=body.amount,
        currency=body.currency,
        external_id=external_id,
        member_id=member_id,
        items=tuple(
            Item(
                sku=item.sku,
                quantity=item.quantity,
                unit_price=0 if item.unit_price is UNSET else item.unit_price,
                category=item.category,
            )
            for item in body.items
        ),
        attributes=body.attributes,
    )


def _fingerprint(owner: str, event: ShopEvent) -> bytes:
    """What makes an event the same one. The member counts by our own id: a digest of the shop's would be a way to try names for ever."""
    return digest(owner, _canonical.encode(msgspec.structs.replace(event, external_id=None, member_id=None)))[:16]


def _recorded(outcome: Outcome) -> tuple[RecordedEvent, bool]:
    return cast(tuple[RecordedEvent, bool], outcome.value)
