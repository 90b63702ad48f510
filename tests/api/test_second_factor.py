"""The second factor of those who work here: enrolled, asked for, replaced, required."""

import asyncio
import base64
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import httpx
import pytest
import pytest_asyncio
from pyotp.totp import TOTP

from guerdon.config import Settings, load
from guerdon.database import Database
from guerdon.permissions import Role
from guerdon.second_factor.rules import STEP_MS, TRIES_MS, new_codes, step_of
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.conftest import DATABASE
from tests.factories import Factory
from tests.invariants.retail import guerdon
from tests.serving import serve

PASSWORD = "operator's password"
OLGA = {"email": "olga@example.com", "password": PASSWORD}
RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()


async def log_in(anonymous: Caller, code: str | None = None, **more: Any) -> httpx.Response:
    body = {**OLGA, **more} if code is None else {**OLGA, "code": code, **more}
    return await anonymous.post("/v1/auth/login", body)


async def logged_in(anonymous: Caller, code: str | None = None) -> Caller:
    answer = await log_in(anonymous, code)
    assert answer.status_code == 200, answer.text
    return anonymous.with_token(answer.json()["access_token"])


class Authenticator:
    """What somebody has on their phone."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.secret = ""
        self.codes: list[str] = []

    def code(self, steps: int = 0) -> str:
        return TOTP(self.secret).generate_otp(self._clock.now_ms() // STEP_MS + steps)

    def next(self) -> str:
        """The code of the next step, once its time has come."""
        self._clock.advance(seconds=STEP_MS / 1000)
        return self.code()

    async def enrol(self, anonymous: Caller, services: Services, role: Role = "operator") -> Caller:
        """Make Olga, enrol her, and return her as she has logged in without a factor."""
        await services.members.create_operator(OLGA["email"], PASSWORD, role)
        olga = await logged_in(anonymous)
        enrolled = (await olga.post("/v1/me/totp", {"current_password": PASSWORD})).json()
        assert "viewBox" in enrolled["qr_svg"], "a page can give the image any size"
        self.secret = enrolled["secret"]
        answer = await olga.post("/v1/me/totp/confirm", {"code": self.code()})
        assert answer.status_code == 200, answer.text
        self.codes = answer.json()["recovery_codes"]
        return olga


@pytest.fixture
def phone(clock: ManualClock) -> Authenticator:
    clock.stop()
    return Authenticator(clock)


def wrong(code: str) -> str:
    return f"{(int(code) + 500_000) % 1_000_000:06}"


@pytest.mark.parametrize(
    ("at_seconds", "code"),
    [(59, "94287082"), (1111111109, "07081804"), (1111111111, "14050471"), (1234567890, "89005924"), (2000000000, "69279037")],
)
def test_codes_are_those_of_the_rfc(at_seconds: int, code: str) -> None:
    """RFC 6238, appendix B; six digits are the last six of eight. One step to each side is accepted, and no more."""
    now_ms, six = at_seconds * 1000, code[-6:]
    step = at_seconds // 30
    assert step_of(RFC_SECRET, six, now_ms) == step
    assert step_of(RFC_SECRET, six, now_ms + 30_000) == step_of(RFC_SECRET, six, now_ms - 30_000) == step
    assert step_of(RFC_SECRET, six, now_ms + 60_000) is None
    assert at_seconds == 59 or step_of(RFC_SECRET, six, now_ms - 60_000) is None, "there is no time before 1970"
    assert step_of(RFC_SECRET, wrong(six), now_ms) is None


def test_recovery_codes_have_120_bits() -> None:
    codes = [code for _ in range(20) for code in new_codes()]
    assert len(set(codes)) == 200
    assert all(re.fullmatch(r"([a-z2-7]{4}-){5}[a-z2-7]{4}", code) for code in codes)


async def test_enrolment_returns_a_secret_a_uri_and_a_qr_code(
    anonymous: Caller, services: Services, phone: Authenticator, database: Database
) -> None:
    await services.members.create_operator(OLGA["email"], PASSWORD, "operator")
    olga = await logged_in(anonymous)
    assert (await olga.get("/v1/me/totp")).json() == {"status": "none", "confirmed_at": None, "recovery_codes_left": 0}
    refused = problem(await olga.post("/v1/me/totp", {"current_password": "not my password"}), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/current_password"
    answer = await olga.post("/v1/me/totp", {"current_password": PASSWORD})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert re.fullmatch(r"[A-Z2-7]{32}", made["secret"])
    parts = urlsplit(made["uri"])
    assert (parts.scheme, parts.netloc, unquote(parts.path)) == ("otpauth", "totp", "/guerdon:olga@example.com")
    assert parse_qs(parts.query) == {"secret": [made["secret"]], "issuer": ["guerdon"]}
    kind, _, picture = made["qr_svg"].partition(",")
    assert kind == "data:image/svg+xml;charset=utf-8"
    assert ET.fromstring(unquote(picture)).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own
    assert (await olga.get("/v1/me/totp")).json()["status"] == "pending"
    assert (await log_in(anonymous)).status_code == 200, "nothing is asked for before it was confirmed"
    phone.secret = made["secret"]
    refused = problem(await olga.post("/v1/me/totp/confirm", {"code": wrong(phone.code())}), 422, "validation")
    assert refused["errors"][0]["pointer"] == "/code"
    confirmed = await olga.post("/v1/me/totp/confirm", {"code": phone.code()})
    assert (confirmed.status_code, len(set(confirmed.json()["recovery_codes"]))) == (200, 10)
    assert (await olga.get("/v1/me/totp")).json()["recovery_codes_left"] == 10
    for path, body in (("confirm", {"code": phone.code(1)}), ("", {"current_password": PASSWORD})):
        again = problem(await olga.post(f"/v1/me/totp/{path}".rstrip("/"), body), 409, "invalid-state")
        assert again["status_now"] == "confirmed"
    stored = repr([row async for row in database.raw["factors"].find({})])
    assert made["secret"] not in stored
    assert base64.b32decode(made["secret"]).hex() not in stored
    for code in confirmed.json()["recovery_codes"]:
        assert code not in stored
        assert code.replace("-", "") not in stored


async def test_code_is_requested_only_after_the_right_password(anonymous: Caller, services: Services, phone: Authenticator) -> None:
    await phone.enrol(anonymous, services)
    asked = await log_in(anonymous)
    problem(asked, 401, "second-factor-needed")
    assert asked.headers["www-authenticate"].startswith("Bearer")
    failed = await log_in(anonymous, wrong(phone.next()))
    assert {**failed.json(), "request_id": ""} == {**asked.json(), "request_id": ""}
    for code in (None, phone.code()):
        problem(await log_in(anonymous, code, password="not my password"), 401, "unauthenticated")
    assert (await log_in(anonymous, phone.code())).status_code == 200
    spaced = phone.next()
    assert (await log_in(anonymous, f"{spaced[:3]} {spaced[3:]}")).status_code == 200
    for code in ("", "12345", "x" * 41, "1234$6", "123456\n"):
        problem(await log_in(anonymous, code), 422, "validation")


async def test_a_code_works_once(anonymous: Caller, services: Services, phone: Authenticator, clock: ManualClock) -> None:
    await phone.enrol(anonymous, services)
    problem(await log_in(anonymous, phone.code()), 401, "second-factor-needed")
    first = phone.next()
    assert (await log_in(anonymous, first)).status_code == 200
    problem(await log_in(anonymous, first), 401, "second-factor-needed")
    ahead = phone.code(1)
    assert (await log_in(anonymous, ahead)).status_code == 200, "an authenticator that is ahead by a step"
    clock.advance(seconds=30)
    problem(await log_in(anonymous, ahead), 401, "second-factor-needed")
    behind = phone.next()
    clock.advance(seconds=30)
    assert (await log_in(anonymous, behind)).status_code == 200, "one that is behind by a step"
    problem(await log_in(anonymous, phone.code(-1)), 401, "second-factor-needed")


@pytest_asyncio.fixture
async def elsewhere(other_services: Services, settings: Settings, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller without credentials of another process."""
    async with serve(other_services, settings, clock) as caller:
        yield caller


