"""Creation, retrieval and cancellation of simulations. Workers run them (`running.py`)."""

from datetime import datetime, timedelta

import msgspec
from pymongo import ReturnDocument

from guerdon.campaigns.models import Campaign, in_force
from guerdon.campaigns.service import Campaigns
from guerdon.clock import Clock, optional_utc_ms, to_datetime
from guerdon.database import Collection, Database
from guerdon.errors import InvalidState, NotFound, Validation
from guerdon.ids import IdSource
from guerdon.permissions import Actor
from guerdon.simulations.models import FREE, KEPT_DAYS, OPEN_MAX, SIMULATIONS, Simulation, SimulationCreate

ONGOING = {"$in": ["waiting", "running"]}
"""Query operator for the status of simulations that have not ended."""


class Simulations:
    """Service of simulations."""

    def __init__(self, campaigns: Campaigns, *, database: Database, clock: Clock, ids: IdSource) -> None:
        self._collection: Collection[Simulation] = database.collection(SIMULATIONS, Simulation)
        self._campaigns = campaigns
        self._clock = clock
        self._ids = ids

    async def create(self, actor: Actor, campaign_id: str, body: SimulationCreate) -> Simulation:
        """Create a simulation of a campaign in any status, on the events recorded so far.

        Raises:
            NotFound: the campaign does not exist.
            Validation: the window is empty, a time has no offset, or the campaign in the body is not valid.
            InvalidState: `OPEN_MAX` simulations wait or run.
        """
        faults: list[Validation] = []
        since = optional_utc_ms(body.occurred_from, "/occurred_from", faults)
        until = optional_utc_ms(body.occurred_before, "/occurred_before", faults)
        if since is not None and until is not None and since >= until:
            faults.append(Validation.at("/occurred_before", "must be after occurred_from"))
        if faults:
            raise Validation.all_of(faults)
        now_ms = self._clock.now_ms()
        campaign = in_force(await self._campaigns.get_campaign(campaign_id), now_ms)
        if body.campaign is not None:
            campaign = await self._draft(actor, campaign, body)
        dates = {"starts_at": None, "ends_at": None} if body.ignore_dates else {}
        if await self._collection.raw.count_documents({"lane": {"$gte": FREE}}) >= OPEN_MAX:
            raise InvalidState(
                f"{OPEN_MAX} simulations are waiting or running; wait for one to end, or cancel one", status_now="waiting"
            )
        simulation = Simulation(
            id=self._ids.new("sim"),
            campaign_id=campaign_id,
            saved=body.campaign is None,
            campaign=msgspec.structs.replace(campaign, coming=None, **dates),
            occurred_from=since,
            occurred_before=until,
            ignore_dates=body.ignore_dates,
            unit_cost=body.unit_cost,
            created_at=now_ms,
            created_by=actor.id,
            lane=FREE,
        )
        await self._collection.insert(simulation)
        return simulation

    async def _draft(self, actor: Actor, campaign: Campaign, body: SimulationCreate) -> Campaign:
        """Return the campaign of the body as a version of `campaign`.

        Raises:
            Validation: the campaign is not valid.
        """
        assert body.campaign is not None
        try:
            return await self._campaigns.draft(actor, campaign, msgspec.structs.replace(body.campaign, effective_at=None))
        except Validation as error:
            raise error.under("/campaign") from None

    async def get(self, simulation_id: str) -> Simulation:
        """Return a simulation.

        Raises:
            NotFound: the simulation does not exist, or was removed after its expiry.
        """
        simulation = await self._collection.get(simulation_id)
        if simulation is None:
            raise NotFound("the simulation does not exist")
        return simulation

    async def cancel(self, simulation_id: str) -> Simulation:
        """Cancel a simulation and return it. A simulation that has ended does not change.

        Raises:
            NotFound: the simulation does not exist.
        """
        now_ms = self._clock.now_ms()
        changed = await self._collection.raw.find_one_and_update(
            {"_id": simulation_id, "status": ONGOING},
            {"$set": {"status": "cancelled", "ended_at": now_ms, "expires_at": removal_time(now_ms)}},
            return_document=ReturnDocument.AFTER,
        )
        return self._collection.decode(changed) if changed is not None else await self.get(simulation_id)


def removal_time(now_ms: int) -> datetime:
    """Return the time from which a simulation that ends at `now_ms` is removed."""
    return to_datetime(now_ms) + timedelta(days=KEPT_DAYS)
