"""What tests of the read cache do to the store and see in it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from valkey.asyncio import Valkey

from guerdon.read_cache.service import ReadCache
from guerdon.read_cache.store import CopyStore
from guerdon.wiring.services import Services
from tests.counter_store import Store


@asynccontextmanager
async def client_of_store(store: Store) -> AsyncIterator[Any]:
    """A client of the store that is not the service's."""
    client = cast(Any, Valkey).from_url(store.url)
    yield client
    await client.aclose()


async def settle(cache: ReadCache) -> None:
    """Wait until the copies that are on their way have been written or dropped."""
    await asyncio.sleep(0)
    while (writing := store_of(cache)._writing) is not None:
        await asyncio.wait([writing])
    for discard in list(store_of(cache)._discards):
        await asyncio.wait([discard])


def store_of(cache: ReadCache) -> CopyStore:
    assert cache.store is not None
    return cache.store


def key_of(services: Services, wallet: str) -> str:
    return store_of(services.read_cache).key_of(wallet)
