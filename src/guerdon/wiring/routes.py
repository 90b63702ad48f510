"""The HTTP application: routes, middlewares and limits."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from falcon.asgi import App
from pymongo.errors import PyMongoError
from structlog.typing import FilteringBoundLogger

from guerdon.access import controller as access
from guerdon.audit_log import controller as audit_log
from guerdon.bulk import controller as bulk
from guerdon.campaigns import controller as campaigns
from guerdon.clock import Clock
from guerdon.closings import controller as closings
from guerdon.config import Settings, networks_of
from guerdon.errors import DatabaseUnavailable
from guerdon.events import controller as events
from guerdon.exchanges import controller as exchanges
from guerdon.exports import controller as exports
from guerdon.history import controller as history
from guerdon.holds import controller as holds
from guerdon.http.operation import Operation
from guerdon.members import controller as members
from guerdon.middlewares.audit_records import AuditRecords
from guerdon.middlewares.authentication import Authentication
from guerdon.middlewares.problems import Problems
from guerdon.middlewares.rate_limits import Addresses, AnonymousLimit, CallerLimit, GuessLimit
from guerdon.middlewares.request_body import Refusals, RequestBody
from guerdon.middlewares.request_line import RequestLine
from guerdon.middlewares.request_log import RequestLog
from guerdon.middlewares.request_path import RequestPath
from guerdon.middlewares.response_headers import CrossOrigin, Headers
from guerdon.middlewares.security_events import SecurityEvents
from guerdon.middlewares.wallet_queue import WalletQueue
from guerdon.offers import controller as offers
from guerdon.password_reset import controller as password_reset
from guerdon.privacy import controller as privacy
from guerdon.projections import controller as projections
from guerdon.projections.status import ViewCollector
from guerdon.referrals import controller as referrals
from guerdon.report_settings import controller as report_settings
from guerdon.reports import controller as reports
from guerdon.reports.accounting import controller as accounting
from guerdon.reports.campaigns import controller as campaign_reports
from guerdon.reports.members import controller as member_reports
from guerdon.reports.money import controller as money
from guerdon.reports.offers import controller as offer_reports
from guerdon.reports.sources import controller as sources
from guerdon.reversals import controller as reversals
from guerdon.second_factor import controller as second_factor
from guerdon.segments import controller as segments
from guerdon.sessions import controller as sessions
from guerdon.simulated_clock import controller as simulated_clock
from guerdon.simulations import controller as simulations
from guerdon.system import controller as system
from guerdon.system.metrics import Metrics
from guerdon.system.openapi import Routes, document_of, operations_of
from guerdon.tiers import controller as tiers
from guerdon.timeline import controller as timeline
from guerdon.transactions import controller as transactions
from guerdon.vouchers import controller as vouchers
from guerdon.vouchers.codes import controller as codes
from guerdon.vouchers.pos import controller as pos
from guerdon.wallets import controller as wallets
from guerdon.wiring.services import Services

Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def routes_of(services: Services, docs: system.DocsResource | None, metrics: Metrics, *, open_metrics: bool = False) -> Routes:
    """Return every route of the service: (path, resource, suffix)."""

    async def check_ready() -> None:
        try:
            await services.database.ping()
            if services.clock_sync is not None:
                await services.clock_sync.require_agreement()
        except PyMongoError as error:
            raise DatabaseUnavailable("the database does not answer", retry_after_seconds=5) from error

    async def read_segments(member_ids: Sequence[str]) -> dict[str, Sequence[str]]:
        return await services.segments.find_segments_of(member_ids)

    return [
        *members.routes(services.members, read_segments),
        *access.routes(services.access, services.token_keys, services.clock),
        *sessions.routes(services.sessions),
        *second_factor.routes(services.second_factors),
        *password_reset.routes(services.password_resets),
        *audit_log.routes(services.audit_log),
        *wallets.routes(services.wallets, services.wallet_reads, services.wallet_administration, services.assets),
        *bulk.routes(services.bulk),
        *history.routes(services.history, services.streams),
        *holds.routes(services.holds),
        *transactions.routes(services.transactions),
        *reversals.routes(services.reversals),
        *sources.routes(services.sources),
        *exchanges.routes(services.rates, services.exchanges),
        *events.routes(services.events, services.event_replays, services.event_voids),
        *campaigns.routes(services.campaigns, services.campaign_usages, services.clock),
        *referrals.routes(services.referrals),
        *tiers.routes(services.tiers),
        *segments.routes(services.segments),
        *offers.routes(services.offers),
        *vouchers.routes(services.vouchers),
        *codes.routes(services.code_batches),
        *simulations.routes(services.simulations),
        *pos.routes(services.point_of_sale),
        *projections.routes(services.view_status),
        *timeline.routes(services.timelines),
        *reports.routes(services.reports),
        *campaign_reports.routes(services.campaign_reports),
        *offer_reports.routes(services.offer_reports),
        *member_reports.routes(services.member_reports),
        *accounting.routes(services.accounting),
        *report_settings.routes(services.report_settings),
        *closings.routes(services.closings),
        *exports.routes(services.export_jobs, services.clock),
        *money.routes(services.money_reports),
        *privacy.routes(services.erasures, services.exports),
        *([] if services.clock_control is None else simulated_clock.routes(services.clock_control)),
        *system.routes(docs, metrics, check_ready, open_metrics=open_metrics),
    ]


def build_app(services: Services, settings: Settings, log: FilteringBoundLogger) -> App[Any, Any]:
    """Return the ASGI application over `services`.

    Raises:
        TypeError: a route declares no policy.
    """
    metrics = Metrics()
    docs = system.DocsResource() if settings.serves_docs else None
    metrics.watch(services.ledger, services.clock_sync, services.read_cache)
    metrics.register(ViewCollector(services.view_status))
    routes = routes_of(services, docs, metrics, open_metrics=settings.opens_metrics)
    operations: dict[tuple[str, str], Operation] = {
        (path, method): declared
        for path, resource, suffix in routes
        for method, declared in operations_of(path, resource, suffix).items()
    }
    addresses = Addresses(networks_of(settings.trusted_proxies))
    anonymous_limit = AnonymousLimit(services.rate_limiter, addresses, services.access, operations)
    app: App[Any, Any] = App(
        middleware=[
            RequestPath(),
            RequestLog(
                services.clock,
                services.ids,
                metrics,
                log,
                access_log=settings.access_log,
                deadline_ms=settings.ledger_deadline_ms,
            ),
            RequestLine(),
            Refusals(),
            SecurityEvents(log, operations),
            Headers(behind_tls=settings.behind_tls),
            *([CrossOrigin(settings.origins)] if settings.origins else []),
            anonymous_limit,
            Authentication(services.access, services.sessions, anonymous_limit, operations),
            CallerLimit(services.rate_limiter, settings.rate_limit_without_store),
            AuditRecords(services.audit_log, operations),
            GuessLimit(services.rate_limiter, addresses, operations),
        ]
    )
    for path, resource, suffix in routes:
        app.add_route(path, resource, suffix=suffix)
    Problems(log, operations).install(app)
    if docs is not None:
        docs.publish(document_of(routes))
    return app


def with_limits(app: Asgi, settings: Settings, clock: Clock, log: FilteringBoundLogger) -> Asgi:
    """Return the application behind its limits: buffer the body of a request, then queue the request at its wallet."""
    queued = WalletQueue(app, clock, wait_seconds=settings.ledger_deadline_ms / 1000)
    return RequestBody(queued, clock, log, body_seconds=settings.body_timeout_seconds)
