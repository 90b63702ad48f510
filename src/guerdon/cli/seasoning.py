"""What a replay can be seasoned with: campaigns from a file, another order, and events that are sent twice."""

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from guerdon.campaigns.domain import ShopEvent
from guerdon.campaigns.evaluation import LiveCampaign, sort_by_priority
from guerdon.campaigns.models import CAMPAIGNS_LIVE_MAX, CampaignCreate
from guerdon.database import DuplicateKeyError
from guerdon.errors import StartupRefused, Validation
from guerdon.ids import digest
from guerdon.permissions import Actor
from guerdon.wiring.services import Services

FILE_BYTES_MAX = 4_000_000
_Bodies = Annotated[list[CampaignCreate], Meta(min_length=1, max_length=CAMPAIGNS_LIVE_MAX)]


class Seasoning(Struct, frozen=True):
    """How history is fed in; without anything as it stands in the file, judged by the replay's own campaign."""

    campaigns: Sequence[CampaignCreate] = ()
    seed: int | None = None
    """Shuffle the events, always alike for the same number."""
    again_percent: int = 0
    """So many of a hundred events are sent a second time, somewhere after the first."""


def read_campaigns(path: Path) -> list[CampaignCreate]:
    """Read a JSON list of campaigns, each as `POST /v1/campaigns` takes it.

    Raises:
        StartupRefused: there is no such file, or it is not such a list.
    """
    try:
        with path.open("rb") as handle:
            return msgspec.json.decode(handle.read(FILE_BYTES_MAX), type=_Bodies)
    except OSError as error:
        raise StartupRefused(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{path} is not a list of campaigns: {error}") from None


async def ensure_campaigns(services: Services, actor: Actor, bodies: Sequence[CampaignCreate]) -> list[LiveCampaign]:
    """Make the campaigns that are not there yet, as drafts: they judge what is replayed and nothing that happens today.

    Each is known by what it says and its place in the file, so that a replay that was killed finds its own again.

    Raises:
        StartupRefused: one of them would not be accepted.
    """
    found: list[LiveCampaign] = []
    for place, body in enumerate(bodies):
        campaign_id = f"cmp_{digest('replay', str(place), msgspec.json.encode(body, order='sorted'))[:16].hex()}"
        if not await services.campaigns.exists(campaign_id):
            try:
                with suppress(DuplicateKeyError):  # Another replay was quicker.
                    await services.campaigns.create(actor, body, campaign_id=campaign_id)
            except Validation as error:
                raise StartupRefused(f"campaign {place + 1} of the file: {error.detail}") from None
        found.append(LiveCampaign.of(await services.campaigns.get_campaign(campaign_id)))
    return sort_by_priority(found)


def seasoned(events: list[ShopEvent], seasoning: Seasoning) -> list[ShopEvent]:
    """Return the events in the order in which they are sent."""
    # Nothing here is a secret: the same number has to give the same order.
    chance = random.Random(seasoning.seed or 0)
    if seasoning.seed is not None:
        events = chance.sample(events, len(events))
    again = len(events) * seasoning.again_percent // 100
    places = {place: chance.randint(place + 1, len(events)) for place in chance.sample(range(len(events)), again)}
    twice: dict[int, list[ShopEvent]] = {}
    for place, after in places.items():
        twice.setdefault(after, []).append(events[place])
    sent: list[ShopEvent] = []
    for place in range(len(events) + 1):
        sent += [*twice.get(place, ()), *events[place : place + 1]]
    return sent