@pytest.mark.parametrize("kind", ["totp", "recovery"])
async def test_concurrent_logins_with_one_code_have_one_winner(
    anonymous: Caller, elsewhere: Caller, services: Services, phone: Authenticator, kind: str
) -> None:
    await phone.enrol(anonymous, services)
    code = phone.next() if kind == "totp" else phone.codes[0]
    answers = await asyncio.gather(*(log_in((anonymous, elsewhere)[n % 2], code) for n in range(50)))
    counted = Counter(answer.status_code for answer in answers)
    assert counted[200] == 1
    assert counted.keys() <= {200, 401, 429}


async def test_a_recovery_code_replaces_the_authenticator_once(anonymous: Caller, services: Services, phone: Authenticator) -> None:
    await phone.enrol(anonymous, services)
    first, second = phone.codes[:2]
    olga = await logged_in(anonymous, first)
    problem(await log_in(anonymous, first), 401, "second-factor-needed")
    assert (await log_in(anonymous, second.upper().replace("-", ""))).status_code == 200
    assert (await olga.get("/v1/me/totp")).json()["recovery_codes_left"] == 8
    proof = {"current_password": PASSWORD, "code": phone.codes[2]}
    renewed = (await olga.post("/v1/me/totp/recovery-codes", proof)).json()["recovery_codes"]
    assert len(set(renewed) | set(phone.codes)) == 20
    problem(await log_in(anonymous, phone.codes[3]), 401, "second-factor-needed")
    assert (await log_in(anonymous, renewed[0])).status_code == 200


