"""Books in which everything has happened that can: every kind of entry, every state of a hold, and a checkpoint over most of it."""

import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from guerdon.access.token_keys import TokenKeys
from guerdon.ledger.jobs import sweep
from guerdon.ledger.models import CommandOutcome, EntryKind
from guerdon.verification.checkpoints import CheckpointKeys, write_checkpoint
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.invariants.ledger_driver import award_command
from tests.invariants.ledger_requests import WAITING, Ask, Dates

KINDS: set[str] = set(get_args(EntryKind))
KEYS = CheckpointKeys(TokenKeys.generate())
_numbers = itertools.count(1)
_SETTLED_SECONDS = 95
"""A little more than a checkpoint waits for what is under way."""


class Shop:
    """Does things over HTTP, and expects them to be done."""

    def __init__(self, service: Caller, services: Services, clock: ManualClock) -> None:
        self._service = service
        self._services = services
        self._clock = clock
        self._made: dict[str, CommandOutcome] = {}

    def later(self, **delta: float) -> str:
        moment = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC) + timedelta(**delta)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def post(self, path: str, status: int = 201, **body: Any) -> dict[str, Any]:
        answer = await self._service.post(f"/v1/{path}", body)
        assert answer.status_code == status, answer.text
        return dict(answer.json())

    async def submit(self, ask: Ask) -> None:
        """What no route asks for by itself."""
        self._made[ask.key] = await self._services.ledger.submit(award_command(ask, self._made))

    async def wallet(self, *value: dict[str, Any], asset: str = "PTS") -> str:
        member = await self.post("members", external_id=f"somebody-{next(_numbers)}")
        wallet = f"{member['id']}:{asset}"
        for credit in value:
            await self.credit(wallet, **credit)
        return wallet

    async def credit(self, wallet: str, amount: int, **more: Any) -> str:
        return str((await self.post(f"wallets/{wallet}/credit", amount=amount, **more))["id"])

    async def debit(self, wallet: str, amount: int, **more: Any) -> str:
        return str((await self.post(f"wallets/{wallet}/debit", amount=amount, **more))["id"])

    async def transfer(self, source: str, target: str, amount: int) -> str:
        return str((await self.post("transfers", **{"from": source, "to": target, "amount": amount}))["id"])

    async def hold(self, wallet: str, amount: int, seconds: int = 86_400) -> str:
        return str((await self.post("holds", wallet=wallet, amount=amount, expires_in_seconds=seconds))["id"])

    async def event(self, kind: str, amount: int, member: str, number: int) -> None:
        await self.post(
            "events", id=f"e-{number}", type=kind, member={"external_id": member}, amount=amount, currency="GBP",
            occurred_at="2026-01-01T00:00:00Z",
        )  # fmt: skip

    async def member(self, external_id: str) -> str:
        answer = await self._service.get("/v1/members", external_id=external_id)
        return str(answer.json()["items"][0]["id"])

    async def offer(self, **offer: Any) -> str:
        made = await self.post("offers", **offer)
        await self.post(f"offers/{made['id']}/activate", 200)
        return str(made["id"])

    async def voucher(self, offer: str, wallet: str, **steps: dict[str, Any]) -> str:
        """The code of a voucher after some steps."""
        redeemed = await self.post(f"offers/{offer}/redeem", member_id=wallet.partition(":")[0])
        code = str(redeemed["voucher"]["code"])
        for step, body in steps.items():
            await self.post(f"vouchers/{code}/{step}", 200, **body)
        return code

    async def terms(self, wallet: str, **terms: Any) -> None:
        answer = await self._service.put(f"/v1/wallets/{wallet}/terms", terms)
        assert answer.status_code == 200, answer.text

    async def rate(self, pair: str, **rate: Any) -> None:
        answer = await self._service.put(f"/v1/rates/{pair}", rate)
        assert answer.status_code == 200, answer.text

    async def sweep(self) -> int:
        return await sweep(self._services.ledger, self._services.database, self._clock)

    def advance(self, **delta: float) -> None:
        self._clock.advance(**delta)

    async def checkpoint(self) -> None:
        self._clock.advance(seconds=_SETTLED_SECONDS)
        assert await write_checkpoint(self._services.database, self._clock, KEYS, None) == 1


