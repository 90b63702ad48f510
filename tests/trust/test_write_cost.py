"""What each index adds to a write, over all indexes; `make test` measures a few of them."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tools.query_plans.write_cost import WRITES

from tests.invariants.test_query_plans import DATABASE, SMALL, Explained, check_costs, fill, scratch_database

pytestmark = [pytest.mark.trust, pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module")
async def explained(mongodb_url: str) -> AsyncIterator[Explained]:
    async with scratch_database(mongodb_url, DATABASE) as database:
        yield database, await fill(database, SMALL, lambda _: None)


async def test_the_cost_of_every_index_is_measured(explained: Explained) -> None:
    costs = await check_costs(explained, WRITES, rounds=8)
    print(f"\n{'index':48}{'write':32}{'without':>9}{'with':>9}{'ratio':>7}")
    for each in costs:
        print(f"{each.index:48}{each.write:32}{each.without_us:>9.1f}{each.with_us:>9.1f}{each.ratio:>7.2f}")
