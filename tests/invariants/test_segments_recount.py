"""Any history of purchases, refunds and voids: what a run computes equals a recount in plain Python that ranks the members."""

from collections import Counter
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS, ShopEvent
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS
from guerdon.members.models import MEMBERS
from guerdon.permissions import Actor
from guerdon.segments.models import SEGMENT_RUNS
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory

ACTOR = Actor("key_tests", "service_key")
DAY_MS = 86_400_000
EXAMPLES = 20


class Purchase(NamedTuple):
    """A purchase of a member, and what happened to it."""

    member: int
    days: int
    """Days before the run."""
    amount: int
    currency: str
    refunds: tuple[int, ...]
    voided: bool
    late: bool
    """True if its refunds arrived before it."""


members = st.integers(0, 7)
days = st.one_of(st.integers(0, 12), st.sampled_from([363, 364, 365, 366, 367, 400]))
purchases = st.builds(
    Purchase,
    members,
    days,
    st.one_of(st.sampled_from([100, 200, 300]), st.integers(1, 10_000)),
    st.sampled_from(["GBP", "GBP", "EUR"]),
    st.lists(st.sampled_from([50, 100, 200]), max_size=2).map(tuple),
    st.sampled_from([False, False, False, True]),
    st.booleans(),
)
histories = st.lists(purchases, max_size=30)


def drawn() -> list[list[Purchase]]:
    found: list[list[Purchase]] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(histories)
    def keep(history: list[Purchase]) -> None:
        found.append(history)

    keep()
    return found


async def record(services: Services, history: list[Purchase], now_ms: int, ids: list[str], number: int) -> None:
    """Record the history, and void what was voided."""
    for index, each in enumerate(history):
        at, name = now_ms - each.days * DAY_MS, f"h{number}-{index}"
        common: dict[str, Any] = {"occurred_at": at, "currency": each.currency, "member_id": ids[each.member]}
        steps = [ShopEvent(id=name, type="purchase", amount=each.amount, **common)]
        left = each.amount
        for turn, amount in enumerate(each.refunds):
            taken = min(amount, left)
            left -= taken
            if taken:
                refund = {**common, "occurred_at": now_ms}
                steps.append(ShopEvent(id=f"{name}-r{turn}", type="refund", amount=taken, refund_of=name, **refund))
        if each.late:
            steps = [*steps[1:], steps[0]]
        for step in steps:
            [result] = await services.events.record_all(ACTOR, [step], [])
            assert isinstance(result, tuple), result
        if each.voided:
            await services.event_voids.void(ACTOR, name, "a mistake")


def recount(history: list[Purchase], size: int) -> dict[int, tuple[str, int, int, int]]:
    """Group and scores of each member, from ranks and a table written out by hand."""
    kept = [each for each in history if not each.voided]
    left = {id(each): each.amount - min(each.amount, sum(each.refunds)) for each in kept}
    year = [each for each in kept if 0 < each.days <= 365]
    currencies = Counter(each.currency for each in year if left[id(each)])
    currency = min(currencies, key=lambda name: (-currencies[name], name), default=None)
    last = {
        member: min((each.days for each in kept if each.member == member and each.days > 0), default=None) for member in range(size)
    }
    scored = [member for member in range(size) if last[member] is not None and last[member] <= 365]  # type: ignore[operator]
    times = {member: sum(1 for each in year if each.member == member and left[id(each)]) for member in scored}
    money = {
        member: sum(left[id(each)] for each in year if each.member == member and each.currency == currency) for member in scored
    }
    found: dict[int, tuple[str, int, int, int]] = {}
    for member in range(size):
        if last[member] is None:
            found[member] = ("prospects", 0, 0, 0)
        elif member not in scored:
            found[member] = ("dormant", 1, 1, 1)
        else:
            sooner = sum(last[other] < last[member] for other in scored)  # type: ignore[operator]
            recency = 5 - 5 * sooner // len(scored)
            frequency = 1 + 5 * sum(times[other] < times[member] for other in scored) // len(scored)
            monetary = 1 + 5 * sum(money[other] < money[member] for other in scored) // len(scored)
            found[member] = (named(recency, frequency + monetary), recency, frequency, monetary)
    return found


def named(recency: int, value: int) -> str:
    columns = 0 if value <= 4 else 1 if value <= 7 else 2
    table = {
        5: ("new", "active", "champions"),
        4: ("promising", "active", "loyal"),
        3: ("almost-lost", "needs-attention", "loyal"),
        2: ("almost-lost", "at-risk", "previously-loyal"),
        1: ("dormant", "at-risk", "previously-loyal"),
    }
    return table[recency][columns]


async def test_a_run_equals_a_recount(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    # In the middle of a day. The run computes the midnight before it, so that what happened on the same day does not count.
    clock.advance(seconds=(DAY_MS * 3 // 2 - clock.now_ms() % DAY_MS) / 1000)
    seen: set[str] = set()
    for number, history in enumerate(drawn()):
        for name in (MEMBERS, "claims", EVENTS, MEMBER_STATES, REFUNDS, MEMBER_SEGMENTS, SEGMENT_RUNS):
            await services.database.raw[name].delete_many({})
        ids = [await factory.member(f"m{number}-{each}") for each in range(8)]
        await record(services, history, clock.now_ms(), ids, number)
        await services.segment_runner.work()
        rows = {row["owner"]: row async for row in services.database.raw[MEMBER_SEGMENTS].find({"owner": {"$in": ids}})}
        assert len(rows) == 8
        for member, expected in recount(history, 8).items():
            row = rows[ids[member]]
            actual = (row["group"], row.get("recency", 0), row.get("frequency", 0), row.get("monetary", 0))
            assert actual == expected, (number, member, history)
            assert row["segments"] == [row["group"]]
            seen.add(row["group"])
    assert len(seen) >= 8, seen
