"""Stored and wire structs of rates and exchanges."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct, field, structs
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.ledger.models import Entry
from guerdon.lifecycle import version_id
from guerdon.money import AMOUNT_MAX, Amount, AssetCode, Rounding
from guerdon.transactions.models import PostedTransaction, view_posted
from guerdon.types import MemberId, Metadata, Reason, Reference
from guerdon.wallets.models import EffectiveAt

RATES, RATE_VERSIONS = "rates", "rate_versions"
INDEXES: dict[str, list[IndexModel]] = {RATES: [], RATE_VERSIONS: []}
VERSION_MAX = 10**9
Version = Annotated[int, Meta(ge=1, le=VERSION_MAX, description="Number of the version, from 1.", examples=[1])]
Bound = Annotated[int, Meta(ge=1, le=AMOUNT_MAX, description="Bound of `from_amount` in minor units.", examples=[500])]


# --- stored ---------------------------------------------------------------------------------------------------------


class Rate(Struct, frozen=True, kw_only=True):
    """A rate between two assets, as it is now or as one of its versions. Amounts are minor units."""

    id: str = field(name="_id")
    """`{source}-{target}`, such as `PTS-GBP`; in the archive `{source}-{target}/{version}`."""
    source: str
    target: str
    from_amount: int
    """Amount of `source` that is worth `to_amount` of `target`."""
    to_amount: int
    minimum: int | None
    maximum: int | None
    rounding: Rounding
    members: bool
    version: int
    created_at: int
    """Time of this version, in milliseconds."""
    created_by: str


# --- wire -----------------------------------------------------------------------------------------------------------


class RateSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Rate between two assets. `from_amount` minor units of the first are worth `to_amount` minor units of the second."""

    from_amount: Amount
    """Minor units of the first asset."""
    to_amount: Amount
    """Minor units of the second asset that these are worth."""
    minimum: Bound | None = None
    """Smallest amount of the first asset in one exchange, in minor units; null for no minimum."""
    maximum: Bound | None = None
    """Largest amount of the first asset in one exchange, in minor units; null for no maximum."""
    rounding: Rounding = "floor"
    """Rounding of the second amount to whole minor units: `floor`, `ceil` or `half_even`."""
    members: bool = False
    """True to let members exchange value of their own wallets at this rate."""


class RateView(Struct, frozen=True, kw_only=True):
    """A rate between two assets."""

    id: str
    """Id of the rate, such as `PTS-GBP`."""
    source: str = field(name="from")
    """Code of the asset that is given."""
    target: str = field(name="to")
    """Code of the asset that is received."""
    from_amount: int
    """Minor units of the first asset."""
    to_amount: int
    """Minor units of the second asset that these are worth."""
    minimum: int | None
    """Smallest amount of the first asset in one exchange, in minor units; null for no minimum."""
    maximum: int | None
    """Largest amount of the first asset in one exchange, in minor units; null for no maximum."""
    rounding: Rounding
    """Rounding of the second amount to whole minor units."""
    members: bool
    """True if members may exchange value of their own wallets at this rate."""
    version: int
    """Number of the version, from 1. Every change makes a new one."""
    created_at: str
    """Time of this version, RFC 3339 in UTC."""


class RateList(Struct, frozen=True):
    """One page of rates, ordered by id."""

    items: list[RateView]
    """Rates."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


class RateQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Version of a rate."""

    version: Version | None = None
    """Number of a version; the current one if absent."""


class QuoteCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to quote at the current rate."""

    source: AssetCode = field(name="from")
    """Code of the asset to give."""
    target: AssetCode = field(name="to")
    """Code of the asset to receive."""
    from_amount: Amount
    """Amount to give, in minor units."""
    member_id: MemberId | None = None
    """Id of a member, to learn whether the amount is available."""


class QuoteView(Struct, frozen=True):
    """Result that an exchange would have at the current rate. It reserves nothing, and the rate may change."""

    source: str = field(name="from")
    """Code of the asset to give."""
    target: str = field(name="to")
    """Code of the asset to receive."""
    from_amount: int
    """Amount to give, in minor units."""
    to_amount: int
    """Amount to receive, in minor units."""
    rate: RateView
    """The current rate. Send its `version` as `rate_version` to exchange at no other one."""
    available: int | None
    """Value of the member that can be given now, in minor units; null without a member."""


class ExchangeCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value of a member to exchange at the current rate."""

    member_id: MemberId
    """Id of the member whose wallets are changed."""
    source: AssetCode = field(name="from")
    """Code of the asset to give."""
    target: AssetCode = field(name="to")
    """Code of the asset to receive."""
    from_amount: Amount
    """Amount to give, in minor units."""
    rate_version: Version | None = None
    """Version of the rate to exchange at; null for the current one. Another current version refuses the exchange."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago. The rate is the current one; members cannot state a time."""


class RateRef(Struct, frozen=True):
    """Version of a rate."""

    id: str
    """Id of the rate, such as `PTS-GBP`."""
    version: int
    """Number of the version."""


class ExchangeView(PostedTransaction, frozen=True, kw_only=True):
    """An exchange, and the wallets of the member right after it."""

    member_id: str
    """Id of the member."""
    source: str = field(name="from")
    """Code of the asset that was given."""
    target: str = field(name="to")
    """Code of the asset that was received."""
    from_amount: int
    """Amount that was given, in minor units."""
    to_amount: int
    """Amount that was received, in minor units."""
    rate: RateRef
    """Rate and version that decided the amount."""


def view_rate(rate: Rate) -> RateView:
    return RateView(
        id=f"{rate.source}-{rate.target}",
        source=rate.source,
        target=rate.target,
        from_amount=rate.from_amount,
        to_amount=rate.to_amount,
        minimum=rate.minimum,
        maximum=rate.maximum,
        rounding=rate.rounding,
        members=rate.members,
        version=rate.version,
        created_at=rfc3339(rate.created_at),
    )


def view_exchange(entries: Sequence[Entry]) -> ExchangeView:
    """Return the view of an exchange. It depends on the stored entries only, so a replay returns the bytes of the first answer."""
    given, received = entries
    rate, _, version = (given.rate or "").rpartition("/")
    posted = view_posted(entries)
    return ExchangeView(
        **{name: getattr(posted, name) for name in PostedTransaction.__struct_fields__},
        member_id=given.owner,
        source=given.asset,
        target=received.asset,
        from_amount=-given.amount,
        to_amount=received.amount,
        rate=RateRef(rate, int(version)),
    )


def archived(rate: Rate) -> Rate:
    """Return the row of the archive for a rate."""
    return structs.replace(rate, id=version_id(rate.id, rate.version))
