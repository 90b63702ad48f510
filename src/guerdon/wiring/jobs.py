"""Background work of a worker, by pool."""

from enum import StrEnum
from functools import partial

from structlog.typing import FilteringBoundLogger

from guerdon.config import Settings
from guerdon.errors import StartupRefused
from guerdon.exports import running as exporting
from guerdon.exports.models import LANES as EXPORT_LANES
from guerdon.ledger import jobs as ledger_jobs
from guerdon.logs import log_security_event
from guerdon.mail import Mailer, parse_sender, parse_smtp_url
from guerdon.password_reset import jobs as recovery_jobs
from guerdon.privacy.service import ERASURES_EVERY_MS
from guerdon.projections.service import Projector
from guerdon.segments.running import EVERY_MS as SEGMENTS_EVERY_MS
from guerdon.simulations.models import LANES
from guerdon.simulations.running import EVERY_MS as SIMULATIONS_EVERY_MS
from guerdon.tiers.service import REVIEW_EVERY_MS
from guerdon.verification import checkpoints as ledger_checkpoints
from guerdon.verification.signing import CheckpointKeys
from guerdon.vouchers.codes.generation import GENERATE_EVERY_MS
from guerdon.wiring.services import Services
from guerdon.workers.models import Job
from guerdon.workers.service import Runner


class Pool(StrEnum):
    """Part of the background work that a worker process does."""

    LEDGER = "ledger"
    VIEWS = "views"
    WEBHOOKS = "webhooks"
    IMPORTS = "imports"
    ALL = "all"


POOLS_WITHOUT_JOBS = frozenset({Pool.WEBHOOKS, Pool.IMPORTS})
"""Pools that have a name, so that deployments can be prepared, and no work yet."""


def runner_of(services: Services, settings: Settings, log: FilteringBoundLogger) -> Runner:
    """Return the runner of the jobs.

    Raises:
        StartupRefused: a setting is missing or not acceptable.
    """
    return Runner(services.database, services.ids, log, jobs_of(services, settings, log))


def report_runner_of(services: Services, log: FilteringBoundLogger) -> Runner:
    """Return the runner of the jobs beside the projector: those that read much and change no books."""
    return Runner(services.database, services.ids, log, export_jobs(services))


def projector_of(services: Services, log: FilteringBoundLogger) -> Projector:
    """Return the projector of the views."""
    return Projector(services.database, services.clock, services.ids, log, services.views.group)


def jobs_of(services: Services, settings: Settings, log: FilteringBoundLogger) -> list[Job]:
    """Return the background jobs of a worker. Checkpoints need a key that signs them, and e-mails need a mail server.

    Raises:
        StartupRefused: a setting is missing or not acceptable.
    """
    database, clock = services.database, services.clock

    async def sweep() -> int:
        return await ledger_jobs.sweep(services.ledger, database, clock) if _clocks_agree(services) else 0

    async def review_tiers() -> int:
        return await services.tiers.review_due() if _clocks_agree(services) else 0

    async def run_segments() -> int:
        return await services.segment_runner.work() if _clocks_agree(services) else 0

    jobs = [
        Job("sweep", ledger_jobs.SWEEP_EVERY_MS, sweep),
        Job("tiers", REVIEW_EVERY_MS, review_tiers),
        Job("segments", SEGMENTS_EVERY_MS, run_segments),
        Job("erasures", ERASURES_EVERY_MS, services.erasures.finish_begun),
        Job("codes", GENERATE_EVERY_MS, services.code_generation.generate_open),
        Job("recovery", recovery_jobs.EVERY_MS, services.password_resets.process_requests),
        *simulation_jobs(services),
    ]
    if settings.smtp_url is not None:
        jobs.append(Job("mail", recovery_jobs.EVERY_MS, _postman_of(services, settings, log).deliver))
    if settings.checkpoint_key is not None:
        keys = CheckpointKeys(settings.checkpoint_key.get_secret_value())

        async def sign() -> int:
            try:
                return await ledger_checkpoints.write_checkpoint(database, clock, keys, settings.checkpoint_file)
            except ledger_checkpoints.LedgerChanged:
                request_id = services.ids.new("job")
                log_security_event(log, "verify_failed", actor="system:worker", subject={}, result="failed", request_id=request_id)
                raise

        jobs.append(Job("checkpoint", settings.checkpoint_every_seconds * 1000, sign))
    return jobs


def _clocks_agree(services: Services) -> bool:
    """Return False while the clocks of this machine and of the database differ too much.

    Jobs that only book what time has changed then wait: a wrong time would change many accounts at once, and no request depends on these jobs.
    """
    return services.clock_sync is None or not services.clock_sync.skewed


def simulation_jobs(services: Services) -> list[Job]:
    """Return one job for each lane of simulations. Each lane has a lease, so that several simulations run at the same time."""
    return [
        Job(f"simulations-{lane}", SIMULATIONS_EVERY_MS, partial(services.simulator.work, lane)) for lane in range(1, LANES + 1)
    ]


def export_jobs(services: Services) -> list[Job]:
    """Return one job for each lane of exports, and the job that removes their files."""
    writing = [
        Job(f"exports-{lane}", exporting.EVERY_MS, partial(services.exporter.work, lane), limit_ms=exporting.LIMIT_MS)
        for lane in range(1, EXPORT_LANES + 1)
    ]
    return [*writing, Job("export-files", exporting.REMOVE_EVERY_MS, services.exporter.remove_due)]


def _postman_of(services: Services, settings: Settings, log: FilteringBoundLogger) -> recovery_jobs.ResetMailer:
    if settings.smtp_url is None or settings.mail_from is None or settings.reset_url is None:
        raise StartupRefused("GUERDON_SMTP_URL also needs GUERDON_MAIL_FROM and GUERDON_RESET_URL")
    server, sender = parse_smtp_url(settings.smtp_url.get_secret_value()), parse_sender(settings.mail_from)
    mailer = Mailer(server, sender, services.clock)
    return recovery_jobs.ResetMailer(services.password_resets, services.outbox, mailer, settings.reset_url, log)
