"""A forgotten password, from the asking to the letter to the log-in with the new one."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.errors import NotFound, StartupRefused
from guerdon.logs import make_logger
from guerdon.password_reset.jobs import check_link
from guerdon.password_reset.service import PAUSE_SECONDS, RESET_TTL_SECONDS
from guerdon.password_reset.tokens import new_reset_token
from guerdon.wiring.jobs import jobs_of
from guerdon.wiring.services import Services
from guerdon.workers.models import Job
from tests.clients import Caller, Log, ManualClock, problem
from tests.commands import guerdon_here
from tests.conftest import DATABASE
from tests.invariants.retail import Run, guerdon
from tests.serving import serve
from tests.smtp_server import PostOffice, post_office

ADA = {"email": "ada@example.com", "password": "correct horse battery"}
NEW_PASSWORD = "staple battery horse"
LINK = "https://shop.test/new-password#{token}"
MINUTE = 60


@pytest_asyncio.fixture
async def office() -> AsyncIterator[PostOffice]:
    async with post_office() as office:
        yield office


@pytest.fixture
def posting(settings: Settings, office: PostOffice) -> Settings:
    """The settings with a mail server."""
    return settings.model_copy(
        update={
            "smtp_url": type(settings.mongodb_url)(f"smtp://127.0.0.1:{office.port}"),
            "mail_from": "Guerdon <no-reply@shop.test>",
            "reset_url": LINK,
        }
    )


class Worker:
    """The two jobs of recovery, as a worker has them."""

    def __init__(self, services: Services, settings: Settings, clock: ManualClock) -> None:
        self.log = Log()
        jobs = jobs_of(services, settings, make_logger(clock, "info", self.log))
        self.jobs: dict[str, Job] = {job.name: job for job in jobs}

    async def run(self) -> tuple[int, int]:
        """One run of each: how many have asked, and how many letters have left."""
        return await self.jobs["recovery"].run(), await self.jobs["mail"].run()


@pytest.fixture
def worker(services: Services, posting: Settings, clock: ManualClock) -> Worker:
    return Worker(services, posting, clock)


@pytest.fixture
def other_worker(other_services: Services, posting: Settings, clock: ManualClock) -> Worker:
    return Worker(other_services, posting, clock)


async def registered(anonymous: Caller) -> str:
    """Ada's id, who is a member now."""
    made = await anonymous.post("/v1/auth/register", ADA)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def forgot(anonymous: Caller, email: str = ADA["email"]) -> httpx.Response:
    answer = await anonymous.post("/v1/auth/forgot", {"email": email}, key=None)
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"}), answer.text
    return answer


async def reset(anonymous: Caller, token: str, password: str = NEW_PASSWORD) -> httpx.Response:
    return await anonymous.post("/v1/auth/reset", {"token": token, "new_password": password}, key=None)


async def log_in(anonymous: Caller, password: str, email: str = ADA["email"]) -> httpx.Response:
    return await anonymous.post("/v1/auth/login", {"email": email, "password": password})


def tokens_of(office: PostOffice) -> list[str]:
    """The tokens in the letters, the oldest first."""
    return [re.findall(r"https://shop\.test/new-password#(\S+)", letter.get_content())[0] for letter in office.letters]


async def test_mailed_token_sets_a_new_password(anonymous: Caller, office: PostOffice, worker: Worker) -> None:
    made = (await anonymous.post("/v1/auth/register", ADA)).json()
    sessions = [(await log_in(anonymous, ADA["password"])).json() for _ in range(2)]
    await forgot(anonymous, "ADA@example.com")
    assert await worker.run() == (1, 1)
    assert await worker.run() == (0, 0)
    [letter], [token] = office.letters, tokens_of(office)
    assert (letter["To"], letter["From"]) == ("ada@example.com", "Guerdon <no-reply@shop.test>")
    assert re.fullmatch(r"gp_[0-9a-f]{32}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", token)
    answer = await reset(anonymous, token)
    assert (answer.status_code, set(answer.json())) == (200, {"device_token"})
    problem(await log_in(anonymous, ADA["password"]), 401, "unauthenticated")
    assert (await log_in(anonymous, NEW_PASSWORD)).json()["member_id"] == made["id"]
    for session in sessions:
        problem(await anonymous.with_token(session["access_token"]).get("/v1/me"), 401, "unauthenticated")
        refresh = {"refresh_token": session["refresh_token"]}
        problem(await anonymous.post("/v1/auth/refresh", refresh), 401, "unauthenticated")