async def build(shop: Shop, rng: random.Random) -> None:
    """Everything, in an order that a shop could have; then a checkpoint, and a little more."""
    wallets = [await shop.wallet({"amount": 300}) for _ in range(4)] + [await shop.wallet({"amount": 300}, asset="GBP")]
    for number in range(20):
        wallet, to = rng.sample(wallets[:4], 2)
        more = {"reference": f"order-{number}", "metadata": {"till": "4"}} if number % 3 else {"reason": "a reason"}
        await (shop.transfer(wallet, to, rng.randint(1, 9)) if number % 2 else shop.debit(wallet, rng.randint(1, 9), **more))
    refused = await shop.post(f"wallets/{wallets[0]}/debit", 409, amount=10**9)
    assert refused["code"] == "insufficient-funds"
    await _dated(shop, wallets)
    await _holds(shop, wallets)
    await _several_postings(shop, wallets)
    await _taken_back(shop, wallets)
    await _ruled(shop, wallets)
    await _confirmed(shop)
    await _vouchers(shop, wallets)
    await shop.checkpoint()
    shop.advance(days=2)
    assert await shop.sweep() >= 3
    await shop.checkpoint()
    for wallet in wallets[:3]:
        await shop.debit(wallet, 1, reference="the last")
    await shop.transfer(wallets[0], wallets[1], 1)


