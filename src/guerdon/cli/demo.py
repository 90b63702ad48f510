"""Demonstration data of `guerdon up`: members, purchases, campaigns, offers and log-ins, generated from a seed.

The secrets (two passwords and a service key) are random. They are stored in the data directory, so that every `guerdon up` can print them.
"""

import json
import random
from pathlib import Path

from guerdon.campaigns.domain import Item, ShopEvent
from guerdon.campaigns.models import CampaignCreate, FixedAward, PerAmountAward
from guerdon.cli.key_files import write_private
from guerdon.clock import to_datetime
from guerdon.errors import AlreadyExists, Unauthenticated
from guerdon.ids import random_base62
from guerdon.offers.models import BasketMinimum, FixedValue, ItemValue, OfferCreate, Price
from guerdon.permissions import ANY_SCOPE, Actor, Role
from guerdon.quantities import line_cost
from guerdon.wiring.services import Services

SEED = 20_260_101
MEMBERS, PURCHASES = 24, 160
ACTOR = Actor("system:demo", "system", frozenset({ANY_SCOPE}))
OPERATOR_EMAIL, MEMBER_EMAIL = "operator@demo.example", "ada@demo.example"
CAMPAIGN_BASE, CAMPAIGN_LARGE = "cmp_000000000000000000000000000000d1", "cmp_000000000000000000000000000000d2"
_PRODUCTS = [("TEA-EARL", 425), ("MUG-BLUE", 895), ("POT-IRON", 3450), ("CAKE-FIG", 1275), ("TIN-PLAIN", 310), ("TRAY-OAK", 5600)]
_DAY_MS = 86_400_000


async def ensure_demo(services: Services, data_dir: Path) -> dict[str, str]:
    """Create the demonstration data, as far as it does not exist, and return its log-ins. It is safe to run this again after an interruption."""
    secrets = await _ensure_secrets(services, data_dir / "secrets" / "demo.json")
    await _ensure_person(services, OPERATOR_EMAIL, secrets["operator_password"], "admin")
    await _ensure_person(services, MEMBER_EMAIL, secrets["member_password"], "member")
    await _ensure_campaigns(services)
    await _record_purchases(services)
    await _ensure_offers(services)
    return {**secrets, "operator_email": OPERATOR_EMAIL, "member_email": MEMBER_EMAIL}


async def _ensure_secrets(services: Services, path: Path) -> dict[str, str]:
    """Return the stored secrets if their service key is valid; otherwise create new ones, as for a new database in an old directory."""
    stored = _read(path)
    if stored is not None:
        try:
            await services.access.authenticate(f"Bearer {stored['service_key']}")
        except Unauthenticated:
            pass
        else:
            return stored
    secrets = {
        "operator_password": random_base62(16),
        "member_password": random_base62(16),
        "service_key": await services.access.create_key("demo", [ANY_SCOPE]),
    }
    write_private(path, json.dumps(secrets, indent=2))
    return secrets


def _read(path: Path) -> dict[str, str] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


async def _ensure_person(services: Services, email: str, password: str, role: Role) -> None:
    try:
        if role == "member":
            await services.members.register(email, password)
        else:
            await services.members.create_operator(email, password, role)
    except AlreadyExists:
        return


async def _ensure_campaigns(services: Services) -> None:
    base = CampaignCreate(
        name="1 point per pound",
        asset="PTS",
        event_types=["purchase", "refund"],
        award=PerAmountAward(points=1, per=100, rounding="floor"),
        condition="event.amount > 0 && event.currency == 'GBP'",
    )
    large = CampaignCreate(
        name="50 points on orders from 50 pounds",
        asset="PTS",
        event_types=["purchase"],
        award=FixedAward(amount=50),
        condition="event.amount >= 5000 && event.currency == 'GBP'",
    )
    for campaign_id, body in ((CAMPAIGN_BASE, base), (CAMPAIGN_LARGE, large)):
        if not await services.campaigns.exists(campaign_id):
            await services.campaigns.create(ACTOR, body, campaign_id=campaign_id)
        # A campaign that was paused stays paused.
        if (await services.campaigns.get_campaign(campaign_id)).status == "draft":
            await services.campaigns.set_status(campaign_id, "active")


async def _ensure_offers(services: Services) -> None:
    """Create and activate three offers; one of them has a stock."""
    pounds_off = OfferCreate(
        name="5 pounds off",
        kind="discount",
        value=FixedValue(amount=500, currency="GBP"),
        price=Price("PTS", 150),
        per_member_month_limit=2,
        voucher_valid_days=90,
        minimum_basket=BasketMinimum(2000, "GBP"),
    )
    mug = OfferCreate(
        name="A blue mug", kind="item", value=ItemValue(sku="MUG-BLUE"), price=Price("PTS", 300), stock=25, per_member_limit=1
    )
    card = OfferCreate(
        name="A gift card of 10 pounds", kind="gift_card", value=FixedValue(amount=1000, currency="GBP"), price=Price("PTS", 1000)
    )
    for number, body in enumerate((pounds_off, mug, card), 1):
        offer_id = f"off_{number:032x}"
        if not await services.offers.exists(offer_id):
            await services.offers.create(ACTOR, body, offer_id=offer_id)
        # An offer that was paused stays paused.
        if (await services.offers.get_offer(offer_id)).offer.status == "draft":
            await services.offers.set_status(offer_id, "active")


async def _record_purchases(services: Services) -> None:
    """Record the purchases. The same seed gives the same event ids, so a second start records no event twice."""
    rng = random.Random(SEED)
    first_day_ms = 1_767_225_600_000  # 2026-01-01T00:00:00Z
    live = await services.campaigns.list_live()
    events = [_purchase(rng, number, first_day_ms) for number in range(PURCHASES)]
    await services.events.record_all(ACTOR, events, [each for each in live if each.campaign.id in (CAMPAIGN_BASE, CAMPAIGN_LARGE)])


def _purchase(rng: random.Random, number: int, first_day_ms: int) -> ShopEvent:
    member = f"demo-{rng.randrange(MEMBERS) + 1:03d}"
    items = tuple(
        Item(sku=sku, quantity=rng.randint(1, 3), unit_price=price) for sku, price in rng.sample(_PRODUCTS, rng.randint(1, 3))
    )
    occurred_at = first_day_ms + number * _DAY_MS * 2 + rng.randrange(_DAY_MS)
    return ShopEvent(
        id=f"demo-{to_datetime(occurred_at):%Y%m%d}-{number:04d}",
        type="purchase",
        occurred_at=occurred_at,
        amount=sum(line_cost(item.quantity, item.unit_price) for item in items),
        currency="GBP",
        external_id=member,
        items=items,
        attributes={"channel": rng.choice(["web", "shop"])},
    )