async def test_reset_lets_the_owner_log_in_while_others_guess(anonymous: Caller, office: PostOffice, worker: Worker) -> None:
    """LOGIN-1: the way back for whoever has lost the device token."""
    await registered(anonymous)
    wrong = [(await log_in(anonymous, "a wrong guess")).status_code for _ in range(11)]
    assert wrong == [401] * 10 + [429]
    await forgot(anonymous)
    await worker.run()
    device = (await reset(anonymous, tokens_of(office)[0])).json()["device_token"]
    problem(await log_in(anonymous, NEW_PASSWORD), 429, "too-many-requests")
    body = {**ADA, "password": NEW_PASSWORD, "device_token": device}
    assert (await anonymous.post("/v1/auth/login", body)).status_code == 200


async def test_reset_request_gets_the_same_response_for_every_address(
    anonymous: Caller, service: Caller, office: PostOffice, worker: Worker, database: Database
) -> None:
    made = (await anonymous.post("/v1/auth/register", ADA)).json()
    await service.post("/v1/members", {"external_id": "1", "email": "no-password@example.com"})
    disabled = (await anonymous.post("/v1/auth/register", {**ADA, "email": "out@example.com"})).json()
    assert (await service.post(f"/v1/members/{disabled['id']}/disable", key=None)).status_code == 200
    answers = [
        await forgot(anonymous, email)
        for email in (ADA["email"], "nobody@example.com", "no-password@example.com", "out@example.com")
    ]
    headers = [{**answer.headers, "x-request-id": "", "ratelimit": "one less each time"} for answer in answers]
    assert all(each == headers[0] for each in headers)
    rows = [row async for row in database.raw["outbox"].find({})]
    assert {row["owner"].partition(":")[0] for row in rows} == {"email"}, "nothing was looked up yet"
    assert await worker.run() == (4, 2)
    assert {letter["To"] for letter in office.letters} == {ADA["email"], "no-password@example.com"}
    assert {row["_id"] async for row in database.raw["resets"].find({})} >= {made["id"]}
    assert await database.raw["resets"].count_documents({"_id": disabled["id"]}) == 0


async def test_a_member_made_by_a_service_sets_a_first_password(
    anonymous: Caller, service: Caller, office: PostOffice, worker: Worker
) -> None:
    made = (await service.post("/v1/members", {"external_id": "1", "email": ADA["email"]})).json()
    await forgot(anonymous)
    await worker.run()
    assert (await reset(anonymous, tokens_of(office)[0])).status_code == 200
    assert (await log_in(anonymous, NEW_PASSWORD)).json()["member_id"] == made["id"]


async def test_reset_token_works_once_and_is_replaced_by_a_newer_one(
    anonymous: Caller, office: PostOffice, worker: Worker, clock: ManualClock
) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    for _ in range(2):
        await forgot(anonymous)
        assert await worker.run() == (1, 1)
        clock.advance(seconds=PAUSE_SECONDS)
    older, newer = tokens_of(office)
    problem(await reset(anonymous, older), 401, "unauthenticated")
    assert (await reset(anonymous, newer)).status_code == 200
    problem(await reset(anonymous, newer, "one more password"), 401, "unauthenticated")
    assert (await log_in(anonymous, NEW_PASSWORD)).status_code == 200


async def test_reset_mail_is_sent_at_most_once_a_minute(
    anonymous: Caller, office: PostOffice, worker: Worker, clock: ManualClock
) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    clock.stop()
    for _ in range(3):
        await forgot(anonymous)
    assert await worker.run() == (3, 1)
    clock.advance(seconds=PAUSE_SECONDS - 1)
    await forgot(anonymous)
    assert await worker.run() == (1, 0)
    assert (await reset(anonymous, tokens_of(office)[0])).status_code == 200, "the one that was sent stays good"
    await forgot(anonymous)
    assert await worker.run() == (1, 1), "who has used one up may have the next"


