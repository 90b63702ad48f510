"""The lists that can be exported: their columns, their filters, and the scopes that they need."""

from msgspec import Struct

from guerdon.exports.filters import (
    CampaignsFilter,
    EntriesFilter,
    EventsFilter,
    ListFilter,
    MembersFilter,
    VouchersFilter,
    WalletsFilter,
)
from guerdon.exports.models import ListName
from guerdon.exports.tables import ColumnKind, TableColumn


class ListSpec(Struct, frozen=True):
    """One list."""

    scope: str
    """Scope that a caller needs besides that of exports."""
    filter: type[ListFilter]
    columns: tuple[TableColumn, ...]
    personal_columns: tuple[TableColumn, ...] = ()
    """Columns with personal data, which follow only if the caller asks for them."""


def _columns(**kinds: ColumnKind) -> tuple[TableColumn, ...]:
    return tuple(TableColumn(name, kind) for name, kind in kinds.items())


LISTS: dict[ListName, ListSpec] = {
    "entries": ListSpec(
        "wallets:read",
        EntriesFilter,
        _columns(
            id="text", account="text", member_id="text", seq="integer", created_at="time", kind="text", asset="text", scale="integer",
            amount="integer", balance_after="integer", held_after="integer", counter="text", transaction_id="text",
            reference="text", reason="text", hold="text", reverses="text", effective_at="time", rate="text", lots="text",
            metadata="text", hash="text",
        ),
    ),
    "wallets": ListSpec(
        "wallets:read",
        WalletsFilter,
        _columns(
            id="text", member_id="text", asset="text", scale="integer", balance="integer", held="integer", available="integer",
            pending="integer", expired="integer", status="text", seq="integer", opened_at="time", changed_at="time",
        ),
    ),
    "events": ListSpec(
        "events:read",
        EventsFilter,
        _columns(
            id="text", member_id="text", type="text", occurred_at="time", recorded_at="time", amount="integer", currency="text",
            scale="integer", refund_of="text", confirms="text", status="text", awards="text", note="text",
        ),
    ),
    "vouchers": ListSpec(
        "vouchers:read",
        VouchersFilter,
        _columns(
            id="text", member_id="text", offer="text", offer_version="integer", kind="text", name="text", status="text",
            issued_at="time", expires_at="time", reserved_until="time", uses_left="integer", balance="integer", currency="text",
            scale="integer", price_asset="text", price_amount="integer", price_scale="integer", transaction_id="text",
            value="text",
        ),
    ),
    "members": ListSpec(
        "members:read",
        MembersFilter,
        _columns(id="text", external_id="text", role="text", status="text", tier="text", created_at="time"),
        _columns(email="text", attributes="text"),
    ),
    "campaigns": ListSpec(
        "campaigns:read",
        CampaignsFilter,
        _columns(
            id="text", version="integer", status="text", name="text", asset="text", scale="integer", event_types="text",
            award="text", budget="integer", starts_at="time", ends_at="time", created_at="time", changed_at="time",
        ),
    ),
}  # fmt: skip


def columns_of_list(name: ListName, *, personal: bool) -> tuple[TableColumn, ...]:
    """Return the columns of a list."""
    spec = LISTS[name]
    return (*spec.columns, *spec.personal_columns) if personal else spec.columns