async def _dated(shop: Shop, wallets: list[str]) -> None:
    """Value with dates, spent, sent, lapsed and pending; and awards, one of which is taken back into a debt that new value pays."""
    soon, late = shop.later(days=1), shop.later(days=60)
    dated = await shop.wallet(
        {"amount": 40, "expires_at": soon},
        {"amount": 50, "expires_at": late, "source": "promotional"},
        {"amount": 60, "available_at": late},
    )
    await shop.debit(dated, 10, effective_at=shop.later(days=-400))
    await shop.transfer(dated, wallets[1], 20)
    award = {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"}
    made = await shop.post(
        "campaigns", name="1 point", asset="PTS", event_types=["purchase", "refund"], award=award, clawback="debt"
    )
    await shop.post(f"campaigns/{made['id']}/activate", 200)
    await shop.event("purchase", 5000, "ada", 1)
    await shop.event("purchase", 7000, "bob", 2)
    await shop.event("refund", 9000, "bob", 3)
    await shop.event("refund", 1000, "ada", 4)
    await shop.credit(f"{await shop.member('bob')}:PTS", 30, available_at=soon, expires_at=late)


async def _confirmed(shop: Shop) -> None:
    """Awards that wait: confirmed in two parts, one of which pays a debt, and one that lapses unconfirmed."""
    wallet = await shop.wallet({"amount": 10})
    await shop.terms(wallet, credit_limit=50)
    lapses = int(datetime.fromisoformat(shop.later(days=1)).timestamp() * 1000)
    waiting = Dates("promotional", WAITING, lapses)
    await shop.submit(Ask("award", wallet, "award", 100, dates=waiting))
    await shop.submit(Ask("confirmation", wallet, "a-part", 20, about="award", dates=Dates("promotional", None, lapses + 1)))
    await shop.debit(wallet, 50)
    await shop.submit(Ask("confirmation", wallet, "in-debt", 70, about="award", dates=Dates("promotional", None, lapses + 9**10)))


async def _holds(shop: Shop, wallets: list[str]) -> None:
    """One of each: active, captured in parts, captured with a rest, void, ended."""
    wallet = wallets[1]
    await shop.hold(wallet, 20)
    parts, rest, void = [await shop.hold(wallet, 12, 3600 * 24 * 90) for _ in range(3)]
    await shop.hold(wallet, 7, 60)
    await shop.post(f"holds/{parts}/capture", amount=5)
    await shop.post(f"holds/{rest}/capture", amount=5, final=True)
    await shop.post(f"holds/{void}/void", reason="changed their mind")
    await shop.hold(wallets[2], 30, 3600 * 24 * 90)


async def _several_postings(shop: Shop, wallets: list[str]) -> None:
    """Value of several wallets in one commit, dated and not, with named accounts and the exchange account; two of them taken back."""
    payer, other = await shop.wallet({"amount": 50, "expires_at": shop.later(days=40)}, {"amount": 9}), await shop.wallet()
    money = f"{payer.partition(':')[0]}:GBP"
    parts = [{"wallet": payer, "amount": -40}, {"wallet": other, "amount": 15}, {"wallet": wallets[3], "amount": 20}]
    left = {"account": "system:breakage", "asset": "PTS", "amount": 5}
    for _ in range(2):
        split = await shop.post("transactions", postings=[*parts, left], effective_at=shop.later(days=-3))
        await shop.post(f"transactions/{split['id']}/reverse")
        back = [{"wallet": payer, "amount": -10}, {"wallet": money, "amount": 5}]
        exchanged = await shop.post("transactions", kind="exchange", postings=back)
    await shop.post(f"transactions/{exchanged['id']}/reverse")
    await shop.rate("PTS-GBP", from_amount=3, to_amount=2)
    rated = {"member_id": payer.partition(":")[0], "from": "PTS", "to": "GBP", "from_amount": 4}
    exchanged = await shop.post("exchanges", **rated)
    await shop.post(f"transactions/{exchanged['id']}/reverse")
    await shop.post("exchanges", **rated, effective_at=shop.later(days=-2))
    await shop.post("transactions", postings=[*parts, left])


async def _taken_back(shop: Shop, wallets: list[str]) -> None:
    spent = await shop.debit(wallets[2], 40, reference="to be taken back")
    await shop.post(f"transactions/{spent}/reverse", amount=15)
    await shop.post(f"transactions/{spent}/reverse", amount=5)
    again = await shop.debit(wallets[2], 7, reference="undone and done again")
    await shop.post(f"transactions/{again}/reverse")
    await shop.debit(wallets[2], 7, reference="undone and done again")
    sent = await shop.transfer(wallets[1], wallets[3], 25)
    await shop.post(f"transactions/{sent}/reverse")
    wrong = await shop.credit(wallets[3], 17, expires_at=shop.later(days=30))
    await shop.post(f"transactions/{wrong}/reverse", amount=6)


async def _ruled(shop: Shop, wallets: list[str]) -> None:
    limited, lender, closed = [await shop.wallet({"amount": 100}) for _ in range(3)]
    await shop.terms(limited, day_limit=50, month_limit=80)
    await shop.debit(limited, 30)
    await shop.hold(limited, 10, 3600)
    await shop.terms(lender, credit_limit=50, ceiling=500, reason="a good customer")
    await shop.debit(lender, 130)
    await shop.debit(closed, 100)
    await shop.post(f"wallets/{closed}/close", 200)
    await shop.post(f"wallets/{wallets[3]}/freeze", 200, reason="lost card")
    await shop.post(f"wallets/{wallets[3]}/unfreeze", 200)
    await shop.post(f"wallets/{wallets[4]}/freeze", 200)


async def _vouchers(shop: Shop, wallets: list[str]) -> None:
    """Vouchers in every state, bought and free; a gift card in parts; a use that was taken back; and one of each that lapses."""
    basket = {"amount": 700, "currency": "GBP"}
    value = {"type": "fixed", "amount": 500, "currency": "GBP"}
    bought = await shop.offer(
        name="5 off", kind="discount", value=value, price={"asset": "PTS", "amount": 3}, stock=9, voucher_valid_days=60
    )
    card = await shop.offer(name="a card", kind="gift_card", value=value)
    soon = await shop.offer(
        name="a cup", kind="item", value={"type": "item", "sku": "cup"}, per_member_day_limit=2, voucher_valid_days=1
    )
    for steps in ({}, {"reserve": basket}, {"use": basket}, {"use": basket, "unuse": {}}, {"reserve": basket, "release": {}}):
        await shop.voucher(bought, wallets[0], **steps)
    await shop.voucher(bought, wallets[1], cancel={"reason": "changed their mind"})
    parts = await shop.voucher(
        card,
        wallets[2],
        use={"amount": 120, "currency": "GBP", "reference": "order-1"},
        reserve={"amount": 90, "currency": "GBP", "expires_in_seconds": 604_800},
    )
    await shop.post(f"vouchers/{parts}/load", 200, member_id=wallets[2].partition(":")[0], amount=40)
    held = await shop.post(f"vouchers/{parts}/reserve", 200, amount=200, currency="GBP")
    await shop.post(f"vouchers/{parts}/use", 200, amount=150, currency="GBP", reservation=held["reservation"])
    await shop.voucher(card, wallets[2], load={"member_id": wallets[2].partition(":")[0]})
    for steps in ({}, {"reserve": {"expires_in_seconds": 60}}):
        await shop.voucher(soon, wallets[1], **steps)
