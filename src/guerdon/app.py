"""The composition root: builds services, controllers and middlewares; nothing else picks implementations."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from falcon.asgi import App
from pymongo.errors import PyMongoError
from structlog.typing import FilteringBoundLogger

from guerdon.audit import controller as audit_controller
from guerdon.audit.service import Audit
from guerdon.catalogue.collections import BELONGINGS, INDEXES
from guerdon.clock import Clock, SimulatedClock
from guerdon.config import Settings, networks_of
from guerdon.database import Database
from guerdon.errors import DatabaseUnavailable, StartupRefused
from guerdon.factors import controller as factors_controller
from guerdon.factors.service import Factors
from guerdon.history import controller as history_controller
from guerdon.history.service import History
from guerdon.history.streams import Stand, Streams
from guerdon.holds import controller as holds_controller
from guerdon.holds.service import Holds
from guerdon.http import Operation
from guerdon.identity import controller as identity_controller
from guerdon.identity.access import Access
from guerdon.identity.passwords import PasswordHasher
from guerdon.identity.service import Identity
from guerdon.identity.token_keys import TokenKeys
from guerdon.identity.tokens import Tokens
from guerdon.identity.vault import Vault
from guerdon.ids import IdSource
from guerdon.ledger import checkpoints as ledger_checkpoints
from guerdon.ledger import jobs as ledger_jobs
from guerdon.ledger.limits import Calendar
from guerdon.ledger.service import Ledger
from guerdon.ledger.signing import CheckpointKeys
from guerdon.logs import tell_security
from guerdon.mail import Mailer, parse_sender, parse_smtp_url
from guerdon.middlewares.arrival import Arrival, Refusals
from guerdon.middlewares.auditing import Auditing
from guerdon.middlewares.authentication import Authentication
from guerdon.middlewares.fairness import Fairness
from guerdon.middlewares.observation import Observation
from guerdon.middlewares.problems import Problems
from guerdon.middlewares.security_events import SecurityEvents
from guerdon.middlewares.surface import CrossOrigin, Headers
from guerdon.middlewares.throttling import Addresses, Callers, Guesses, Strangers
from guerdon.operations import controller as operations_controller
from guerdon.operations.metrics import Metrics
from guerdon.operations.openapi import Routes, document_of, operations_of
from guerdon.outbox import Outbox
from guerdon.privacy import controller as privacy_controller
from guerdon.privacy.exports import Exports
from guerdon.privacy.service import ERASURES_EVERY_MS, Erasures
from guerdon.recovery import controller as recovery_controller
from guerdon.recovery import jobs as recovery_jobs
from guerdon.recovery.service import Recovery
from guerdon.reversals import controller as reversals_controller
from guerdon.reversals.service import Reversals
from guerdon.rewards import controller as rewards_controller
from guerdon.rewards import referral_controller, tier_controller
from guerdon.rewards.campaigns import Campaigns
from guerdon.rewards.people import People
from guerdon.rewards.referrals import Referrals
from guerdon.rewards.replaying import Replays
from guerdon.rewards.service import Events
from guerdon.rewards.tier_service import REVIEW_EVERY_MS, Tiers
from guerdon.sealing import MasterKeys
from guerdon.security import Actor
from guerdon.sessions import controller as sessions_controller
from guerdon.sessions.guard import Guard
from guerdon.sessions.service import Sessions, SessionTerms
from guerdon.simulated_clock import controller as simulated_clock_controller
from guerdon.simulated_clock.service import ClockControl
from guerdon.throttling.rules import Quota
from guerdon.throttling.service import Throttle, quota_of
from guerdon.throttling.shared import SharedCounters
from guerdon.vouchers import batch_controller, offer_controller, till_controller
from guerdon.vouchers import controller as vouchers_controller
from guerdon.vouchers.batches import Batches
from guerdon.vouchers.making import MAKE_EVERY_MS, Making
from guerdon.vouchers.offers import Offers
from guerdon.vouchers.service import Vouchers
from guerdon.vouchers.till import Till
from guerdon.wallets import controller as wallets_controller
from guerdon.wallets.assets import Assets
from guerdon.wallets.service import Wallets
from guerdon.wallets.terms import WalletTerms
from guerdon.whatif import controller as whatif_controller
from guerdon.whatif.models import LANES
from guerdon.whatif.running import EVERY_MS as SIMULATIONS_EVERY_MS
from guerdon.whatif.running import Simulator
from guerdon.whatif.service import Simulations
from guerdon.workers.models import Job

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


@dataclass(frozen=True)
class Services:
    """Everything that can be asked to do something, wired to one database and one clock."""

    database: Database
    clock: Clock
    ids: IdSource
    token_keys: TokenKeys
    vault: Vault
    identity: Identity
    access: Access
    sessions: Sessions
    throttle: Throttle
    factors: Factors
    outbox: Outbox
    recovery: Recovery
    audit: Audit
    ledger: Ledger
    assets: Assets
    wallets: Wallets
    terms: WalletTerms
    history: History
    streams: Streams
    holds: Holds
    reversals: Reversals
    campaigns: Campaigns
    events: Events
    tiers: Tiers
    referrals: Referrals
    replays: Replays
    offers: Offers
    vouchers: Vouchers
    batches: Batches
    making: Making
    simulations: Simulations
    simulator: Simulator
    till: Till
    erasures: Erasures
    exports: Exports
    clock_control: ClockControl | None
    """Only in development."""


@dataclass(frozen=True)
class _Ground:
    """What is opened first, and closed again at the end."""

    database: Database
    clock: Clock
    control: ClockControl | None
    ids: IdSource
    token_keys: TokenKeys
    vault: Vault
    passwords: PasswordHasher
    throttle: Throttle
    outbox: Outbox
    ledger: Ledger
    assets: Assets


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock) -> AsyncGenerator[Services]:
    """Connect, check the server, create what is missing, and close in the reverse order.

    Raises:
        StartupRefused: the settings or the server are not safe to run on.
    """
    if settings.mongodb_url is None or settings.token_keys is None:
        raise StartupRefused("GUERDON_MONGODB_URL and GUERDON_TOKEN_KEYS_FILE must both be set")
    async with AsyncExitStack() as stack:
        database = await _open_database(settings, settings.mongodb_url.get_secret_value(), stack)
        clock, control = await _clock_of(settings, database, clock)
        master = _master_keys_of(settings)
        vault = Vault(database, master, clock)
        await vault.open()
        ids = IdSource(clock)
        books = _ledger_of(settings, database, clock)
        stack.push_async_callback(books.close)
        ground = _Ground(
            database=database,
            clock=clock,
            control=control,
            ids=ids,
            token_keys=TokenKeys(settings.token_keys.get_secret_value(), settings.jwks_max_age_seconds),
            vault=vault,
            passwords=_hasher_of(settings, stack),
            throttle=_throttle_of(settings, clock, stack),
            outbox=Outbox(database, master, ids, clock),
            ledger=books,
            assets=await _assets_of(database, clock),
        )
        services = _services_on(ground, settings)
        stack.push_async_callback(services.streams.close)
        yield services


def _services_on(ground: _Ground, settings: Settings) -> Services:
    database, clock, ids, vault, books, assets = (
        ground.database, ground.clock, ground.ids, ground.vault, ground.ledger, ground.assets,
    )  # fmt: skip
    tokens = Tokens(ground.token_keys, clock, settings.token_issuer, settings.token_audience, settings.access_token_ttl_seconds)
    members = Identity(database, vault, ground.passwords, ids, clock)
    guard = Guard(ground.throttle, vault, members, clock)
    access = Access(database, tokens, clock)
    factors = Factors(database, members, vault=vault, throttle=ground.throttle, clock=clock, issuer=settings.token_issuer)
    terms = _terms_of(settings)
    sessions = Sessions(database, members, vault=vault, tokens=tokens, clock=clock, guard=guard, factors=factors, terms=terms)
    audit = Audit(database, clock)
    wallets = Wallets(books, members, assets, database=database, clock=clock)
    people = People(members, vault)
    campaigns = Campaigns(database, assets, clock, ids, approval=settings.campaign_approval == "required")
    offers = Offers(books, assets, database=database, clock=clock, ids=ids)
    vouchers = Vouchers(books, offers, people, outbox=ground.outbox, database=database, clock=clock, ids=ids)
    days = settings.erased_external_id_days
    return Services(
        database=database,
        clock=clock,
        ids=ids,
        token_keys=ground.token_keys,
        vault=vault,
        identity=members,
        access=access,
        sessions=sessions,
        throttle=ground.throttle,
        factors=factors,
        outbox=ground.outbox,
        recovery=Recovery(database, members, sessions, vault=vault, guard=guard, outbox=ground.outbox, clock=clock),
        audit=audit,
        ledger=books,
        assets=assets,
        wallets=wallets,
        terms=WalletTerms(books, wallets),
        history=History(wallets, books, database=database, clock=clock),
        streams=Streams(wallets, database=database, clock=clock, stand=standing_of(access, sessions)),
        holds=Holds(books, database=database, clock=clock),
        reversals=Reversals(books, database=database),
        campaigns=campaigns,
        events=Events(books, members, campaigns, people=people, database=database, clock=clock),
        referrals=Referrals(books, members, database=database),
        tiers=Tiers(books, members, assets, database=database, clock=clock),
        replays=Replays(campaigns, people, database),
        simulations=Simulations(campaigns, database=database, clock=clock, ids=ids),
        simulator=Simulator(campaigns, people, database=database, clock=clock, calendar=books.calendar),
        offers=offers,
        vouchers=vouchers,
        batches=Batches(books, offers, database=database, clock=clock, ids=ids),
        making=Making(books, offers, database=database, clock=clock),
        till=Till(books, vouchers, offers, members, outbox=ground.outbox, clock=clock, ids=ids),
        erasures=Erasures(
            database, members, sessions, ledger=books, audit=audit, clock=clock, belongings=BELONGINGS, external_id_days=days
        ),
        exports=Exports(
            database,
            members,
            sessions,
            factors,
            people=people,
            wallets=wallets,
            vouchers=vouchers,
            ledger=books,
            audit=audit,
            clock=clock,
        ),
        clock_control=ground.control,
    )


async def _open_database(settings: Settings, url: str, stack: AsyncExitStack) -> Database:
    database = Database(url, settings.mongodb_database, pool_max=settings.mongodb_pool_max)
    stack.push_async_callback(database.close)
    await database.check()
    await database.sync_indexes(INDEXES)
    return database


def standing_of(access: Access, sessions: Sessions) -> Stand:
    """Return what tells what a caller, who has proven who it is some time ago, may do now."""

    async def stand(actor: Actor) -> Actor:
        return await (access.stand(actor) if actor.session is None else sessions.stand(actor, fresh=False))

    return stand


async def _assets_of(database: Database, clock: Clock) -> Assets:
    assets = Assets(database, clock)
    await assets.create_built_in()
    return assets


async def _clock_of(settings: Settings, database: Database, clock: Clock) -> tuple[Clock, ClockControl | None]:
    """In development, a clock that can be put forward, as far ahead as this database's has been."""
    if settings.profile == "production":
        return clock, None
    simulated = SimulatedClock(clock)
    control = ClockControl(database, simulated)
    await control.follow()
    return simulated, control


