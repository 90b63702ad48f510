"""Commands and queries on the settings of reports."""

from collections.abc import Awaitable, Callable, Sequence

from guerdon.calendar import Calendar
from guerdon.clock import Clock
from guerdon.database import Database, DuplicateKeyError
from guerdon.errors import InvalidState, MonthClosed, NotFound, Validation
from guerdon.permissions import Actor
from guerdon.report_settings.models import (
    REPORT_SETTINGS,
    VERSIONS_MAX,
    ReportSettings,
    ReportSettingsSet,
    settings_id,
)
from guerdon.wallets.assets import Assets

WRITES_MAX = 10
"""Maximum number of attempts to store a version while other requests store versions of the same asset."""
LastClosed = Callable[[], Awaitable[str | None]]
"""Returns the last month that is closed, or None."""


class ReportSettingsService:
    """Settings of the reports by asset and month."""

    def __init__(self, database: Database, assets: Assets, calendar: Calendar, clock: Clock, *, last_closed: LastClosed) -> None:
        self._versions = database.collection(REPORT_SETTINGS, ReportSettings)
        self._assets = assets
        self._calendar = calendar
        self._clock = clock
        self._last_closed = last_closed

    async def replace(self, actor: Actor, asset: str, body: ReportSettingsSet) -> ReportSettings:
        """Store settings as the next version. The content that applies already from that month on makes no version.

        Raises:
            NotFound: the asset does not exist.
            Validation: the currency differs from that of the earlier versions.
            MonthClosed: the settings would apply to a closed month.
            InvalidState: other requests kept changing the settings, or there are too many versions.
        """
        await self._require_asset(asset)
        valid_from = body.valid_from or self._present_month()
        closed = await self._last_closed()
        if closed is not None and valid_from <= closed:
            raise MonthClosed(
                f"{closed} is closed; settings can apply to later months only: send a later valid_from",
                month=valid_from,
                closed_through=closed,
            )
        for _ in range(WRITES_MAX):
            versions = await self.list_versions(asset)
            if versions and versions[0].currency != body.currency:
                raise Validation.at("/currency", f"must stay {versions[0].currency}: amounts in two currencies cannot be added up")
            current = next((each for each in versions if each.valid_from == valid_from), None)
            if current is not None and _content_of(current) == _content_of(body):
                return current
            if len(versions) >= VERSIONS_MAX:
                raise InvalidState(f"the settings of an asset have at most {VERSIONS_MAX} versions", status_now="full")
            number = versions[0].version + 1 if versions else 1
            settings = ReportSettings(
                id=settings_id(asset, number),
                asset=asset,
                version=number,
                valid_from=valid_from,
                currency=body.currency,
                value_per_point=body.value_per_point,
                cost_per_point=body.cost_per_point,
                redemption_rate=body.redemption_rate,
                created_at=self._clock.now_ms(),
                created_by=actor.id,
            )
            try:
                await self._versions.insert(settings)
            except DuplicateKeyError:
                continue
            return settings
        raise InvalidState("other requests keep changing the settings; read them and try again", status_now="changing")

    async def get_settings(self, asset: str, month: str | None = None) -> ReportSettings:
        """Return the settings that apply to a month, by default the present one.

        Raises:
            NotFound: the asset does not exist, or no settings apply to the month.
        """
        await self._require_asset(asset)
        wanted = month or self._present_month()
        found = settings_of(await self.list_versions(asset), wanted)
        if found is None:
            raise NotFound(f"no report settings of {asset} apply to {wanted}; PUT /v1/report-settings/{asset} sets them")
        return found

    async def list_versions(self, asset: str) -> list[ReportSettings]:
        """Return all versions of the settings of an asset, newest first.

        Raises:
            NotFound: the asset does not exist.
        """
        await self._require_asset(asset)
        ids = {"$gte": f"{asset}/", "$lt": f"{asset}0"}  # "0" is the character after "/".
        return await self._versions.find({"_id": ids}, sort=[("_id", -1)], limit=VERSIONS_MAX)

    def _present_month(self) -> str:
        return self._calendar.names(self._clock.now_ms())[1]

    async def _require_asset(self, asset: str) -> None:
        if not await self._assets.exists(asset):
            raise NotFound(f"the asset {asset} does not exist")


def settings_of(versions: Sequence[ReportSettings], month: str) -> ReportSettings | None:
    """Return the version that applies to a month: the one with the latest `valid_from`; of several, the newest."""
    valid = [each for each in versions if each.valid_from <= month]
    return max(valid, key=lambda each: (each.valid_from, each.version), default=None)


def _content_of(settings: ReportSettings | ReportSettingsSet) -> tuple[object, ...]:
    return (settings.currency, settings.value_per_point, settings.cost_per_point, settings.redemption_rate)
