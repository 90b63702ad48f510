"""Campaigns: drafts, versions, activation, pause and end. Versions are kept permanently for the decisions that refer to them."""

import asyncio
from collections.abc import Iterable, Iterator

import msgspec

from guerdon.campaigns.approvals import approved, require_approved
from guerdon.campaigns.award_types import formula_of
from guerdon.campaigns.cel import compile_condition, compile_formula, require_bounded
from guerdon.campaigns.cel_cost import CONDITION_US_MAX
from guerdon.campaigns.domain import PURCHASE, REFUND
from guerdon.campaigns.evaluation import LiveCampaign, sort_by_priority
from guerdon.campaigns.models import (
    CAMPAIGN_VERSIONS,
    CAMPAIGNS,
    CAMPAIGNS_LIVE_MAX,
    Campaign,
    CampaignCreate,
    CampaignQuery,
    CampaignVersion,
    PendingEvent,
    in_force,
)
from guerdon.campaigns.warnings import ReadKnownNames, warnings_of_campaign
from guerdon.changes import BeforeAfter
from guerdon.clock import Clock, optional_utc_ms
from guerdon.database import Database
from guerdon.errors import Validation, collect
from guerdon.ids import IdSource
from guerdon.lifecycle import Definitions, version_id
from guerdon.permissions import Actor
from guerdon.types import DefinitionStatus, DefinitionWarning
from guerdon.wallets.assets import Assets

REFRESH_SECONDS = 1.0


