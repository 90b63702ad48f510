"""Filters of the lists that can be exported."""

from typing import Any

import msgspec
from msgspec import Struct, field

from guerdon.campaigns.models import EventType
from guerdon.errors import Validation
from guerdon.history.models import Moment, moment_ms
from guerdon.http.validation import faults_of
from guerdon.money import AssetCode
from guerdon.types import DefinitionStatus
from guerdon.vouchers.models import OfferId
from guerdon.wallets.models import WalletId


class ListFilter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filters of a list."""


class TimeFilter(ListFilter, frozen=True, kw_only=True):
    """Filters of a list in time."""

    since: Moment | None = field(name="from", default=None)
    """Rows at or after this time, RFC 3339 with an offset."""
    until: Moment | None = field(name="to", default=None)
    """Rows before this time, RFC 3339 with an offset."""


class EntriesFilter(TimeFilter, frozen=True, kw_only=True):
    """Filters of the list `entries`."""

    asset: AssetCode | None = None
    wallet: WalletId | None = None


class WalletsFilter(ListFilter, frozen=True, kw_only=True):
    """Filters of the list `wallets`."""

    asset: AssetCode | None = None


class EventsFilter(TimeFilter, frozen=True, kw_only=True):
    """Filters of the list `events`. The time is that of the event."""

    type: EventType | None = None


class VouchersFilter(TimeFilter, frozen=True, kw_only=True):
    """Filters of the list `vouchers`. The time is that of the issue."""

    offer: OfferId | None = None


class MembersFilter(TimeFilter, frozen=True, kw_only=True):
    """Filters of the list `members`. The time is that of the creation."""


class CampaignsFilter(ListFilter, frozen=True, kw_only=True):
    """Filters of the list `campaigns`."""

    status: DefinitionStatus | None = None


def filter_of(kind: type[Any], query: dict[str, str | int | bool], *, within: str = "/query") -> Any:
    """Return the filters of an export as a struct.

    Raises:
        Validation: a filter is unknown or not acceptable, or the range of time ends before it begins.
    """
    try:
        wanted = msgspec.convert(query, kind)
    except msgspec.ValidationError:
        raise Validation.of(faults_of(kind, query)).under(within) from None
    if isinstance(wanted, TimeFilter):
        since, until = bounds_of(wanted, within=within)
        if since is not None and until is not None and since > until:
            raise Validation.at(f"{within}/to", "must not be before from")
    return wanted


def bounds_of(wanted: TimeFilter, *, within: str = "/query") -> tuple[int | None, int | None]:
    """Return the first millisecond of a filter, and the first one after it.

    Raises:
        Validation: a time does not exist.
    """
    since = None if wanted.since is None else moment_ms(wanted.since, f"{within}/from")
    until = None if wanted.until is None else moment_ms(wanted.until, f"{within}/to")
    return since, until