async def test_five_wrong_codes_lock_the_second_factor_for_a_time(
    anonymous: Caller, services: Services, phone: Authenticator, clock: ManualClock
) -> None:
    await phone.enrol(anonymous, services)
    clock.advance(seconds=30)
    for _ in range(20):
        stranger = await log_in(anonymous, wrong(phone.code()), password="not my password")
        assert stranger.status_code in (401, 429)
    assert (await log_in(anonymous, phone.code())).status_code in (200, 429), "what strangers do is the guard's business"
    clock.advance(seconds=3600)
    for _ in range(5):
        problem(await log_in(anonymous, wrong(phone.code())), 401, "second-factor-needed")
        clock.advance(seconds=1)
    waiting = await log_in(anonymous, phone.code())
    assert problem(waiting, 429, "too-many-requests")["violated-policies"] == ["second-factor"]
    assert waiting.headers["retry-after"] == str(TRIES_MS // 1000 - 5)
    problem(await log_in(anonymous, phone.codes[0]), 429, "too-many-requests")
    clock.advance(seconds=TRIES_MS / 1000 - 6)
    problem(await log_in(anonymous, phone.code()), 429, "too-many-requests")
    clock.advance(seconds=1)
    assert (await log_in(anonymous, phone.code())).status_code == 200


async def test_right_code_resets_the_count_of_wrong_codes(
    anonymous: Caller, services: Services, phone: Authenticator, database: Database
) -> None:
    await phone.enrol(anonymous, services)
    for _ in range(3):
        for _ in range(4):
            problem(await log_in(anonymous, wrong(phone.next())), 401, "second-factor-needed")
        assert (await log_in(anonymous, phone.next())).status_code == 200


async def test_concurrent_code_guesses_are_limited_to_five(anonymous: Caller, services: Services, phone: Authenticator) -> None:
    await phone.enrol(anonymous, services)
    member = await services.members.authenticate(OLGA["email"], PASSWORD)
    guesses = [wrong(phone.next()) for _ in range(50)]
    tried = await asyncio.gather(*(services.second_factors.require(member, code) for code in guesses), return_exceptions=True)
    assert Counter(type(each).__name__ for each in tried) == {"SecondFactorNeeded": 5, "TooManyRequests": 45}


async def test_removal_of_the_second_factor_requires_both_factors(
    anonymous: Caller, services: Services, phone: Authenticator
) -> None:
    olga = await phone.enrol(anonymous, services)
    proof = {"current_password": PASSWORD, "code": phone.next()}
    for body, pointer in (
        ({**proof, "current_password": "not my password"}, "/current_password"),
        ({**proof, "code": wrong(phone.code())}, "/code"),
    ):
        refused = problem(await olga.post("/v1/me/totp/remove", body), 422, "validation")
        assert refused["errors"][0]["pointer"] == pointer
    problem(await olga.post("/v1/me/totp/remove", {"current_password": PASSWORD}), 422, "validation")
    problem(await log_in(anonymous), 401, "second-factor-needed")
    assert (await olga.post("/v1/me/totp/remove", proof)).status_code == 204
    assert (await log_in(anonymous)).status_code == 200
    for path in ("remove", "recovery-codes"):
        problem(await olga.post(f"/v1/me/totp/{path}", {**proof, "code": phone.next()}), 409, "invalid-state")


async def test_password_reset_keeps_the_second_factor(anonymous: Caller, services: Services, phone: Authenticator) -> None:
    await phone.enrol(anonymous, services)
    member = await services.members.authenticate(OLGA["email"], PASSWORD)
    token = await services.password_resets.issue(member.id)
    answer = await anonymous.post("/v1/auth/reset", {"token": token, "new_password": "another operator's password"})
    assert answer.status_code == 200
    problem(await log_in(anonymous, password="another operator's password"), 401, "second-factor-needed")
    assert (await log_in(anonymous, phone.next(), password="another operator's password")).status_code == 200


async def test_members_have_no_second_factor_and_need_none(
    anonymous: Caller, service: Caller, services: Services, phone: Authenticator
) -> None:
    await phone.enrol(anonymous, services)
    member = await services.members.authenticate(OLGA["email"], PASSWORD)
    assert (await service.put(f"/v1/members/{member.id}/role", {"role": "member"})).status_code == 200
    olga = await logged_in(anonymous)
    problem(await olga.get("/v1/me/totp"), 403, "forbidden")
    for path in ("", "/confirm", "/remove", "/recovery-codes"):
        problem(await olga.post(f"/v1/me/totp{path}", {}), 403, "forbidden")
    problem(await service.get("/v1/me/totp"), 403, "forbidden")
    assert (await service.put(f"/v1/members/{member.id}/role", {"role": "support"})).status_code == 200
    problem(await log_in(anonymous), 401, "second-factor-needed")


async def test_admin_command_removes_a_second_factor(
    anonymous: Caller, services: Services, phone: Authenticator, mongodb_url: str, master_keys: str
) -> None:
    olga = await phone.enrol(anonymous, services)
    removed = await guerdon(
        "admin", "remove-totp", "--email", OLGA["email"], seconds=60,
        GUERDON_MONGODB_URL=mongodb_url, GUERDON_MONGODB_DATABASE=DATABASE, GUERDON_MASTER_KEYS=master_keys,
    )  # fmt: skip
    assert (removed.status, removed.out.split()[4][:4]) == (0, "mem_"), removed.err
    assert [line["name"] for line in map(json.loads, removed.err.splitlines())] == ["second_factor_removed"]
    assert (await log_in(anonymous)).status_code == 200
    problem(await olga.delete("/v1/me/sessions"), 401, "unauthenticated")
    written = [record async for record in services.audit_log.read()][-2:]
    assert [(record.phase, record.action) for record in written] == [
        (phase, "admin remove-totp") for phase in ("asked", "answered")
    ]


# --- required ---------------------------------------------------------------------------------------------------------


def test_production_requires_a_second_factor_by_default() -> None:
    assert not load({}).second_factor_required
    assert load({}, operator_second_factor="required").second_factor_required
    assert load({}, profile="production").second_factor_required
    assert not load({}, profile="production", operator_second_factor="optional").second_factor_required


async def test_staff_without_a_required_second_factor_are_refused(
    services: Services, settings: Settings, clock: ManualClock, phone: Authenticator, factory: Factory
) -> None:
    strict = settings.model_copy(update={"operator_second_factor": "required"})
    wallet = await factory.wallet(10)
    async with open_services(strict, clock) as services_there, serve(services_there, strict, clock) as anonymous:
        olga = await phone.enrol(anonymous, services_there, "admin")
        denied = [
            await olga.get(f"/v1/wallets/{wallet}"),
            await olga.get("/v1/members"),
            await olga.get("/v1/audit"),
            await olga.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}),
            await olga.post(f"/v1/members/{wallet.partition(':')[0]}/disable", key=None),
        ]
        for answer in denied:
            problem(answer, 403, "second-factor-missing")
        assert (await olga.get("/v1/me")).json()["role"] == "admin"
        assert (await olga.get("/v1/me/sessions")).status_code == 200
        olga = await logged_in(anonymous, phone.next())
        assert (await olga.get(f"/v1/wallets/{wallet}")).status_code == 200
        assert (await olga.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).status_code == 201
        refreshed = await anonymous.post("/v1/auth/login", {**OLGA, "code": phone.next()})
        answer = await anonymous.post("/v1/auth/refresh", {"refresh_token": refreshed.json()["refresh_token"]})
        assert (await anonymous.with_token(answer.json()["access_token"]).get("/v1/members")).status_code == 200
        member = {"email": "ada@example.com", "password": "correct horse battery"}
        await anonymous.post("/v1/auth/register", member)
        ada = anonymous.with_token((await anonymous.post("/v1/auth/login", member)).json()["access_token"])
        assert (await ada.get("/v1/me/wallets")).status_code == 200
        problem(await ada.get("/v1/members"), 403, "forbidden")
    assert await factory.balance(wallet) == 9
    await factory.assert_books_balance()