class Campaigns:
    """Campaigns. A change is effective at once in the process that made it, and within one second in the others."""

    def __init__(
        self, database: Database, assets: Assets, clock: Clock, ids: IdSource, *, known: ReadKnownNames, approval: bool = False
    ) -> None:
        self._definitions = Definitions(database, (CAMPAIGNS, Campaign), (CAMPAIGN_VERSIONS, CampaignVersion), noun="campaign")
        self._assets = assets
        self._clock = clock
        self._ids = ids
        self._known = known
        self._approval = approval
        self._live: list[LiveCampaign] = []
        self._refreshed_at: float | None = None
        self._generation = 0
        self._refreshing = asyncio.Lock()

    async def create(self, actor: Actor, body: CampaignCreate, *, campaign_id: str | None = None) -> Campaign:
        """Create a campaign with version 1 as a draft.

        Raises:
            Validation: an expression does not compile, the asset does not exist, or two fields contradict each other.
        """
        now_ms = self._clock.now_ms()
        campaign = await self._campaign(body, campaign_id or self._ids.new("cmp"), actor, version=1, now_ms=now_ms)
        await self._save(campaign, None, campaign)
        return campaign

    async def replace(self, actor: Actor, campaign_id: str, body: CampaignCreate) -> BeforeAfter[Campaign]:
        """Create a new version, which evaluates events from `effective_at` or from now. The status of the campaign stays.

        The new version replaces one that was to follow.

        Raises:
            NotFound: the campaign does not exist.
            Validation: as for `create`.
            InvalidState: the campaign has ended, or another request changed it at the same time.
        """
        stored = await self.get_campaign(campaign_id)
        self._definitions.require_replaceable(stored.status)
        now_ms = self._clock.now_ms()
        current = in_force(stored, now_ms)
        newest = max(stored.version, stored.coming.version if stored.coming is not None else 0)
        draft = await self._campaign(body, campaign_id, actor, version=newest + 1, now_ms=now_ms)
        version = msgspec.structs.replace(draft, status=stored.status, created_at=stored.created_at)
        campaign = version
        if self._approval and stored.status != "draft":
            version = msgspec.structs.replace(version, waits=True)
        if (version.effective_at is not None or version.waits) and stored.status != "draft":
            campaign = msgspec.structs.replace(current, status=stored.status, coming=version, changed_at=now_ms)
        await self._save(campaign, stored, version)
        return BeforeAfter(current, campaign)

    async def find_warnings(self, body: CampaignCreate) -> list[DefinitionWarning]:
        """Return what is valid in a campaign and probably not meant."""
        return warnings_of_campaign(body, await self._known())

    async def draft(self, actor: Actor, campaign: Campaign, body: CampaignCreate) -> Campaign:
        """Return the campaign as it would be with this body. Nothing is saved.

        Raises:
            Validation: as for `create`.
        """
        return await self._campaign(body, campaign.id, actor, version=campaign.version + 1, now_ms=self._clock.now_ms())

    async def set_status(self, campaign_id: str, status: DefinitionStatus) -> BeforeAfter[Campaign]:
        """Activate, pause or end a campaign. The same status again changes nothing; an ended campaign cannot change.

        Raises:
            NotFound: the campaign does not exist.
            ApprovalMissing: a second person has not approved it.
            InvalidState: a draft cannot be paused, an ended one cannot change, too many are active, or another request changed it
                at the same time.
        """
        current = await self.get_campaign(campaign_id)
        if current.status == status:
            return BeforeAfter(current, current)
        self._definitions.require_transition(current.status, status)
        if status == "active" and self._approval:
            require_approved(current, self._clock.now_ms())
        await self._definitions.require_capacity(current.status, status, CAMPAIGNS_LIVE_MAX)
        campaign = msgspec.structs.replace(current, status=status, changed_at=self._clock.now_ms())
        await self._save(campaign, current, None)
        return BeforeAfter(current, campaign)

    async def approve(self, actor: Actor, campaign_id: str, number: int) -> Campaign:
        """Approve a version that another person created. A second approval changes nothing.

        Raises:
            NotFound: the campaign does not exist.
            Forbidden: the caller is a service key, or created the version.
            InvalidState: the version is neither in force nor the next one, or another request changed the campaign at the same time.
        """
        current = await self.get_campaign(campaign_id)
        campaign = approved(current, number, actor, self._clock.now_ms())
        if campaign is not current:
            await self._save(campaign, current, None)
        return campaign

    async def get_campaign(self, campaign_id: str) -> Campaign:
        """
        Raises:
            NotFound: the campaign does not exist.
        """
        return await self._definitions.get(campaign_id)

    async def get_versions(self, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Campaign]:
        """Return the versions with these (campaign, number) pairs. Versions that do not exist are left out."""
        found = await self._definitions.find_versions(wanted)
        return {(each.campaign.id, each.campaign.version): each.campaign for each in found}

    async def exists(self, campaign_id: str) -> bool:
        return await self._definitions.exists(campaign_id)

    async def list_campaigns(self, query: CampaignQuery) -> tuple[list[Campaign], str | None]:
        """Return one page, newest first, and the cursor of the next.

        Raises:
            Validation: the cursor was not returned by this list.
        """
        return await self._definitions.list_page(status=query.status, cursor=query.cursor, limit=query.limit, prefix="cmp_")

    async def list_past_drafts(self, status: DefinitionStatus | None, limit: int) -> list[Campaign]:
        """Return the campaigns with a status, by default all that are no drafts, newest first."""
        where = {"status": {"$in": ["active", "ended", "paused"]} if status is None else status}
        return await self._definitions.current.find(where, sort=[("_id", -1)], limit=limit)

    async def list_live(self) -> list[LiveCampaign]:
        """Return the versions in force of the active campaigns, compiled and in order of evaluation, at most one second old."""
        now = self._clock.monotonic()
        if self._refreshed_at is None or now - self._refreshed_at > REFRESH_SECONDS:
            async with self._refreshing:
                while self._refreshed_at is None or now - self._refreshed_at > REFRESH_SECONDS:
                    generation = self._generation
                    active = await self._definitions.current.find({"status": "active"}, sort=[("_id", 1)], limit=CAMPAIGNS_LIVE_MAX)
                    now_ms = self._clock.now_ms()
                    self._live = sort_by_priority([LiveCampaign.of(in_force(campaign, now_ms)) for campaign in active])
                    if generation == self._generation:
                        self._refreshed_at = now
        return self._live

    async def _campaign(self, body: CampaignCreate, campaign_id: str, actor: Actor, *, version: int, now_ms: int) -> Campaign:
        faults = [*_faults_of_expressions(body), *_contradictions_of(body)]
        if not await self._assets.exists(body.asset):
            faults.append(Validation.at("/asset", f"there is no asset {body.asset}"))
        starts_at = optional_utc_ms(body.starts_at, "/starts_at", faults)
        ends_at = optional_utc_ms(body.ends_at, "/ends_at", faults)
        effective_at = optional_utc_ms(body.effective_at, "/effective_at", faults)
        if starts_at is not None and ends_at is not None and starts_at >= ends_at:
            faults.append(Validation.at("/ends_at", "the end must be after the start"))
        if effective_at is not None and effective_at <= now_ms:
            faults.append(
                Validation.at("/effective_at", "the time has passed; leave it out for a version that is effective at once")
            )
        if faults:
            raise Validation.all_of(faults)
        campaign = Campaign(
            id=campaign_id,
            version=version,
            status="draft",
            name=body.name,
            asset=body.asset,
            event_types=list(dict.fromkeys(body.event_types)),
            award=body.award,
            starts_at=starts_at,
            ends_at=ends_at,
            schedule=body.schedule,
            audience=body.audience,
            condition=body.condition,
            items=body.items,
            achievement=body.achievement,
            pays=body.pays,
            tier_multipliers=body.tier_multipliers,
            stacking=body.stacking,
            caps=body.caps,
            budget=body.budget,
            partial_award=body.partial_award,
            pending=body.pending,
            expiry=body.expiry,
            clawback=body.clawback,
            effective_at=effective_at,
            bounded=True,
            created_at=now_ms,
            created_by=actor.id,
            changed_at=now_ms,
        )
        if LiveCampaign.of(campaign).bounded_cost_us > CONDITION_US_MAX:
            raise Validation.at("/condition", "audience, condition and formula together could take too long")
        return campaign

    async def _save(self, campaign: Campaign, current: Campaign | None, version: Campaign | None) -> None:
        """Write the campaign, and the archive of its version when that is a new one, in one transaction."""
        archived = None
        if version is not None:
            proof = await self._definitions.proof_of(version, version_id(version.id, version.version - 1))
            archived = CampaignVersion(id=version_id(version.id, version.version), campaign=version, proof=proof)
        if current is None:
            assert archived is not None
            await self._definitions.insert(campaign, archived)
        else:
            unchanged = {"_id": campaign.id, "version": current.version, "changed_at": current.changed_at}
            await self._definitions.replace(campaign, archived, unchanged=unchanged, status_now=current.status)
        self._refreshed_at = None
        self._generation += 1


