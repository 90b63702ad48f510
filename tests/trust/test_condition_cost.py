"""The longest that a condition can hold a process: the worst that its bounds let pass, on the largest event, within 50 ms."""

import time

import pytest

from guerdon.campaigns.cel import compile_condition, facts_of, require_bounded
from guerdon.campaigns.cel_cost import CONDITION_US_MAX
from guerdon.errors import Validation
from tests.trust.figures import record
from tests.trust.groups import ALONE

STALL_MS_MAX, TRIES = 50, 5
PIECES = [
    "a == a", "string(a.sku) != ''", "a.quantity > 0", "size(a.sku) > 0", "has(a.sku)", "a.sku.startsWith('s')", "!a.sku.contains('x')",
    "now.getFullYear('Europe/Berlin') > 1", "event.id != 'x'", "member.attributes.a1 != 'x'", "{1: 1, 2: 2, 3: 3} != {}", "[1, 2, 3] != []",
    "event.attributes == event.attributes", "member == member", "string(now) != ''", "timestamp(event.occurred_at) > timestamp('2000-01-01T00:00:00Z')",
    "bytes(a.sku) != b''", "dyn(a) == dyn(a)", "a['sku'] != 'x'", "'sku' in a", "a.sku in ['x', 'y', 'z', a.sku]", "double(a.quantity) > 0.0",
    "[a, a] == [a, a]", "[1, 2, 3].all(b, b > 0)", "type(a) != int", "(a.quantity > 0 ? a.sku : '') != ''", "event.items.size() > 0",
]  # fmt: skip
WALKS = [
    "event.items.all(a, {})",
    "event.items.exists_one(a, {}) || true",
    "event.items.filter(a, {}).size() > 0",
    "event['items'].all(a, {})",
]
WHOLE = [
    "event == event",
    "event.items == event.items",
    "event['items'] == event.items",
    "(event.items + event.items) == event.items || true",
]


def facts(count: int) -> object:
    attributes = {f"a{number}": "y" * 200 for number in range(20)}
    items = [{"sku": "s" * 190 + str(number), "quantity": 1, "unit_price": 100, "category": "t" * 200} for number in range(count)]
    event = {
        "id": "x" * 128, "type": "purchase", "amount": 1, "currency": "GBP", "items": items, "attributes": attributes,
        "occurred_at": "2026-01-31T12:00:00Z",
    }  # fmt: skip
    member = {
        "id": "",
        "external_id": "",
        "attributes": attributes,
        "tier": "",
        "segments": [],
        "first_purchase": False,
        "days_since_last": 1,
    }
    return facts_of(event, member, 0)


def passes(source: str) -> bool:
    try:
        require_bounded(source, "/condition")
    except Validation:
        return False
    return True


def worst_of(form: str, piece: str) -> str | None:
    """As many of the piece as may be saved."""
    return next(
        (source for n in range(150, 0, -1) if len(source := form.format(" && ".join([piece] * n))) <= 2000 and passes(source)), None
    )


@ALONE
@pytest.mark.trust
@pytest.mark.timeout(600)
def test_no_condition_blocks_a_process_for_long() -> None:
    forms = [worst for walk in WALKS for piece in PIECES if (worst := worst_of(walk, piece)) is not None]
    forms += [worst for piece in WHOLE if (worst := worst_of("{}", piece)) is not None]
    assert len(forms) > 60
    worst: list[tuple[float, int, str]] = []
    for source in forms:
        condition = compile_condition(source, "/condition")
        # The largest event on which it is asked at all.
        count = next(n for n in range(1000, 99, -10) if condition.cost_us(n) <= CONDITION_US_MAX)
        took = []
        for _ in range(TRIES):
            seen = facts(count)
            began = time.perf_counter()
            condition.evaluate(seen)
            took.append((time.perf_counter() - began) * 1000)
        worst.append((min(took), count, source))
    worst.sort(reverse=True)
    for took_ms, count, source in worst[:10]:
        print(f"{took_ms:6.1f} ms, {count} items, {source[:120]}")
    record("longest condition", f"{worst[0][0]:.1f} ms", f"<= {STALL_MS_MAX} ms")
    assert worst[0][0] <= STALL_MS_MAX