def _terms_of(settings: Settings) -> SessionTerms:
    return SessionTerms(settings.session_idle_hours, settings.session_absolute_hours, settings.second_factor_required)


def _throttle_of(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Throttle:
    throttle = Throttle(clock, _quotas_of(settings), _shared_counters(settings), on=settings.rate_limit == "on")
    stack.push_async_callback(throttle.close)
    return throttle


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
    return [quota_of(name, text) for name, text in texts.items()]


def _shared_counters(settings: Settings) -> SharedCounters | None:
    if settings.rate_limit_store is None:
        return None
    return SharedCounters(settings.rate_limit_store.get_secret_value(), settings.mongodb_database)


def _hasher_of(settings: Settings, stack: AsyncExitStack) -> PasswordHasher:
    hasher = PasswordHasher(settings.password_hash_threads, settings.password_hash_queue_max, settings.password_hash_memory_kib)
    stack.callback(hasher.close)
    return hasher


def _master_keys_of(settings: Settings) -> MasterKeys | None:
    """Commands that neither read nor make people, and let nobody log in, do without."""
    return None if settings.master_keys is None else MasterKeys(settings.master_keys.get_secret_value())


def _ledger_of(settings: Settings, database: Database, clock: Clock) -> Ledger:
    return Ledger(
        database,
        clock,
        Calendar(settings.time_zone),
        queue_max=settings.ledger_queue_max,
        batch_max=settings.ledger_batch_max,
        in_flight_max=settings.ledger_in_flight_max,
        deadline_ms=settings.ledger_deadline_ms,
    )


def jobs_of(services: Services, settings: Settings, log: FilteringBoundLogger) -> list[Job]:
    """Return what the workers do in the background. Without a key to sign with there are no checkpoints; without a mail server, no letters.

    Raises:
        StartupRefused: a setting is missing or not acceptable.
    """
    database, clock = services.database, services.clock

    def book() -> Awaitable[int]:
        return ledger_jobs.sweep(services.ledger, database, clock)

    jobs = [
        Job("sweep", ledger_jobs.SWEEP_EVERY_MS, book),
        Job("tiers", REVIEW_EVERY_MS, services.tiers.review_due),
        Job("erasures", ERASURES_EVERY_MS, services.erasures.finish_begun),
        Job("codes", MAKE_EVERY_MS, services.making.make_open),
        Job("recovery", recovery_jobs.EVERY_MS, services.recovery.answer_asked),
        *simulation_jobs(services),
    ]
    if settings.smtp_url is not None:
        jobs.append(Job("mail", recovery_jobs.EVERY_MS, _postman_of(services, settings, log).deliver))
    if settings.checkpoint_key is not None:
        keys = CheckpointKeys(settings.checkpoint_key.get_secret_value())

        async def sign() -> int:
            try:
                return await ledger_checkpoints.write_checkpoint(database, clock, keys, settings.checkpoint_file)
            except ledger_checkpoints.BooksChanged:
                request_id = services.ids.new("job")
                tell_security(log, "verify_failed", actor="system:worker", subject={}, result="failed", request_id=request_id)
                raise

        jobs.append(Job("checkpoint", settings.checkpoint_every_seconds * 1000, sign))
    return jobs


def simulation_jobs(services: Services) -> list[Job]:
    """Return the lanes of simulations: each has a lease of its own, so that several run at the same time, in any workers."""
    return [
        Job(f"simulations-{lane}", SIMULATIONS_EVERY_MS, partial(services.simulator.work, lane)) for lane in range(1, LANES + 1)
    ]


def _postman_of(services: Services, settings: Settings, log: FilteringBoundLogger) -> recovery_jobs.Postman:
    if settings.smtp_url is None or settings.mail_from is None or settings.reset_url is None:
        raise StartupRefused("GUERDON_SMTP_URL needs GUERDON_MAIL_FROM and GUERDON_RESET_URL beside it")
    server, sender = parse_smtp_url(settings.smtp_url.get_secret_value()), parse_sender(settings.mail_from)
    mailer = Mailer(server, sender, services.clock)
    return recovery_jobs.Postman(services.recovery, services.outbox, mailer, settings.reset_url, log)


def routes_of(
    services: Services, docs: operations_controller.DocsResource | None, metrics: Metrics, *, open_metrics: bool = False
) -> Routes:
    """Return every route of the service: (path, resource, suffix)."""

    async def ping() -> None:
        try:
            await services.database.ping()
        except PyMongoError as error:
            raise DatabaseUnavailable("the database does not answer", retry_after_seconds=5) from error

    return [
        *identity_controller.routes(services.identity, services.access, services.token_keys, services.clock),
        *sessions_controller.routes(services.sessions),
        *factors_controller.routes(services.factors),
        *recovery_controller.routes(services.recovery),
        *audit_controller.routes(services.audit),
        *wallets_controller.routes(services.wallets, services.terms, services.assets),
        *history_controller.routes(services.history, services.streams),
        *holds_controller.routes(services.holds),
        *reversals_controller.routes(services.reversals),
        *rewards_controller.routes(services.events, services.replays, services.campaigns, services.clock),
        *referral_controller.routes(services.referrals),
        *tier_controller.routes(services.tiers),
        *offer_controller.routes(services.offers, services.vouchers),
        *vouchers_controller.routes(services.vouchers),
        *batch_controller.routes(services.batches),
        *whatif_controller.routes(services.simulations),
        *till_controller.routes(services.till),
        *privacy_controller.routes(services.erasures, services.exports),
        *([] if services.clock_control is None else simulated_clock_controller.routes(services.clock_control)),
        *operations_controller.routes(docs, metrics, ping, open_metrics=open_metrics),
    ]


def build_app(services: Services, settings: Settings, log: FilteringBoundLogger) -> App[Any, Any]:
    """Return the ASGI application over `services`.

    Raises:
        TypeError: a route declares no policy.
    """
    metrics = Metrics()
    docs = operations_controller.DocsResource() if settings.serves_docs else None
    metrics.watch(services.ledger)
    routes = routes_of(services, docs, metrics, open_metrics=settings.opens_metrics)
    operations: dict[tuple[str, str], Operation] = {
        (path, method): declared
        for path, resource, suffix in routes
        for method, declared in operations_of(path, resource, suffix).items()
    }
    addresses = Addresses(networks_of(settings.trusted_proxies))
    strangers = Strangers(services.throttle, addresses, services.access, operations)
    app: App[Any, Any] = App(
        middleware=[
            Observation(
                services.clock,
                services.ids,
                metrics,
                log,
                access_log=settings.access_log,
                deadline_ms=settings.ledger_deadline_ms,
            ),
            Refusals(),
            SecurityEvents(log, operations),
            Headers(behind_tls=settings.behind_tls),
            *([CrossOrigin(settings.origins)] if settings.origins else []),
            strangers,
            Authentication(services.access, services.sessions, strangers, operations),
            Callers(services.throttle, settings.rate_limit_without_store),
            Auditing(services.audit, operations),
            Guesses(services.throttle, addresses, operations),
        ]
    )
    for path, resource, suffix in routes:
        app.add_route(path, resource, suffix=suffix)
    Problems(log, operations).install(app)
    if docs is not None:
        docs.publish(document_of(routes))
    return app


def behind_the_door(app: Asgi, settings: Settings, clock: Clock, log: FilteringBoundLogger) -> Asgi:
    """Return the application as the network reaches it: a request arrives whole, and waits its turn at its wallet."""
    fair = Fairness(app, clock, wait_seconds=settings.ledger_deadline_ms / 1000)
    return Arrival(fair, clock, log, body_seconds=settings.body_timeout_seconds)