def _faults_of_expressions(body: CampaignCreate) -> list[Validation]:
    faults: list[Validation] = []
    for source, pointer in ((body.audience, "/audience"), (body.condition, "/condition")):
        with collect(faults):
            require_bounded(source, pointer)
            compile_condition(source, pointer)
    formula = formula_of(body.award)
    if formula is not None:
        with collect(faults):
            require_bounded(formula, "/award/expression")
            compile_formula(formula, "/award/expression")
    return faults


def _contradictions_of(body: CampaignCreate) -> Iterator[Validation]:
    """Yield the faults of fields that do not fit together."""
    for number, cap in enumerate(body.caps):
        if cap.scope == "member" and cap.period is None:
            yield Validation.at(f"/caps/{number}/period", "a cap for a member needs a period: day, week, month, year or ever")
        if cap.scope == "event" and cap.period is not None:
            yield Validation.at(f"/caps/{number}/period", "a cap for one event has no period: leave it out")
    if body.items is not None and not (body.items.categories or body.items.skus):
        yield Validation.at("/items", "name at least one category or one sku, or leave it out")
    if body.achievement is not None and REFUND in body.event_types:
        yield Validation.at(
            "/event_types",
            "a refund cannot count towards an achievement; refunds of counted purchases are taken into account without it",
        )
    single = {PURCHASE, REFUND}.issuperset(body.event_types) and body.achievement is None
    if isinstance(body.pending, PendingEvent) and not single:
        yield Validation.at("/pending", "only an award for a single purchase can wait for an event that confirms it")
    if body.pays == "referrer":
        if REFUND in body.event_types or body.achievement is not None:
            yield Validation.at("/pays", "a campaign that pays the referrer cannot evaluate refunds or count an achievement")
        if not any(cap.scope == "member" for cap in body.caps):
            yield Validation.at(
                "/caps", "a campaign that pays the referrer needs a cap of scope member, because sign-ups can be scripted"
            )
    for number, hours in enumerate(body.schedule or ()):
        if hours.starts in (hours.ends, "24:00"):
            yield Validation.at(
                f"/schedule/{number}/starts", "the hours are empty; ends must differ from starts, and starts cannot be 24:00"
            )
    if body.stacking.group is None and body.stacking.policy != "all":
        yield Validation.at("/stacking/group", f"the policy {body.stacking.policy} needs a group to choose from")
