"""Campaigns: drafted, versioned, activated, paused. A version, once made, is kept for ever for the decisions that name it."""

import asyncio

import msgspec

from guerdon.clock import Clock
from guerdon.database import Collection, Database
from guerdon.errors import InvalidState, NotFound, Validation
from guerdon.http import decode_cursor, encode_cursor, utc_ms
from guerdon.ids import IdSource
from guerdon.rewards.cel import compile_condition, require_bounded
from guerdon.rewards.models import (
    CAMPAIGN_VERSIONS,
    CAMPAIGNS,
    CAMPAIGNS_LIVE_MAX,
    Campaign,
    CampaignCreate,
    CampaignQuery,
    CampaignStatus,
    CampaignVersion,
)
from guerdon.rewards.rules import LiveCampaign
from guerdon.security import Actor
from guerdon.wallets.assets import Assets

REFRESH_SECONDS = 1.0


class Campaigns:
    """The earn rules. A change is in force at once in the process that made it, within a second in the others."""

    def __init__(self, database: Database, assets: Assets, clock: Clock, ids: IdSource) -> None:
        self._database = database
        self._collection: Collection[Campaign] = database.collection(CAMPAIGNS, Campaign)
        self._versions: Collection[CampaignVersion] = database.collection(CAMPAIGN_VERSIONS, CampaignVersion)
        self._assets = assets
        self._clock = clock
        self._ids = ids
        self._live: list[LiveCampaign] = []
        self._refreshed_at: float | None = None
        self._generation = 0
        self._refreshing = asyncio.Lock()

    async def create(self, actor: Actor, body: CampaignCreate, *, campaign_id: str | None = None) -> Campaign:
        """Save version 1 as a draft.

        Raises:
            Validation: a condition does not compile, the asset is unknown, or the window is empty.
        """
        now_ms = self._clock.now_ms()
        campaign = await self._campaign(body, campaign_id or self._ids.new("cmp"), actor, version=1, now_ms=now_ms)
        await self._save(campaign, None)
        return campaign

    async def replace(self, actor: Actor, campaign_id: str, body: CampaignCreate) -> Campaign:
        """Make a new version that decides every event from now on; its status stays.

        Raises:
            NotFound: no such campaign.
            Validation: as for `create`.
            InvalidState: somebody else has changed it at the same moment.
        """
        current = await self.get_campaign(campaign_id)
        now_ms = self._clock.now_ms()
        draft = await self._campaign(body, campaign_id, actor, version=current.version + 1, now_ms=now_ms)
        campaign = msgspec.structs.replace(draft, status=current.status, created_at=current.created_at)
        await self._save(campaign, current)
        return campaign

    async def set_status(self, campaign_id: str, status: CampaignStatus) -> Campaign:
        """Activate or pause; doing it twice changes nothing.

        Raises:
            NotFound: no such campaign.
            InvalidState: a draft cannot be paused, too many are active, or somebody else has changed it at the same moment.
        """
        current = await self.get_campaign(campaign_id)
        if current.status == status:
            return current
        if current.status == "draft" and status == "paused":
            raise InvalidState("a draft is not active yet, so there is nothing to pause", status_now=current.status)
        if status == "active" and await self._collection.raw.count_documents({"status": "active"}) >= CAMPAIGNS_LIVE_MAX:
            raise InvalidState(f"{CAMPAIGNS_LIVE_MAX} campaigns are active already; pause one", status_now=current.status)
        campaign = msgspec.structs.replace(current, status=status, changed_at=self._clock.now_ms())
        await self._save(campaign, current)
        return campaign

    async def get_campaign(self, campaign_id: str) -> Campaign:
        """
        Raises:
            NotFound: no such campaign.
        """
        campaign = await self._collection.get(campaign_id)
        if campaign is None:
            raise NotFound("there is no such campaign")
        return campaign

    async def exists(self, campaign_id: str) -> bool:
        return await self._collection.get(campaign_id) is not None

    async def list_campaigns(self, query: CampaignQuery) -> tuple[list[Campaign], str | None]:
        """Return one page, newest first, and the cursor of the next.

        Raises:
            Validation: the cursor is not one of ours.
        """
        where: dict[str, object] = {} if query.status is None else {"status": query.status}
        if query.cursor is not None:
            before = decode_cursor(query.cursor)
            if not before.startswith("cmp_"):
                raise Validation.at("cursor", "not a cursor that this list has given out")
            where["_id"] = {"$lt": before}
        found = await self._collection.find(where, sort=[("_id", -1)], limit=query.limit + 1)
        page = found[: query.limit]
        return page, encode_cursor(page[-1].id) if len(found) > query.limit else None

    async def list_live(self) -> list[LiveCampaign]:
        """Return the active campaigns, compiled, at most one second old."""
        now = self._clock.monotonic()
        if self._refreshed_at is None or now - self._refreshed_at > REFRESH_SECONDS:
            async with self._refreshing:
                while self._refreshed_at is None or now - self._refreshed_at > REFRESH_SECONDS:
                    generation = self._generation
                    active = await self._collection.find({"status": "active"}, sort=[("_id", 1)], limit=CAMPAIGNS_LIVE_MAX)
                    self._live = [LiveCampaign.of(campaign) for campaign in active]
                    if generation == self._generation:
                        self._refreshed_at = now
        return self._live

    async def _campaign(self, body: CampaignCreate, campaign_id: str, actor: Actor, *, version: int, now_ms: int) -> Campaign:
        for source, pointer in ((body.audience, "/audience"), (body.condition, "/condition")):
            require_bounded(source, pointer)
            compile_condition(source, pointer)
        if not body.partial_award:
            raise Validation.at(
                "/partial_award", "false says nothing until caps and budgets are available: leave it out or send true"
            )
        if not await self._assets.exists(body.asset):
            raise Validation.at("/asset", f"there is no asset {body.asset}")
        starts_at = None if body.starts_at is None else utc_ms(body.starts_at, "/starts_at")
        ends_at = None if body.ends_at is None else utc_ms(body.ends_at, "/ends_at")
        if starts_at is not None and ends_at is not None and starts_at >= ends_at:
            raise Validation.at("/ends_at", "the end must be after the start")
        return Campaign(
            id=campaign_id,
            version=version,
            status="draft",
            name=body.name,
            asset=body.asset,
            event_types=list(dict.fromkeys(body.event_types)),
            award=body.award,
            starts_at=starts_at,
            ends_at=ends_at,
            audience=body.audience,
            condition=body.condition,
            clawback=body.clawback,
            created_at=now_ms,
            created_by=actor.id,
            changed_at=now_ms,
        )

    async def _save(self, campaign: Campaign, current: Campaign | None) -> None:
        """Write the campaign, and its archived version when it is a new one, in one transaction."""
        async with self._database.transaction() as session:
            if current is None:
                await self._collection.insert(campaign, session)
            else:
                unchanged = {"_id": campaign.id, "version": current.version, "changed_at": current.changed_at}
                document = self._collection.encode(campaign)
                result = await self._collection.raw.replace_one(unchanged, document, session=session)
                if result.matched_count == 0:
                    raise InvalidState("somebody else has changed this campaign; read it again", status_now=current.status)
            if current is None or campaign.version != current.version:
                archived = CampaignVersion(id=f"{campaign.id}/{campaign.version}", campaign=campaign)
                await self._versions.insert(archived, session)
        self._refreshed_at = None
        self._generation += 1