async def test_replaced_reset_token_is_not_mailed(
    anonymous: Caller, services: Services, office: PostOffice, worker: Worker
) -> None:
    member_id = await registered(anonymous)
    await forgot(anonymous)
    assert await services.password_resets.process_requests() == 1
    await services.password_resets.issue(member_id)
    assert await worker.run() == (0, 0)
    assert office.letters == []


async def settled(caller: Caller, token: str, password: str = NEW_PASSWORD) -> httpx.Response:
    """Reset again while the answer is 503, which says that nothing was changed: under a race the database may not settle it."""
    for _ in range(20):
        answer = await reset(caller, token, password)
        if answer.status_code != 503:
            return answer
        await asyncio.sleep(int(answer.headers["retry-after"]))
    raise AssertionError("the database has not settled it")


async def test_concurrent_resets_with_one_token_have_one_winner(
    anonymous: Caller, services: Services, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """Through two processes."""
    token = await services.password_resets.issue(await registered(anonymous))
    async with serve(other_services, settings, clock) as elsewhere:
        callers = [anonymous, elsewhere]
        answers = await asyncio.gather(*(settled(callers[n % 2], token, f"new password {n}") for n in range(50)))
    assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 49}
    [winner] = [number for number, answer in enumerate(answers) if answer.status_code == 200]
    assert (await log_in(anonymous, f"new password {winner}")).status_code == 200


@pytest.mark.parametrize(("seconds", "status"), [(RESET_TTL_SECONDS - 1, 200), (RESET_TTL_SECONDS, 401)])
async def test_a_token_lives_for_half_an_hour(
    anonymous: Caller, services: Services, clock: ManualClock, seconds: int, status: int
) -> None:
    member_id = await registered(anonymous)
    clock.stop()
    token = await services.password_resets.issue(member_id)
    clock.advance(seconds=seconds)
    assert (await reset(anonymous, token)).status_code == status


async def test_refused_password_does_not_use_up_the_reset_token(anonymous: Caller, services: Services) -> None:
    token = await services.password_resets.issue(await registered(anonymous))
    for wrong in ("short", "password1", ADA["email"], "x" * 129):
        refused = problem(await reset(anonymous, token, wrong), 422, "validation")
        assert refused["errors"][0]["pointer"] == "/new_password"
    assert (await reset(anonymous, token)).status_code == 200


async def test_invalid_reset_tokens_get_the_same_response(anonymous: Caller, services: Services, service: Caller) -> None:
    made = (await anonymous.post("/v1/auth/register", ADA)).json()
    token = await services.password_resets.issue(made["id"])
    wrong = ["x", token[:-1], token + "x", token + "\n", token[:-1] + ("a" if token[-1] != "a" else "b"), token.upper()]
    wrong += [new_reset_token(made["id"]).text, new_reset_token("mem_" + "0" * 32).text]
    bodies = [{**problem(await reset(anonymous, each), 401, "unauthenticated"), "request_id": ""} for each in wrong]
    assert all(body == bodies[0] for body in bodies)
    for body in (
        {},
        {"token": token},
        {"token": {"$ne": ""}, "new_password": NEW_PASSWORD},
        {"token": "x" * 201, "new_password": NEW_PASSWORD},
    ):
        problem(await anonymous.post("/v1/auth/reset", body), 422, "validation")
    for body in ({}, {"email": "ada"}, {"email": {"$gt": ""}}, {"email": "a@b.c\r\nBcc: eve@evil.test"}):
        problem(await anonymous.post("/v1/auth/forgot", body), 422, "validation")
    assert (await service.post(f"/v1/members/{made['id']}/disable", key=None)).status_code == 200
    problem(await reset(anonymous, token), 401, "unauthenticated")
    assert (await service.post(f"/v1/members/{made['id']}/enable", key=None)).status_code == 200
    assert (await reset(anonymous, token)).status_code == 200


