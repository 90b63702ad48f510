"""How tests call the service: over HTTP, as one kind of caller."""

import asyncio
import io
import itertools
import json
import time
from typing import Any

import httpx
from falcon.asgi import App

from guerdon.clock import Clock
from guerdon.middlewares.problems import PROBLEM_TYPE
from guerdon.system.openapi import errors_of
from tests.secret_leaks import assert_keeps_secrets

_keys = itertools.count(1)


class ManualClock:
    """Follows a real clock plus an offset that tests move."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._stopped_at_ms: int | None = None
        self.offset_ms = 0

    def now_ms(self) -> int:
        base_ms = self._base.now_ms() if self._stopped_at_ms is None else self._stopped_at_ms
        return base_ms + self.offset_ms

    def stop(self) -> None:
        """From now on the time of day moves only by `advance`."""
        self._stopped_at_ms = self._base.now_ms()

    def monotonic(self) -> float:
        return self._base.monotonic() + self.offset_ms / 1000

    def advance(self, *, seconds: float = 0, days: float = 0) -> None:
        self.offset_ms += int(seconds * 1000 + days * 86_400_000)


class WrongClock:
    """The clock of a machine whose time of day is wrong. Durations are right."""

    def __init__(self, base: Clock, *, ahead_ms: int = 0) -> None:
        self._base = base
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return self._base.now_ms() + self.ahead_ms

    def monotonic(self) -> float:
        return self._base.monotonic()


class Log(io.StringIO):
    """Collects log lines."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    async def written(self, request: httpx.Response) -> dict[str, Any]:
        """The line of a request; what was logged before it is there too. Lines leave together, some time later."""
        wanted, deadline = request.headers["x-request-id"], time.monotonic() + 10
        while time.monotonic() < deadline:
            for line in self.lines:
                if line["event"] == "request" and line["request_id"] == wanted:
                    return line
            await asyncio.sleep(0.01)
        raise AssertionError("the request has left no line")


async def keep_secrets(answer: httpx.Response) -> None:
    """No error answer repeats a secret: this is looked at in every test that calls the service."""
    if answer.status_code >= 400:
        await answer.aread()
        assert_keeps_secrets(answer.text, "an error answer")


def undeclared(app: App[Any, Any], answer: httpx.Response) -> str | None:
    """The problem that an answer has and its operation does not declare, or None."""
    if answer.headers.get("content-type") != PROBLEM_TYPE:
        return None
    found = app._router.find(answer.request.url.path)
    operation = None if found is None else getattr(found[1].get(answer.request.method), "operation", None)
    if operation is None:
        return None  # No such route, or no such method.
    code = answer.json()["code"]
    known = {error.code for error in errors_of(operation)}
    return None if code in known else f"{operation.operation_id} answers {code}: declare it in `errors=`"


def client_of(app: App[Any, Any]) -> httpx.AsyncClient:
    """A client of an application in this process. Every answer is checked: it shows no secret and only problems that its route declares."""

    async def declared_problems(answer: httpx.Response) -> None:
        if answer.status_code >= 400:
            await answer.aread()
            assert undeclared(app, answer) is None, undeclared(app, answer)

    transport = httpx.ASGITransport(app=app)
    hooks = [keep_secrets, declared_problems]
    return httpx.AsyncClient(transport=transport, base_url="http://test", event_hooks={"response": hooks})


class Caller:
    """One kind of caller. `post` adds a fresh idempotency key unless one is given (or `key=None`)."""

    def __init__(self, client: httpx.AsyncClient, token: str | None = None) -> None:
        self.client = client
        self.token = token

    def with_token(self, token: str) -> "Caller":
        return Caller(self.client, token)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.client.get(path, params=params, headers=self._headers(None))

    async def post(self, path: str, body: Any = None, *, key: str | None = "", **headers: str) -> httpx.Response:
        wanted = f"test-{next(_keys)}" if key == "" else key
        return await self.client.post(path, json=body, headers={**self._headers(wanted), **headers})

    async def delete(self, path: str) -> httpx.Response:
        return await self.client.delete(path, headers=self._headers(None))

    async def put(self, path: str, body: Any = None) -> httpx.Response:
        return await self.client.put(path, json=body, headers=self._headers(None))

    async def send(self, method: str, path: str, content: bytes, *, key: str | None = "", **headers: str) -> httpx.Response:
        """Send raw bytes as JSON, unless `content_type` says otherwise."""
        wanted = f"test-{next(_keys)}" if key == "" else key
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(
            method, path, content=content, headers={"content-type": "application/json", **self._headers(wanted), **named}
        )

    def _headers(self, key: str | None) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        if key is not None:
            headers["idempotency-key"] = key
        return headers


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that the answer is this problem, whole and well-formed, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"/problems/{code}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response.headers["x-request-id"]
    if status == 429:
        assert code == "too-many-requests"
        assert len(body["violated-policies"]) == 1
        assert int(response.headers["retry-after"]) >= 1
    return body
