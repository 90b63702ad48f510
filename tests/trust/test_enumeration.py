"""LOGIN-2: neither the answer nor the time that it takes tells whether somebody exists."""

import math
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
import pytest
import pytest_asyncio

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.password_reset.tokens import new_reset_token
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock
from tests.serving import serve
from tests.trust.figures import record
from tests.trust.groups import ALONE
from tests.trust.load import report

SEED, SAMPLES, TRIES = 20_261_127, 300, 6
MEDIANS_APART_MAX = 0.05
Z_MAX = 3.29
"""Two-sided, one in a thousand: so often two samples of one thing would be told apart."""
PASSWORD = "correct horse battery"
Ask = Callable[[], Awaitable[httpx.Response]]
_LEFT = re.compile(r"(;r=|;t=|the next one in |'retry-after', ')\d+")
pytestmark = [pytest.mark.trust, pytest.mark.timeout(900), ALONE]


@pytest_asyncio.fixture(params=["off"])
async def people(
    request: pytest.FixtureRequest, database: Database, settings: Settings, clock: ManualClock
) -> AsyncIterator[tuple[Services, Caller, dict[str, str]]]:
    """A service without quotas unless a test asks for those of guesses, and addresses by what is the matter with them."""
    many = "900000000/60"
    quotas = {"rate_limit": request.param, "rate_stranger": many, "rate_entry": many, "rate_failures": many}
    asked = settings.model_copy(update=quotas)
    async with open_services(asked, clock) as services, serve(services, asked, clock) as anonymous:
        made: dict[str, str] = {}
        for what in ("known", "disabled", "locked"):
            member = await services.members.register(f"{what}@example.com", PASSWORD)
            made[what] = member.id
        await services.members.create_member(None, "no-password@example.com", None)
        await services.database.raw["members"].update_one({"_id": made["disabled"]}, {"$set": {"disabled_at": 1}})
        yield services, anonymous, made


def mann_whitney_z(one: Sequence[float], other: Sequence[float]) -> float:
    """How surely one sample tends to be larger (Mann and Whitney 1947, with the normal approximation; times do not tie)."""
    ranked = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    ranks = sum(place for place, (_, sample) in enumerate(ranked, start=1) if sample == 0)
    u, m, n = ranks - len(one) * (len(one) + 1) / 2, len(one), len(other)
    return (u - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12)


def test_timing_measure_distinguishes_two_samples() -> None:
    """A tenth of a deviation is not seen, a third is: 3 % of a log-in that varies by a tenth."""
    chance = random.Random(SEED)
    base = [chance.gauss(50, 5) for _ in range(SAMPLES)]
    alike = abs(mann_whitney_z(base, [chance.gauss(50, 5) for _ in range(SAMPLES)]))
    differ = mann_whitney_z([chance.gauss(52, 5) for _ in range(SAMPLES)], base)
    record("z of two samples of one distribution", f"{alike:.2f}", f"< {Z_MAX}")
    record("z of two samples 4 % apart", f"{differ:.2f}", f"> {Z_MAX}")
    assert alike < Z_MAX
    assert differ > Z_MAX


def test_the_measure_is_the_same_on_a_busy_machine() -> None:
    """Half of the rounds take three times as long. A difference of 7 % is seen all the same, and where there is none, none is seen."""
    chance = random.Random(SEED)
    busy = [chance.choice([1.0, 3.0]) for _ in range(SAMPLES)]
    alike = {name: [factor * chance.gauss(50, 5) for factor in busy] for name in "abcd"}
    slower = {**alike, "d": [each * 1.07 for each in alike["d"]]}
    record("share that equal cases are apart on a busy machine", f"{apart(alike):.1%}", f"< {MEDIANS_APART_MAX:.0%}")
    record("share that a case slower by 7 % is apart", f"{apart(slower):.1%}", f"> {MEDIANS_APART_MAX:.0%}")
    assert apart(alike) < MEDIANS_APART_MAX < apart(slower)