async def test_stored_reset_data_gives_no_access(
    anonymous: Caller, office: PostOffice, worker: Worker, services: Services, database: Database
) -> None:
    """A dump before and after each step: the address that was asked for and the token are sealed, and what was told is gone."""
    await anonymous.post("/v1/auth/register", ADA)

    async def dump() -> bytes:
        rows: list[Any] = [
            [row async for row in database.raw[name].find({})] for name in ("outbox", "resets", "sessions", "leases")
        ]
        return repr(rows).encode()

    dumps = []
    await forgot(anonymous, "asked-for@example.com")
    await forgot(anonymous)
    dumps.append(await dump())
    assert await services.password_resets.process_requests() == 2
    dumps.append(await dump())
    await worker.run()
    dumps.append(await dump())
    [token] = tokens_of(office)
    secret = token.split("_")[2][:43]
    for text in dumps:
        for hidden in (token, secret, hashlib.sha256(token.encode()).hexdigest(), "asked-for", ADA["email"]):
            assert hidden.encode() not in text
    rows = [row async for row in database.raw["outbox"].find({})]
    assert len(rows) == 3
    assert all(row.keys() >= {"delivered_at", "expires_at"} and not row.keys() & {"sealed", "due_at"} for row in rows)


async def test_login_with_the_old_password_during_a_reset_gives_no_access(
    anonymous: Caller, services: Services, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """Who has proven the old password may still be given a session after the new one was set: it has ended before it begins."""
    token = await services.password_resets.issue(await registered(anonymous))
    async with serve(other_services, settings, clock) as elsewhere:
        thieves = [asyncio.create_task(log_in(elsewhere, ADA["password"])) for _ in range(12)]
        answer = await settled(anonymous, token)
        given = [(await thief) for thief in thieves]
        assert answer.status_code == 200
        sessions = [each.json() for each in given if each.status_code == 200]
        assert sessions, "none was quick enough for the test to mean anything"
        clock.advance(seconds=30)
        for session in sessions:
            problem(await elsewhere.with_token(session["access_token"]).get("/v1/me"), 401, "unauthenticated")
            refresh = {"refresh_token": session["refresh_token"]}
            problem(await elsewhere.post("/v1/auth/refresh", refresh), 401, "unauthenticated")


async def test_refused_mail_is_retried_with_growing_delays(
    anonymous: Caller, office: PostOffice, worker: Worker, clock: ManualClock, database: Database
) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    clock.stop()
    await forgot(anonymous)
    office.refusals += ["451 try ada@example.com later", "554 ada@example.com is not wanted"]
    assert await worker.run() == (1, 0)
    for wait_seconds in (10, 20):
        clock.advance(seconds=wait_seconds - 1)
        assert await worker.run() == (0, 0)
        clock.advance(seconds=1)
        _, sent = await worker.run()
    assert sent == 1
    lines = [line for line in worker.log.lines if line["event"] == "mail_failed"]
    assert [(line["tries"], line["smtp_code"], line["again_in_ms"]) for line in lines] == [(1, 451, 10_000), (2, 554, 20_000)]
    assert "ada@example.com" not in worker.log.getvalue()
    assert (await reset(anonymous, tokens_of(office)[0])).status_code == 200


async def test_undeliverable_mail_is_dropped_when_its_token_expires(
    anonymous: Caller, office: PostOffice, worker: Worker, clock: ManualClock, database: Database
) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    clock.stop()
    await forgot(anonymous)
    office.refusals += ["451 later"] * 100
    for _ in range(RESET_TTL_SECONDS // 10 + 60):
        await worker.run()
        clock.advance(seconds=10)
    pauses = [line["again_in_ms"] for line in worker.log.lines if line["event"] == "mail_failed"]
    assert pauses == [10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000, 300_000, None]
    assert office.letters == []
    [row] = [row async for row in database.raw["outbox"].find({"kind": "password_reset_token"})]
    assert not row.keys() & {"sealed", "due_at", "delivered_at"}


async def test_mail_of_a_dead_worker_is_sent_by_another(
    anonymous: Caller, services: Services, office: PostOffice, worker: Worker, clock: ManualClock
) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    clock.stop()
    await forgot(anonymous)
    taken = await services.outbox.take("recovery", 10)
    assert len(taken) == 1
    assert await worker.run() == (0, 0)
    clock.advance(seconds=MINUTE)
    await services.password_resets.process_requests()
    [held] = await services.outbox.take("mail", 10)
    assert await worker.run() == (0, 0)
    clock.advance(seconds=MINUTE)
    assert await worker.run() == (0, 1)
    assert not await services.outbox.mark_delivered(held), "another one has it by now"
    assert not await services.outbox.mark_delivered(taken[0])


async def test_several_workers_send_each_letter_once(
    anonymous: Caller, service: Caller, worker: Worker, other_worker: Worker, office: PostOffice
) -> None:
    for number in range(20):
        email = f"m{number}@example.com"
        await service.post("/v1/members", {"external_id": str(number), "email": email})
        await forgot(anonymous, email)
    answered = await asyncio.gather(*(each.jobs["recovery"].run() for each in (worker, other_worker)))
    sent = await asyncio.gather(*(each.jobs["mail"].run() for each in (worker, other_worker)))
    assert (sum(answered), sum(sent)) == (20, 20)
    assert Counter(letter["To"] for letter in office.letters) == {f"m{number}@example.com": 1 for number in range(20)}


async def test_admin_command_issues_a_reset_token(
    anonymous: Caller, service: Caller, services: Services, mongodb_url: str, master_keys: str
) -> None:
    member_id = await registered(anonymous)

    async def issue(email: str, run: Callable[..., Awaitable[Run]]) -> Run:
        return await run(
            "admin", "reset", "--email", email,
            GUERDON_MONGODB_URL=mongodb_url, GUERDON_MONGODB_DATABASE=DATABASE, GUERDON_MASTER_KEYS=master_keys,
        )  # fmt: skip

    issued = await issue("ADA@EXAMPLE.COM", guerdon)
    assert issued.status == 0, issued.err
    assert (await reset(anonymous, issued.out.splitlines()[-1])).status_code == 200
    written = [record async for record in services.audit_log.read()][-2:]
    assert [(record.phase, record.action, record.subject) for record in written] == [
        (phase, "admin reset", {"member_id": member_id}) for phase in ("asked", "answered")
    ]
    await service.post(f"/v1/members/{member_id}/disable", key=None)
    refused = await issue("nobody@example.com", guerdon_here)
    assert (refused.status, refused.out) == (2, "")
    for member in (member_id, "mem_" + "0" * 32):
        with pytest.raises(NotFound):
            await services.password_resets.issue(member)


async def test_reset_request_is_accepted_without_a_mail_server(
    anonymous: Caller, services: Services, settings: Settings, clock: ManualClock
) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    await forgot(anonymous)
    jobs = {job.name: job for job in jobs_of(services, settings, make_logger(clock, "info", Log()))}
    assert "mail" not in jobs
    assert await jobs["recovery"].run() == 1


@pytest.mark.parametrize("missing", ["mail_from", "reset_url"])
def test_mail_server_requires_a_sender_and_a_reset_url(
    services: Services, posting: Settings, clock: ManualClock, missing: str
) -> None:
    with pytest.raises(StartupRefused, match="GUERDON_MAIL_FROM and GUERDON_RESET_URL"):
        Worker(services, posting.model_copy(update={missing: None}), clock)


@pytest.mark.parametrize(
    "link",
    ["", "https://shop.test/", "http://shop.test/#{token}", "https://shop.test/{token}/{token}", "shop.test/#{token}",
     "https://shop.test/ #{token}", "https://shop.test/\n{token}", "javascript:{token}", "https:///{token}", "https://[shop/{token}"],
)  # fmt: skip
def test_reset_url_that_would_leak_the_token_is_refused(link: str) -> None:
    with pytest.raises(StartupRefused):
        check_link(link)
    assert check_link(LINK) == LINK
    assert check_link("http://localhost:3000/#{token}")
