"""Views brought up to date, as a worker does, at the moment at which a test wants it."""

from guerdon.projections.generations import bring_up_to_date
from guerdon.projections.models import ViewGroup
from guerdon.wiring.services import Services


async def build_views(services: Services, group: ViewGroup | None = None) -> int:
    """Apply everything that was written until now; return the version that serves."""
    return await bring_up_to_date(services.database, group or services.views.group, services.clock, holder="tests")