async def sampled(cases: Mapping[str, Ask], chance: random.Random) -> tuple[dict[str, list[float]], dict[str, Counter[str]]]:
    """Ask in rounds, each with every case in an order of its own; return milliseconds and what was answered."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    answers: dict[str, Counter[str]] = {name: Counter() for name in cases}
    for number in range(SAMPLES + 5):
        for name in chance.sample(sorted(cases), len(cases)):
            began = time.perf_counter()
            answer = await cases[name]()
            seconds = time.perf_counter() - began
            if number >= 5:  # The first ones meet caches that are cold.
                times[name].append(seconds * 1000)
            answers[name][_shown(answer)] += 1
    return times, answers


def _shown(answer: httpx.Response) -> str:
    """Everything that the caller sees, but for what differs between any two requests: their ids, what is left of a quota and until when."""
    body = {**answer.json(), "request_id": ""}
    headers = {**answer.headers, "x-request-id": ""}
    return _LEFT.sub(r"\1", f"{answer.status_code} {sorted(headers.items())} {body}")


def apart(times: Mapping[str, Sequence[float]]) -> float:
    """Return by which share the slowest case takes longer than the fastest one.

    Each time is divided by the median of its round: how busy the machine is changes all cases of a round alike.
    """
    rounds = [statistics.median(each) for each in zip(*times.values(), strict=True)]
    shares = [statistics.median(a / b for a, b in zip(each, rounds, strict=True)) for each in times.values()]
    return max(shares) / min(shares) - 1


def verdict(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(each) for name, each in times.items()}
    names = sorted(times)
    pairs = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
    return {
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "medians_apart": round(apart(times), 4),
        "z": round(max(abs(mann_whitney_z(times[one], times[other])) for one, other in pairs), 2),
    }


async def hold_alike(check: str, cases: Mapping[str, Ask]) -> None:
    """The answers are the same every time. Where the times are not, more are taken: noise of the machine fades with them, a difference stays."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    found: dict[str, Any] = {}
    for number in range(TRIES):
        more, answers = await sampled(cases, random.Random(SEED + number))
        seen = {shown for counter in answers.values() for shown in counter}
        assert len(seen) == 1, seen
        for name, values in more.items():
            times[name] += values
        found = verdict(times)
        if found["medians_apart"] < MEDIANS_APART_MAX and found["z"] < Z_MAX:
            report(check, SEED + number, samples=(number + 1) * SAMPLES, status=int(seen.pop()[:3]), **found)
            break
    record(f"{check}: medians apart", f"{found['medians_apart']:.1%}", f"< {MEDIANS_APART_MAX:.0%}")
    record(f"{check}: z of Mann and Whitney", found["z"], f"< {Z_MAX}")
    assert found["medians_apart"] < MEDIANS_APART_MAX, found
    assert found["z"] < Z_MAX, found


def log_in(anonymous: Caller, email: str, password: str) -> Ask:
    return lambda: anonymous.post("/v1/auth/login", {"email": email, "password": password}, key=None)


async def test_login_does_not_reveal_whether_a_member_exists(people: tuple[Services, Caller, dict[str, str]]) -> None:
    _, anonymous, _ = people
    await hold_alike("LOGIN-2 log-in", {
        "unknown": log_in(anonymous, "nobody@example.com", PASSWORD),
        "wrong password": log_in(anonymous, "known@example.com", "wrong horse battery"),
        "disabled": log_in(anonymous, "disabled@example.com", PASSWORD),
        "without a password": log_in(anonymous, "no-password@example.com", PASSWORD),
    })  # fmt: skip


@pytest.mark.parametrize("people", ["on"], indirect=True)
async def test_locked_login_does_not_reveal_whether_a_member_exists(people: tuple[Services, Caller, dict[str, str]]) -> None:
    """An address is locked for strangers whether or not there is somebody behind it, and then the password is not even looked at."""
    _, anonymous, _ = people
    locked = ("locked@example.com", "nobody@example.com", "disabled@example.com")
    for email in locked:
        [*guesses, last] = [await log_in(anonymous, email, "wrong horse battery")() for _ in range(11)]
        assert ({each.status_code for each in guesses}, last.status_code) == ({401}, 429)
    await hold_alike("LOGIN-2 locked", {
        "unknown": log_in(anonymous, "nobody@example.com", PASSWORD),
        "wrong password": log_in(anonymous, "locked@example.com", "wrong horse battery"),
        "right password": log_in(anonymous, "locked@example.com", PASSWORD),
        "disabled": log_in(anonymous, "disabled@example.com", PASSWORD),
    })  # fmt: skip


async def test_reset_request_does_not_reveal_whether_a_member_exists(people: tuple[Services, Caller, dict[str, str]]) -> None:
    services, anonymous, _ = people

    def ask(email: str) -> Ask:
        return lambda: anonymous.post("/v1/auth/forgot", {"email": email}, key=None)

    await hold_alike("LOGIN-2 forgotten password", {
        "unknown": ask("nobody@example.com"), "known": ask("known@example.com"),
        "disabled": ask("disabled@example.com"), "without a password": ask("no-password@example.com"),
    })  # fmt: skip
    assert await services.database.raw["resets"].count_documents({}) == 0


async def test_reset_does_not_reveal_whether_a_member_exists(people: tuple[Services, Caller, dict[str, str]]) -> None:
    services, anonymous, made = people
    await services.password_resets.issue(made["known"])

    def guess(member_id: str) -> Ask:
        body = {"token": new_reset_token(member_id).text, "new_password": "another horse battery"}
        return lambda: anonymous.post("/v1/auth/reset", body, key=None)

    await hold_alike("LOGIN-2 reset", {
        "nobody": guess("mem_" + "0" * 32), "has asked": guess(made["known"]), "has not": guess(made["locked"]), "disabled": guess(made["disabled"]),
    })  # fmt: skip
