"""Resources that a process opens first and closes last: database, clock, keys, ledger."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from pymongo.errors import PyMongoError

from guerdon.access.token_keys import TokenKeys
from guerdon.calendar import Calendar
from guerdon.clock import Clock, DatabaseClock, SimulatedClock
from guerdon.clock_sync import ClockSync
from guerdon.collections import INDEXES
from guerdon.config import Settings
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database
from guerdon.errors import StartupRefused
from guerdon.ids import IdSource
from guerdon.ledger.service import Ledger
from guerdon.members.passwords import PasswordHasher
from guerdon.members.vault import Vault
from guerdon.outbox import Outbox
from guerdon.rate_limits.rules import Quota
from guerdon.rate_limits.service import RateLimiter, parse_quota
from guerdon.rate_limits.shared import SharedCounters
from guerdon.read_cache.service import ReadCache
from guerdon.read_cache.store import CopyStore
from guerdon.simulated_clock.service import ClockControl
from guerdon.wallets.assets import Assets
from guerdon.wallets.models import WALLET


@dataclass(frozen=True)
class Resources:
    """Resources of one process."""

    database: Database
    clock: Clock
    clock_sync: ClockSync | None
    control: ClockControl | None
    ids: IdSource
    token_keys: TokenKeys
    vault: Vault
    passwords: PasswordHasher
    rate_limiter: RateLimiter
    outbox: Outbox
    ledger: Ledger
    read_cache: ReadCache
    assets: Assets


async def open_resources(settings: Settings, clock: Clock, stack: AsyncExitStack, *, create: bool) -> Resources:
    """Open every resource; `stack` closes them in the reverse order.

    Raises:
        StartupRefused: a setting is missing or not safe, or the database server is not suitable.
    """
    if settings.mongodb_url is None or settings.token_keys is None:
        raise StartupRefused("GUERDON_MONGODB_URL and GUERDON_TOKEN_KEYS_FILE must both be set")
    database = await _open_database(settings, settings.mongodb_url.get_secret_value(), stack, create=create)
    clock_sync = await _clock_sync_of(settings, database, clock)
    clock, control = await _clock_of(settings, database, clock)
    master = _master_keys_of(settings)
    vault = Vault(database, master, clock)
    await vault.open()
    ids = IdSource(clock)
    assets = await _assets_of(database, clock)
    read_cache = _read_cache_of(settings, clock)
    stack.push_async_callback(read_cache.close)
    ledger = _ledger_of(settings, database, clock, assets, read_cache)
    stack.push_async_callback(ledger.close)
    return Resources(
        database=database,
        clock=clock,
        clock_sync=clock_sync,
        control=control,
        ids=ids,
        token_keys=TokenKeys(settings.token_keys.get_secret_value(), settings.jwks_max_age_seconds),
        vault=vault,
        passwords=_hasher_of(settings, stack),
        rate_limiter=_rate_limiter_of(settings, clock, stack),
        outbox=Outbox(database, master, ids, clock),
        ledger=ledger,
        read_cache=read_cache,
        assets=assets,
    )


async def _open_database(settings: Settings, url: str, stack: AsyncExitStack, *, create: bool) -> Database:
    database = Database(url, settings.mongodb_database, pool_max=settings.mongodb_pool_max)
    stack.push_async_callback(database.close)
    await database.check()
    if not create and not await database.has_any(INDEXES):
        raise StartupRefused(
            f"the server of the database has no database {settings.mongodb_database!r} of this service; check GUERDON_MONGODB_DATABASE and "
            "GUERDON_MONGODB_URL (`guerdon serve` and `guerdon up` create it)"
        )
    await database.sync_indexes(INDEXES)
    return database


async def _assets_of(database: Database, clock: Clock) -> Assets:
    assets = Assets(database, clock)
    await assets.open()
    return assets


async def _clock_sync_of(settings: Settings, database: Database, clock: Clock) -> ClockSync | None:
    """Set a clock that follows the database. Another clock is used as it is.

    Raises:
        StartupRefused: the database does not answer.
    """
    if not isinstance(clock, DatabaseClock):
        return None
    clock_sync = ClockSync(database, clock, settings.clock_skew_max_ms)
    try:
        await clock_sync.measure()
    except PyMongoError as error:
        raise StartupRefused(f"MongoDB does not answer: {type(error).__name__}") from None
    return clock_sync


async def _clock_of(settings: Settings, database: Database, clock: Clock) -> tuple[Clock, ClockControl | None]:
    """Return the clock. In development it can be advanced, and starts as far ahead as the clock of this database."""
    if settings.profile == "production":
        return clock, None
    simulated = SimulatedClock(clock)
    control = ClockControl(database, simulated)
    await control.follow()
    return simulated, control


def _rate_limiter_of(settings: Settings, clock: Clock, stack: AsyncExitStack) -> RateLimiter:
    rate_limiter = RateLimiter(clock, _quotas_of(settings), _shared_counters(settings), on=settings.rate_limit == "on")
    stack.push_async_callback(rate_limiter.close)
    return rate_limiter


def _quotas_of(settings: Settings) -> list[Quota]:
    texts = {
        "key": settings.rate_key,
        "person": settings.rate_person,
        "stranger": settings.rate_stranger,
        "entry": settings.rate_entry,
        "invalid": settings.rate_invalid,
        "account": settings.rate_guesses,
        "device": settings.rate_guesses,
        "password": settings.rate_guesses,
        "failures": settings.rate_failures,
        "code": settings.rate_codes,
        "spray": f"1/{settings.rate_failures.partition('/')[2]}",
    }
    return [parse_quota(name, text) for name, text in texts.items()]


def _shared_counters(settings: Settings) -> SharedCounters | None:
    if settings.rate_limit_store is None:
        return None
    return SharedCounters(settings.rate_limit_store.get_secret_value(), settings.mongodb_database)


def _hasher_of(settings: Settings, stack: AsyncExitStack) -> PasswordHasher:
    hasher = PasswordHasher(settings.password_hash_threads, settings.password_hash_queue_max, settings.password_hash_memory_kib)
    stack.callback(hasher.close)
    return hasher


def _master_keys_of(settings: Settings) -> MasterKeys | None:
    """Return the master keys, or None: commands that use no personal data and no log-ins need none."""
    return None if settings.master_keys is None else MasterKeys(settings.master_keys.get_secret_value())


def _read_cache_of(settings: Settings, clock: Clock) -> ReadCache:
    store = None if settings.cache is None else CopyStore(settings.cache.get_secret_value(), settings.mongodb_database, clock)
    return ReadCache(store, clock, kind=WALLET)


def _ledger_of(settings: Settings, database: Database, clock: Clock, assets: Assets, read_cache: ReadCache) -> Ledger:
    return Ledger(
        database,
        clock,
        Calendar(settings.time_zone),
        scale_of=assets.scale_of,
        queue_max=settings.ledger_queue_max,
        batch_max=settings.ledger_batch_max,
        in_flight_max=settings.ledger_in_flight_max,
        deadline_ms=settings.ledger_deadline_ms,
        after_commit=None if read_cache.store is None else read_cache.after_commit,
    )
