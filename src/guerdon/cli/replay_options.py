"""Options of `guerdon replay`: campaigns from a file, a shuffled order, and events that are sent twice."""

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
_CampaignList = Annotated[list[CampaignCreate], Meta(min_length=1, max_length=CAMPAIGNS_LIVE_MAX)]


class ReplayOptions(Struct, frozen=True):
    """Options of a replay. By default, events keep the order of the file and the replay uses its own campaign."""

    campaigns: Sequence[CampaignCreate] = ()
    seed: int | None = None
    """Seed of the shuffle; None keeps the order of the file."""
    again_percent: int = 0
    """Percentage of events that are sent a second time, at a random position after the first."""


def read_campaigns(path: Path) -> list[CampaignCreate]:
    """Read a JSON list of campaigns, each in the form of `POST /v1/campaigns`.

    Raises:
        StartupRefused: the file does not exist, or is not a list of campaigns.
    """
    try:
        with path.open("rb") as handle:
            return msgspec.json.decode(handle.read(FILE_BYTES_MAX), type=_CampaignList)
    except OSError as error:
        raise StartupRefused(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StartupRefused(f"{path} is not a list of campaigns: {error}") from None


async def ensure_campaigns(services: Services, actor: Actor, bodies: Sequence[CampaignCreate]) -> list[LiveCampaign]:
    """Create the campaigns that do not exist yet, and return all of them by priority.

    They stay drafts, so they apply to replayed events only. The id of a campaign is derived from its content and its index in the file, so a
    replay that was killed finds its campaigns again.

    Raises:
        StartupRefused: a campaign is invalid.
    """
    found: list[LiveCampaign] = []
    for index, body in enumerate(bodies):
        campaign_id = f"cmp_{digest('replay', str(index), msgspec.json.encode(body, order='sorted'))[:16].hex()}"
        if not await services.campaigns.exists(campaign_id):
            try:
                with suppress(DuplicateKeyError):  # Another replay has created it in the meantime.
                    await services.campaigns.create(actor, body, campaign_id=campaign_id)
            except Validation as error:
                raise StartupRefused(f"campaign {index + 1} of the file: {error.detail}") from None
        found.append(LiveCampaign.of(await services.campaigns.get_campaign(campaign_id)))
    return sort_by_priority(found)


def arrange(events: list[ShopEvent], options: ReplayOptions) -> list[ShopEvent]:
    """Return the events in the order in which they are sent, including the repetitions."""
    rng = random.Random(options.seed or 0)
    if options.seed is not None:
        events = rng.sample(events, len(events))
    repeated_count = len(events) * options.again_percent // 100
    # Index of a repeated event, and the index before which it is sent again.
    repetitions = {index: rng.randint(index + 1, len(events)) for index in rng.sample(range(len(events)), repeated_count)}
    repeated: dict[int, list[ShopEvent]] = {}
    for index, before in repetitions.items():
        repeated.setdefault(before, []).append(events[index])
    sent: list[ShopEvent] = []
    for index in range(len(events) + 1):
        sent += [*repeated.get(index, ()), *events[index : index + 1]]
    return sent
