"""Services of one process, built over its resources."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from guerdon.access.service import Access
from guerdon.access.token_keys import TokenKeys
from guerdon.access.tokens import Tokens
from guerdon.audit_log.service import AuditLog
from guerdon.bulk.service import Bulk
from guerdon.campaigns.profiles import Profiles
from guerdon.campaigns.service import Campaigns
from guerdon.campaigns.usage import CampaignUsages
from guerdon.campaigns.warnings import KnownNames
from guerdon.clock import Clock
from guerdon.clock_sync import ClockSync
from guerdon.closings.service import Closings
from guerdon.closings.store import ClosingStore
from guerdon.collections import ERASABLE_ROWS
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.events.recent_types import RecentEventTypes
from guerdon.events.recorded import RecordedEvents
from guerdon.events.replay import EventReplays
from guerdon.events.service import Events
from guerdon.events.voiding import EventVoids
from guerdon.exchanges.service import Exchanges, Rates
from guerdon.exports.files import FileStore
from guerdon.exports.running import Exporter, ExportLimits
from guerdon.exports.service import ExportJobs
from guerdon.exports.sources import ExportSources
from guerdon.history.service import History
from guerdon.history.streams import RecheckActor, Streams
from guerdon.holds.service import Holds
from guerdon.ids import IdSource
from guerdon.ledger.service import Ledger
from guerdon.members.service import Members
from guerdon.members.vault import Vault
from guerdon.offers.refusals import RefusalCounts
from guerdon.offers.service import Offers
from guerdon.outbox import Outbox
from guerdon.password_reset.service import PasswordResets
from guerdon.permissions import Actor
from guerdon.privacy.exports import Exports
from guerdon.privacy.service import Erasures
from guerdon.projections.reading import Views
from guerdon.projections.status import ViewStatus
from guerdon.rate_limits.service import RateLimiter
from guerdon.read_cache.service import ReadCache
from guerdon.referrals.service import Referrals
from guerdon.report_settings.service import ReportSettingsService
from guerdon.reports.accounting.controller import definitions_of as accounting_reports
from guerdon.reports.accounting.costs import costs_of
from guerdon.reports.accounting.service import Accounting
from guerdon.reports.campaigns import controller as campaign_reports
from guerdon.reports.campaigns.service import CampaignReports
from guerdon.reports.campaigns.service import costs_of as costs_of_campaigns
from guerdon.reports.frame import ReportFrame
from guerdon.reports.members import controller as member_reports
from guerdon.reports.members.service import MemberReports
from guerdon.reports.money import controller as money
from guerdon.reports.money.service import MoneyReports
from guerdon.reports.offers import controller as offer_reports
from guerdon.reports.offers.service import OfferReports
from guerdon.reports.reading import ViewReader
from guerdon.reports.registry import Reports
from guerdon.reports.sources.service import Sources
from guerdon.reversals.service import Reversals
from guerdon.second_factor.service import SecondFactors
from guerdon.segments.evaluation import SegmentEvaluator
from guerdon.segments.measuring import PurchaseMeter
from guerdon.segments.running import SegmentRunner
from guerdon.segments.service import Segments
from guerdon.sessions.guard import LoginGuard
from guerdon.sessions.service import SessionRules, Sessions
from guerdon.simulated_clock.service import ClockControl
from guerdon.simulations.running import Simulator
from guerdon.simulations.service import Simulations
from guerdon.tiers.service import Tiers
from guerdon.timeline.service import Timelines
from guerdon.transactions.service import Transactions
from guerdon.views.group import books_group
from guerdon.vouchers.codes.generation import CodeGeneration
from guerdon.vouchers.codes.service import CodeBatches
from guerdon.vouchers.pos.service import PointOfSale
from guerdon.vouchers.service import Vouchers
from guerdon.wallets.administration import WalletAdministration
from guerdon.wallets.assets import Assets
from guerdon.wallets.reading import WalletReads
from guerdon.wallets.service import Wallets
from guerdon.wiring.resources import Resources, open_resources


@dataclass(frozen=True)
class Services:
    """All services of one process, over one database and one clock."""

    database: Database
    clock: Clock
    ids: IdSource
    token_keys: TokenKeys
    vault: Vault
    members: Members
    access: Access
    sessions: Sessions
    rate_limiter: RateLimiter
    second_factors: SecondFactors
    outbox: Outbox
    password_resets: PasswordResets
    audit_log: AuditLog
    ledger: Ledger
    assets: Assets
    wallets: Wallets
    wallet_reads: WalletReads
    read_cache: ReadCache
    wallet_administration: WalletAdministration
    history: History
    streams: Streams
    holds: Holds
    transactions: Transactions
    reversals: Reversals
    bulk: Bulk
    rates: Rates
    exchanges: Exchanges
    campaigns: Campaigns
    campaign_usages: CampaignUsages
    events: Events
    tiers: Tiers
    segments: Segments
    segment_runner: SegmentRunner
    referrals: Referrals
    event_replays: EventReplays
    event_voids: EventVoids
    offers: Offers
    vouchers: Vouchers
    code_batches: CodeBatches
    code_generation: CodeGeneration
    simulations: Simulations
    simulator: Simulator
    point_of_sale: PointOfSale
    refusals: RefusalCounts
    timelines: Timelines
    erasures: Erasures
    exports: Exports
    export_jobs: ExportJobs
    exporter: Exporter
    views: Views
    view_status: ViewStatus
    report_frame: ReportFrame
    money_reports: MoneyReports
    reports: Reports
    campaign_reports: CampaignReports
    offer_reports: OfferReports
    member_reports: MemberReports
    sources: Sources
    accounting: Accounting
    report_settings: ReportSettingsService
    closings: Closings
    clock_control: ClockControl | None
    """None in production."""
    clock_sync: ClockSync | None
    """None if the clock does not follow the database, as in tests that set it."""


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock, *, create: bool = True) -> AsyncGenerator[Services]:
    """Open the resources, build the services, and close them in the reverse order.

    Without `create`, a database that does not exist yet is refused. A `DatabaseClock` is set by the database here; `follow_clocks` keeps it set.

    Raises:
        StartupRefused: a setting is missing or not safe, or the database server is not suitable.
    """
    async with AsyncExitStack() as stack:
        services = _services_on(await open_resources(settings, clock, stack, create=create), settings)
        stack.push_async_callback(services.streams.close)
        yield services


class _People(NamedTuple):
    """Services of members, staff and their credentials, on which most others depend."""

    members: Members
    access: Access
    guard: LoginGuard
    factors: SecondFactors
    sessions: Sessions
    profiles: Profiles


def _people_on(resources: Resources, settings: Settings) -> _People:
    database, clock, ids, vault = resources.database, resources.clock, resources.ids, resources.vault
    limiter = resources.rate_limiter
    tokens = Tokens(resources.token_keys, clock, settings.token_issuer, settings.token_audience, settings.access_token_ttl_seconds)
    members = Members(database, vault, resources.passwords, ids, clock)
    guard = LoginGuard(limiter, vault, members, clock)
    factors = SecondFactors(database, members, vault=vault, limiter=limiter, clock=clock, issuer=settings.token_issuer)
    rules = _session_rules_of(settings)
    sessions = Sessions(database, members, vault=vault, tokens=tokens, clock=clock, guard=guard, factors=factors, rules=rules)
    return _People(members, Access(database, tokens, clock), guard, factors, sessions, Profiles(members, vault))


def _privacy_on(
    resources: Resources,
    people: _People,
    wallets: Wallets,
    vouchers: Vouchers,
    audit: AuditLog,
    *,
    segments: Segments,
    settings: Settings,
    files: ExportJobs,
) -> tuple[Erasures, Exports]:
    database, clock, ledger = resources.database, resources.clock, resources.ledger
    members, _, _, factors, sessions, profiles = people
    erasures = Erasures(
        database,
        members,
        sessions,
        ledger=ledger,
        audit=audit,
        clock=clock,
        belongings=ERASABLE_ROWS,
        external_id_days=settings.erased_external_id_days,
        withdraw_files=files.withdraw_members,
    )
    exports = Exports(
        database,
        members,
        sessions,
        factors,
        profiles=profiles,
        wallets=wallets,
        vouchers=vouchers,
        segments=segments,
        ledger=ledger,
        audit=audit,
        clock=clock,
    )
    return erasures, exports


class _Reporting(NamedTuple):
    """Services of views, reports and closed months, by the names of `Services`."""

    views: Views
    report_frame: ReportFrame
    money_reports: MoneyReports
    campaign_reports: CampaignReports
    offer_reports: OfferReports
    member_reports: MemberReports
    reports: Reports
    accounting: Accounting
    report_settings: ReportSettingsService
    closings: Closings


def _reporting_on(
    resources: Resources,
    audit: AuditLog,
    tiers: Tiers,
    campaigns: tuple[Campaigns, CampaignUsages],
    offers: tuple[Offers, RefusalCounts],
) -> _Reporting:
    """Return the services of reports. The figures of closed months are read where the reports are made."""
    database, clock, calendar, assets = resources.database, resources.clock, resources.ledger.calendar, resources.assets
    views = Views(database, clock, books_group(calendar))
    frame, store = ReportFrame(ViewReader(database, views), assets, calendar, clock), ClosingStore(database)
    settings = ReportSettingsService(database, assets, calendar, clock, last_closed=store.last_closed)
    accounting = Accounting(frame, settings, store)
    money_reports = MoneyReports(frame, costs_of(accounting))
    about_campaigns = CampaignReports(frame, *campaigns, costs_of_campaigns(settings))
    about_offers, about_members = OfferReports(frame, *offers), MemberReports(frame, tiers)
    definitions = [
        *money.definitions(money_reports),
        *campaign_reports.definitions(about_campaigns),
        *offer_reports.definitions(about_offers),
        *member_reports.definitions(about_members),
        *accounting_reports(accounting),
    ]
    return _Reporting(
        views=views,
        report_frame=frame,
        money_reports=money_reports,
        campaign_reports=about_campaigns,
        offer_reports=about_offers,
        member_reports=about_members,
        reports=Reports(definitions),
        accounting=accounting,
        report_settings=settings,
        closings=Closings(store, frame, money_reports, accounting, database=database, audit=audit),
    )


def _exports_on(resources: Resources, settings: Settings, reports: Reports) -> tuple[ExportJobs, Exporter]:
    database, clock = resources.database, resources.clock
    sources = ExportSources(
        reports,
        database=database,
        vault=resources.vault,
        assets=resources.assets,
        calendar=resources.ledger.calendar,
        read_from=settings.reports_read_preference,
    )
    files = FileStore(database, resources.vault)
    limits = ExportLimits(hours=settings.export_hours, rows_max=settings.export_rows_max, mib_max=settings.export_mib_max)
    jobs = ExportJobs(sources, files, database=database, clock=clock, ids=resources.ids)
    return jobs, Exporter(sources, files, limits, database=database, clock=clock)


class _Redemption(NamedTuple):
    """Services of vouchers and their codes, by the names of `Services`."""

    refusals: RefusalCounts
    vouchers: Vouchers
    code_batches: CodeBatches
    code_generation: CodeGeneration
    point_of_sale: PointOfSale


def _redemption_on(resources: Resources, members: Members, profiles: Profiles, offers: Offers) -> _Redemption:
    database, clock, ids, ledger = resources.database, resources.clock, resources.ids, resources.ledger
    outbox, refusals = resources.outbox, RefusalCounts(database, clock, ledger.calendar)
    vouchers = Vouchers(ledger, offers, profiles, refusals=refusals, outbox=outbox, database=database, clock=clock, ids=ids)
    return _Redemption(
        refusals=refusals,
        vouchers=vouchers,
        code_batches=CodeBatches(ledger, offers, database=database, clock=clock, ids=ids),
        code_generation=CodeGeneration(ledger, offers, database=database, clock=clock),
        point_of_sale=PointOfSale(ledger, vouchers, offers, members, refusals=refusals, outbox=outbox, clock=clock, ids=ids),
    )


class _Movements(NamedTuple):
    """Services that move and show the value of wallets, by the names of `Services`."""

    wallet_reads: WalletReads
    wallet_administration: WalletAdministration
    history: History
    holds: Holds
    transactions: Transactions
    reversals: Reversals
    bulk: Bulk
    rates: Rates
    exchanges: Exchanges
    sources: Sources


def _movements_on(resources: Resources, wallets: Wallets) -> _Movements:
    database, clock, ledger = resources.database, resources.clock, resources.ledger
    transactions, rates = Transactions(ledger, wallets, clock), Rates(database, resources.assets, clock)
    holds, reversals = Holds(ledger, database=database, clock=clock), Reversals(ledger, transactions, database=database)
    return _Movements(
        wallet_reads=WalletReads(wallets, ledger, resources.read_cache),
        wallet_administration=WalletAdministration(ledger, wallets),
        history=History(wallets, ledger, database=database, clock=clock),
        holds=holds,
        transactions=transactions,
        reversals=reversals,
        bulk=Bulk(ledger, wallets, holds, reversals),
        rates=rates,
        exchanges=Exchanges(ledger, wallets, transactions, rates=rates, clock=clock),
        sources=Sources(reversals, database, ledger.calendar),
    )


def _services_on(resources: Resources, settings: Settings) -> Services:
    database, clock, ids, vault = resources.database, resources.clock, resources.ids, resources.vault
    ledger, assets = resources.ledger, resources.assets
    people = _people_on(resources, settings)
    members, access, guard, factors, sessions, profiles = people
    audit, wallets = AuditLog(database, clock), Wallets(ledger, members, assets, clock)
    movements = _movements_on(resources, wallets)
    tiers, segments, campaigns, offers = _definitions_on(resources, settings, members)
    redemption = _redemption_on(resources, members, profiles, offers)
    vouchers, refusals = redemption.vouchers, redemption.refusals
    usages = CampaignUsages(campaigns, members, ledger, assets=assets, clock=clock)
    reporting = _reporting_on(resources, audit, tiers, (campaigns, usages), (offers, refusals))
    export_jobs, exporter = _exports_on(resources, settings, reporting.reports)
    erasures, exports = _privacy_on(
        resources, people, wallets, vouchers, audit, segments=segments, settings=settings, files=export_jobs
    )
    return Services(
        **movements._asdict(),
        **redemption._asdict(),
        **reporting._asdict(),
        database=database,
        clock=clock,
        ids=ids,
        token_keys=resources.token_keys,
        vault=vault,
        members=members,
        access=access,
        sessions=sessions,
        rate_limiter=resources.rate_limiter,
        second_factors=factors,
        outbox=resources.outbox,
        password_resets=PasswordResets(database, members, sessions, vault=vault, guard=guard, outbox=resources.outbox, clock=clock),
        audit_log=audit,
        ledger=ledger,
        assets=assets,
        wallets=wallets,
        read_cache=resources.read_cache,
        streams=Streams(wallets, database=database, clock=clock, recheck_actor=recheck_actor(access, sessions)),
        campaigns=campaigns,
        campaign_usages=usages,
        events=Events(
            ledger,
            members,
            campaigns,
            profiles=profiles,
            database=database,
            clock=clock,
            ahead_hours_max=settings.event_ahead_hours_max,
        ),
        referrals=Referrals(ledger, members, database=database),
        tiers=tiers,
        segments=segments,
        segment_runner=_segment_runner_on(resources, settings, members, segments),
        event_replays=EventReplays(campaigns, profiles, database),
        event_voids=EventVoids(ledger, database=database, clock=clock),
        simulations=Simulations(campaigns, database=database, clock=clock, ids=ids),
        simulator=Simulator(campaigns, profiles, database=database, clock=clock, calendar=ledger.calendar),
        offers=offers,
        timelines=Timelines(
            members, ledger, movements.history, events=RecordedEvents(database), vouchers=vouchers, tiers=tiers, campaigns=campaigns
        ),
        erasures=erasures,
        exports=exports,
        export_jobs=export_jobs,
        exporter=exporter,
        view_status=ViewStatus(database, clock, reporting.views),
        clock_control=resources.control,
        clock_sync=resources.clock_sync,
    )


def _definitions_on(resources: Resources, settings: Settings, members: Members) -> tuple[Tiers, Segments, Campaigns, Offers]:
    """Return the services of definitions. Warnings about campaigns, offers and segments name the tiers, segments and events that exist."""
    database, clock, ids, assets = resources.database, resources.clock, resources.ids, resources.assets
    tiers = Tiers(resources.ledger, members, assets, database=database, clock=clock)
    recent_types = RecentEventTypes(database)

    async def known() -> KnownNames:
        return KnownNames(await tiers.get_codes(), await recent_types.read(), await segments.get_names())

    segments = Segments(database, clock, ids, known=known)

    approval = settings.campaign_approval == "required"
    campaigns = Campaigns(database, assets, clock, ids, known=known, approval=approval)
    offers = Offers(resources.ledger, assets, database=database, clock=clock, ids=ids, known=known)
    return tiers, segments, campaigns, offers


def _segment_runner_on(resources: Resources, settings: Settings, members: Members, segments: Segments) -> SegmentRunner:
    database, calendar = resources.database, resources.ledger.calendar
    return SegmentRunner(
        segments,
        PurchaseMeter(database, calendar),
        SegmentEvaluator(members, database),
        database=database,
        clock=resources.clock,
        ids=resources.ids,
        calendar=calendar,
        currency=settings.segments_currency,
    )


def recheck_actor(access: Access, sessions: Sessions) -> RecheckActor:
    """Return a function that re-checks a caller's current permissions."""

    async def recheck(actor: Actor) -> Actor:
        return await (access.current_actor(actor) if actor.session is None else sessions.current_actor(actor, fresh=False))

    return recheck


def _session_rules_of(settings: Settings) -> SessionRules:
    return SessionRules(settings.session_idle_hours, settings.session_absolute_hours, settings.second_factor_required)
