"""A wallet's past: entries with filters and stable cursors, and its balance at any moment, both against a plain scan."""

import asyncio
import bisect
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.clock import rfc3339, to_ms
from guerdon.database import Database
from guerdon.history.rules import WAYS, narrow, probes
from guerdon.history.service import EXAMINED_MAX
from guerdon.wiring.services import Services
from tests.api.test_access import log_in
from tests.api.test_wallets import entries_of
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import NOBODY


def ms(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


async def move(service: Caller, wallet: str, kinds: str) -> None:
    """One bulk request: `+` credits 1, `-` debits 1."""
    name = {"+": "credit", "-": "debit"}
    run = random.randrange(2**64)
    commands = [{"type": name[kind], "wallet": wallet, "amount": 1, "key": f"{run}-{n}"} for n, kind in enumerate(kinds)]
    for start in range(0, len(commands), 1000):
        answer = await service.post("/v1/bulk", {"commands": commands[start : start + 1000]})
        assert {result["status"] for result in answer.json()["results"]} == {201}


async def scattered(service: Caller, factory: Factory, clock: ManualClock) -> str:
    """A wallet of some 250 entries: many of them share a millisecond, and there are pauses of all lengths."""
    wallet = await factory.wallet(1000)
    clock.stop()
    for _ in range(60):
        clock.advance(seconds=random.choice([0, 0.001, 0.001, 0.002, 0.05, 3600]))
        await move(service, wallet, "".join(random.choices("+-", k=random.randint(1, 6))))
        if random.random() < 0.2:
            await service.post("/v1/holds", {"wallet": wallet, "amount": 3, "expires_in_seconds": 7_000_000})
    return wallet


# --- the search -----------------------------------------------------------------------------------------------------


def search(times: list[int], at_ms: int) -> tuple[int, int]:
    """How the service searches, on a list: how many entries are older, and in how many steps that was found."""
    low, high, steps = 0, len(times) + 1, 0
    while seqs := probes(low, high):
        assert len(seqs) < WAYS
        assert all(low < seq < high for seq in seqs)
        low, high = narrow(low, high, {seq: times[seq - 1] for seq in seqs}, at_ms)
        steps += 1
    return low, steps


@given(st.lists(st.integers(0, 50), max_size=400).map(sorted), st.integers(-1, 51))
def test_the_search_finds_what_a_scan_finds(times: list[int], at_ms: int) -> None:
    found, _ = search(times, at_ms)
    assert found == sum(time < at_ms for time in times)


@given(st.integers(0, 1_000_000), st.integers(1, 7))
def test_the_search_takes_four_steps_in_a_million_entries(place: int, gap: int) -> None:
    times = range(0, gap * 1_000_000, gap)
    found, steps = search(times, place * gap)
    assert found == bisect.bisect_left(times, place * gap)
    assert steps <= 4


# --- entries --------------------------------------------------------------------------------------------------------


async def test_an_entry_shows_lots_hold_and_reversal_where_it_has_them(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    lot = {"amount": 50, "source": "promotional", "expires_at": "2090-01-01T00:00:00+01:00"}
    await service.post(f"/v1/wallets/{wallet}/credit", lot)
    hold = (await service.post("/v1/holds", {"wallet": wallet, "amount": 60})).json()["id"]
    await service.post(f"/v1/holds/{hold}/capture", {"amount": 20})
    await service.post(f"/v1/holds/{hold}/void", {})
    spent = (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 40})).json()["id"]
    await service.post(f"/v1/transactions/{spent}/reverse", {"amount": 40})
    dates = {"source": "promotional", "available_at": None, "expires_at": "2089-12-31T23:00:00.000Z"}
    shown = [
        (e["kind"], e["amount"], e["balance_after"], e["held_after"], e.get("lots"), e.get("hold"), e.get("reverses"))
        for e in (await entries_of(service, wallet))[::-1]
    ]
    assert shown == [
        ("credit", 100, 100, 0, None, None, None),
        ("credit", 50, 150, 0, [{"amount": 50, **dates}], None, None),
        ("hold", 0, 150, 60, [{"amount": -50, **dates}], hold, None),
        ("capture", -20, 130, 40, [{"amount": -20, **dates}], hold, None),
        ("void", 0, 130, 0, [{"amount": 30, **dates}], hold, None),
        ("debit", -40, 90, 0, [{"amount": -30, **dates}], None, None),
        ("reversal", 40, 130, 0, [{"amount": 30, **dates}], None, spent),
    ]
    await factory.assert_books_balance()


@pytest.mark.parametrize("kind", [None, "credit"])
async def test_pages_are_stable_while_the_wallet_is_written_to(service: Caller, factory: Factory, kind: str | None) -> None:
    wallet = await factory.wallet(1)
    await move(service, wallet, "+-" * 100)
    stop = asyncio.Event()

    async def write() -> int:
        count = 0
        while not stop.is_set():
            await move(service, wallet, "+-+")
            count += 3
        return count

    writer = asyncio.create_task(write())
    await asyncio.sleep(0.05)
    query: dict[str, Any] = {"limit": 7} if kind is None else {"limit": 7, "kind": kind}
    walks = [await entries_of(service, wallet, **query) for _ in range(3)]
    stop.set()
    assert await writer > 0
    everything = await entries_of(service, wallet, limit=100)
    for walk in walks:
        newest = walk[0]["seq"]
        assert walk == [entry for entry in everything if entry["seq"] <= newest and kind in (None, entry["kind"])]
    await factory.assert_books_balance()


