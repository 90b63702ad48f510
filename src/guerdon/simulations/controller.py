"""Routes of simulations."""

from typing import Any

from guerdon.errors import InvalidState, NotFound, Validation
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.permissions import scope
from guerdon.simulations.models import SimulationCreate, SimulationView, view_simulation
from guerdon.simulations.service import Simulations

_SIMULATION = {
    "occurred_from": "2026-01-01T00:00:00Z",
    "occurred_before": "2026-04-01T00:00:00Z",
    "ignore_dates": True,
    "unit_cost": "0.5",
}


class SimulateResource:
    """`/v1/campaigns/{campaign_id}/simulate`"""

    def __init__(self, simulations: Simulations) -> None:
        self._simulations = simulations

    @operation(
        "simulateCampaign",
        scope("campaigns:write"),
        tag="campaigns",
        body=SimulationCreate,
        answers={202: SimulationView},
        errors=(NotFound, Validation, InvalidState),
        example=_SIMULATION,
    )
    async def on_post(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Simulate a campaign on recorded events in the background, and compare its awards with the real ones."""
        body, _ = await read(req, SimulationCreate)
        simulation = await self._simulations.create(actor_of(req), campaign_id, body)
        send(resp, view_simulation(simulation), 202)


class SimulationResource:
    """`/v1/simulations/{simulation_id}`"""

    def __init__(self, simulations: Simulations) -> None:
        self._simulations = simulations

    @operation("getSimulation", scope("campaigns:read"), tag="campaigns", answers={200: SimulationView}, errors=(NotFound,))
    async def on_get(self, _req: Request, resp: Response, simulation_id: str) -> None:
        """Read the progress of a simulation, and its report when it is done."""
        send(resp, view_simulation(await self._simulations.get(simulation_id)))

    @operation("cancelSimulation", scope("campaigns:write"), tag="campaigns", answers={200: SimulationView}, errors=(NotFound,))
    async def on_post_cancel(self, _req: Request, resp: Response, simulation_id: str) -> None:
        """Cancel a simulation. A simulation that has ended does not change."""
        send(resp, view_simulation(await self._simulations.cancel(simulation_id)))


def routes(simulations: Simulations) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of simulations."""
    simulation = SimulationResource(simulations)
    return [
        ("/v1/campaigns/{campaign_id}/simulate", SimulateResource(simulations), None),
        ("/v1/simulations/{simulation_id}", simulation, None),
        ("/v1/simulations/{simulation_id}/cancel", simulation, "cancel"),
    ]
