"""A thousand events at once against a budget for a hundred, in two processes; and what holds of any events, on many more histories.

GUERDON_TEST_SEQUENCES sets another number of histories, GUERDON_TEST_SEED the seed.
"""

import os
import random

import pytest

from guerdon.config import Settings
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.invariants.test_campaign_properties import PROPERTIES, Property, run
from tests.races.test_campaigns import race_for_a_budget
from tests.trust.figures import record

pytestmark = [pytest.mark.trust, pytest.mark.timeout(900)]


@pytest.mark.parametrize("rest", [0, 5])
async def test_a_thousand_events_race_for_a_budget_of_a_hundred(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock, rest: int
) -> None:
    """Exactly a hundred are paid, and a part of one where a rest is left; all others are told why not."""
    await race_for_a_budget(service, factory, settings, clock, events=1000, whole=100, rest=rest)
    record(f"1,000 events for a budget of 100 and a rest of {rest}", "exactly the budget paid", "exact")


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda prop: prop.__name__)
def test_campaign_property_holds_for_many_histories(prop: Property) -> None:
    chosen = int(os.environ.get("GUERDON_TEST_SEED") or random.randrange(2**32))
    histories = int(os.environ.get("GUERDON_TEST_SEQUENCES", "2000"))
    print(f"\n{prop.__name__}: seed {chosen}, {histories} histories")
    run(prop, histories, chosen=chosen)
    record(f"{prop.__name__.replace('_', ' ')}: histories that break it", f"0 of {histories}", 0)