async def test_filtered_page_examines_at_most_a_thousand_entries(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(1)
    await move(service, wallet, "-" + "+" * (2 * EXAMINED_MAX) + "--" + "+" * (EXAMINED_MAX - 1))
    debits = [2 * EXAMINED_MAX + 4, 2 * EXAMINED_MAX + 3, 2]
    pages: list[list[int]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await service.get(f"/v1/wallets/{wallet}/entries", kind="debit", limit=2, **cursor)).json()
        pages.append([entry["seq"] for entry in page["items"]])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [seq for page in pages for seq in page] == debits
    assert pages == [[debits[0]], [debits[1]], [], [2]]
    assert [entry["seq"] for entry in await entries_of(service, wallet, kind="debit", limit=1)] == debits
    assert await entries_of(service, wallet, kind="hold") == []
    await factory.assert_books_balance()


async def test_time_windows_return_what_a_scan_finds(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet = await scattered(service, factory, clock)
    everything = await entries_of(service, wallet, limit=100)
    moments = sorted({ms(entry["created_at"]) + shift for entry in everything for shift in (-1, 0, 1)})
    chance = random.Random(len(everything))
    for _ in range(40):
        since, until = chance.choice(moments), chance.choice(moments)
        kind = chance.choice([None, "credit", "debit", "hold"])
        query = {"from": rfc3339(since), "to": rfc3339(until), "limit": chance.choice([3, 100])}
        found = await entries_of(service, wallet, **(query if kind is None else {**query, "kind": kind}))
        assert found == [
            entry for entry in everything if since <= ms(entry["created_at"]) < until and kind in (None, entry["kind"])
        ], (since, until, kind)
    await factory.assert_books_balance()


async def test_an_entry_is_found_by_its_reference(service: Caller, factory: Factory) -> None:
    member, other = await factory.member(), await factory.member()
    points, pounds, target = f"{member}:PTS", f"{member}:GBP", f"{other}:PTS"
    await service.post(f"/v1/wallets/{points}/credit", {"amount": 100, "reference": "order-1"})
    await service.post(f"/v1/wallets/{pounds}/credit", {"amount": 100, "reference": "order-2"})
    await move(service, points, "+" * 30)
    sent = await service.post("/v1/transfers", {"from": points, "to": target, "amount": 5, "reference": "gift"})
    await service.post("/v1/holds", {"wallet": points, "amount": 5, "reference": "hold-1"})
    await service.post(f"/v1/wallets/{points}/debit", {"amount": 10_000, "reference": "refused"})

    async def find(wallet: str, reference: str, **more: Any) -> list[str]:
        answer = await service.get(f"/v1/wallets/{wallet}/entries", reference=reference, **more)
        assert (answer.status_code, answer.json()["next_cursor"]) == (200, None), answer.text
        return [entry["kind"] for entry in answer.json()["items"]]

    assert await find(points, "order-1") == await find(points, "order-1", kind="credit", limit=1) == ["credit"]
    assert await find(pounds, "order-2") == ["credit"]
    assert await find(points, "hold-1") == ["hold"]
    assert await find(points, "gift") == ["transfer"]
    for wallet, reference in ((points, "order-2"), (target, "gift"), (points, "refused"), (points, "order"), (points, "ORDER-1")):
        assert await find(wallet, reference) == [], (wallet, reference)
    assert await find(points, "order-1", kind="debit") == await find(points, "order-1", to="2020-01-01T00:00:00Z") == []
    assert await find(points, "gift", **{"from": sent.json()["created_at"]}) == ["transfer"]
    await factory.assert_books_balance()


@pytest.mark.parametrize("value", ["", "x" * 129, "a\nb", "\u202e", "\x00"])
async def test_invalid_reference_is_refused(service: Caller, factory: Factory, value: str) -> None:
    wallet = await factory.wallet(1)
    refused = problem(await service.get(f"/v1/wallets/{wallet}/entries", reference=value), 422, "validation")
    assert refused["errors"][0]["pointer"] == "reference"


# --- balance --------------------------------------------------------------------------------------------------------


async def test_past_balance_equals_a_scan_of_the_entries(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet = await scattered(service, factory, clock)
    everything = (await entries_of(service, wallet, limit=100))[::-1]
    times = [ms(entry["created_at"]) for entry in everything]
    assert times == sorted(times)
    assert len(set(times)) < len(times)
    for moment in sorted({time + shift for time in times for shift in (-1, 0, 1)} - {times[-1] + 1}):
        seq = sum(time <= moment for time in times)
        entry = everything[seq - 1] if seq else {"balance_after": 0, "held_after": 0, "created_at": None}
        answer = await service.get(f"/v1/wallets/{wallet}/balance", at=rfc3339(moment))
        assert answer.json() == {
            "wallet": wallet, "asset": "PTS", "at": rfc3339(moment), "balance": entry["balance_after"],
            "held": entry["held_after"], "seq": seq, "entry_created_at": entry["created_at"],
        }  # fmt: skip
    await factory.assert_books_balance()


async def test_balance_without_a_time_is_the_current_balance(service: Caller, factory: Factory) -> None:
    wallet = await factory.wallet(0)
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 12})
    answer = (await service.get(f"/v1/wallets/{wallet}/balance")).json()
    assert (answer["balance"], answer["seq"]) == (12, 3)
    assert answer["entry_created_at"] <= answer["at"]


async def test_balance_time_honours_offsets_and_refuses_the_future(service: Caller, factory: Factory, clock: ManualClock) -> None:
    wallet = await factory.wallet(5)
    clock.stop()
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    path = f"/v1/wallets/{wallet}/balance"
    there = (now - timedelta(minutes=1)).astimezone(tz=datetime.fromisoformat("2026-01-01T00:00+05:30").tzinfo)
    assert (await service.get(path, at=there.isoformat())).json()["balance"] == 0
    assert (await service.get(path, at="0001-01-01T00:00:00Z")).json()["seq"] == 0
    assert (await service.get(path, at=rfc3339(clock.now_ms()))).status_code == 200
    for moment in (rfc3339(clock.now_ms() + 1), "9999-12-31T23:59:59Z"):
        refused = problem(await service.get(path, at=moment), 422, "validation")
        assert refused["errors"][0]["pointer"] == "at"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("at", "yesterday"), ("at", ""), ("at", "2026-01-31T12:00:00"), ("at", "2026-13-01T00:00:00Z"), ("at", "0001-01-01T00:00:00+14:00"),
        ("at", "1769860800"), ("At", "2026-01-31T12:00:00Z"), ("at[$gt]", "2026-01-31T12:00:00Z"), ("asset", "PTS"),
    ],
)  # fmt: skip
async def test_invalid_balance_time_is_refused(service: Caller, factory: Factory, name: str, value: str) -> None:
    wallet = await factory.wallet(1)
    refused = problem(await service.get(f"/v1/wallets/{wallet}/balance", **{name: value}), 422, "validation")
    assert refused["errors"][0]["pointer"] == name


async def test_member_reads_only_their_own_history(anonymous: Caller, service: Caller, factory: Factory) -> None:
    member = await log_in(anonymous, "ada@example.com")
    own = await factory.wallet(7, member=(await member.get("/v1/me")).json()["id"])
    foreign, missing = await factory.wallet(7), f"{await factory.member()}:PTS"
    assert (await member.get(f"/v1/wallets/{own}/balance")).json()["balance"] == 7
    assert [entry["amount"] for entry in (await member.get(f"/v1/wallets/{own}/entries")).json()["items"]] == [7]
    for suffix in ("balance", "entries", "balance?at=2026-01-01T00:00:00Z", "entries?reference=r-1"):
        answers = [problem(await member.get(f"/v1/wallets/{wallet}/{suffix}"), 404, "not-found") for wallet in (foreign, missing)]
        assert {**answers[0], "request_id": ""} == {**answers[1], "request_id": ""}
        problem(await service.get(f"/v1/wallets/{NOBODY}:PTS/{suffix}"), 404, "not-found")
        problem(await anonymous.get(f"/v1/wallets/{own}/{suffix}"), 401, "unauthenticated")
    await factory.assert_books_balance()


# --- bounded work ---------------------------------------------------------------------------------------------------


async def test_no_history_query_examines_more_than_it_returns(
    service: Caller, factory: Factory, services: Services, database: Database
) -> None:
    """What the server itself counted: documents examined by each command on the entries, in a wallet of 3,000."""
    wallet = await factory.wallet(1)
    await move(service, wallet, "+" * 2999)
    await service.post(f"/v1/wallets/{wallet}/credit", {"amount": 1, "reference": "needle"})
    middle = (await entries_of(service, wallet, limit=100))[1500]["created_at"]
    profile = services.database.raw["system.profile"]

    async def examined(path: str, **params: Any) -> list[int]:
        await database.raw.command({"profile": 2})
        assert (await service.get(f"/v1/wallets/{wallet}/{path}", **params)).status_code == 200
        await database.raw.command({"profile": 0})
        rows = [row async for row in profile.find({"ns": f"{database.raw.name}.entries", "op": {"$in": ["query", "getmore"]}})]
        await profile.drop()
        assert rows
        return sorted(row["docsExamined"] for row in rows)

    assert await examined("entries", limit=20) == [20]
    assert await examined("entries", limit=20, reference="needle") == [1]
    assert sum(await examined("entries", limit=20, kind="debit")) <= EXAMINED_MAX
    searched = await examined("balance", at=middle)
    assert len(searched) <= 3 + 1
    assert max(searched) < WAYS
    windowed = await examined("entries", limit=20, **{"from": middle, "to": middle})
    assert max(windowed) < WAYS
