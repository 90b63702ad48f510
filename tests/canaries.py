"""LOG-1: values that occur nowhere else, one in every secret and personal field, and the flows that carry them through the service."""

import itertools
import json
from typing import Any

import httpx
from pyotp.totp import TOTP

from guerdon.password_reset.tokens import new_reset_token

_numbers = itertools.count(1)
MARK = "zq7canary"


def canary(what: str) -> str:
    return f"{MARK}{next(_numbers)}{what}"


class Flows:
    """Uses the service with canaries in everything, and collects the tokens that it gives out."""

    def __init__(self, client: httpx.AsyncClient, service_key: str) -> None:
        self.client = client
        self.secrets = {service_key, service_key[-30:]}
        self.answers: list[httpx.Response] = []
        self.person = {"email": f"{canary('mail')}@example.com", "password": canary("password1")}
        self._service = {"authorization": f"Bearer {service_key}"}

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        defaults = {"user-agent": f"Mozilla {canary('agent')}", "idempotency-key": canary("key"), "x-request-id": "a b"}
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        typed = {"content-type": "application/json"} if content is not None else {}
        answer = await self.client.request(method, path, content=content, headers={**defaults, **typed, **named})
        self.answers.append(answer)
        return answer

    async def by_service(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return await self.send(method, path, body, **self._service)

    async def run(self, admin_password: str) -> None:
        """Every main flow, with what goes well and what goes wrong."""
        token = await self.be_somebody()
        wallet = await self.move_value()
        await self.earn()
        await self.go_wrong(wallet, token)
        await self.administer(admin_password, wallet)

    async def be_somebody(self) -> str:
        for _ in range(2):
            await self.send("POST", "/v1/auth/register", self.person)
        await self.send("POST", "/v1/auth/register", {"email": canary("noaddress"), "password": canary("x")})
        await self.send("POST", "/v1/auth/login", {**self.person, "password": canary("wrong")})
        begun = (await self.send("POST", "/v1/auth/login", self.person)).json()
        self.secrets |= {str(value) for name, value in begun.items() if name.endswith("_token")}
        bearer = {"authorization": f"Bearer {begun['access_token']}"}
        next_one = (await self.send("POST", "/v1/auth/refresh", {"refresh_token": begun["refresh_token"]})).json()
        self.secrets |= {next_one["access_token"], next_one["refresh_token"]}
        await self.send("POST", "/v1/auth/refresh", {"refresh_token": next_one["refresh_token"][:-1] + "x"})
        change = {"current_password": canary("old"), "new_password": canary("new")}
        await self.send("PUT", "/v1/me/password", change, **bearer)
        await self.send("POST", "/v1/auth/forgot", {"email": self.person["email"]})
        forged = {"token": new_reset_token(begun["member_id"]).text, "new_password": canary("reset")}
        self.secrets.add(forged["token"])
        await self.send("POST", "/v1/auth/reset", forged)
        await self.send("POST", "/v1/auth/reset", {"token": canary("reset-token"), "new_password": canary("newest")})
        for path in ("/v1/me", "/v1/me/sessions", "/v1/me/wallets"):
            await self.send("GET", path, **bearer)
        return str(begun["access_token"])

    async def move_value(self) -> str:
        external_id, words = canary("external"), {"reason": canary("reason"), "metadata": {"note": canary("metadata")}}
        body = {"external_id": external_id, "email": f"{canary('second')}@example.com", "attributes": {"street": canary("street")}}
        member = (await self.by_service("POST", "/v1/members", body)).json()["id"]
        await self.by_service("POST", "/v1/members", body)
        await self.by_service("GET", f"/v1/members?external_id={external_id}")
        wallet = f"{member}:PTS"
        for kind in ("credit", "debit"):
            movement = {"amount": 5, "reference": canary("reference"), **words}
            await self.by_service("POST", f"/v1/wallets/{wallet}/{kind}", movement)
        await self.by_service("POST", f"/v1/wallets/{wallet}/debit", {"amount": 10**9, **words})
        await self.by_service("GET", f"/v1/wallets/{wallet}/entries?reference={canary('search')}")
        return wallet

    async def earn(self) -> None:
        event = {
            "id": canary("event"), "type": "purchase", "member": {"external_id": canary("shopper")},
            "occurred_at": "2026-01-31T12:00:00Z", "amount": 100, "currency": "GBP", "attributes": {"shop": canary("shop")},
        }  # fmt: skip
        for path in ("/v1/events", "/v1/events/preview"):
            await self.by_service("POST", path, event)
        await self.by_service("GET", f"/v1/events/{event['id']}")

    async def go_wrong(self, wallet: str, token: str) -> None:
        """What is refused may be repeated to nobody but the caller."""
        for header in (
            f"Bearer {canary('bearer')}",
            f"Bearer gk_live_{canary('key')}",
            f"Bearer {token}x",
            f"Basic {canary('basic')}",
        ):
            await self.send("GET", f"/v1/wallets/{wallet}", authorization=header)
        for path in (f"/v1/{canary('path')}", f"/v1/wallets/{canary('wallet')}:PTS", f"/v1/members/{canary('member')}@example.com"):
            await self.by_service("GET", path)
        for body in (
            {"amount": canary("amount")},
            {canary("field"): 1},
            b'{"amount":"' + canary("raw").encode(),
            b"\xff" + MARK.encode(),
        ):
            await self.by_service("POST", f"/v1/wallets/{wallet}/credit", body)
        await self.by_service("POST", "/v1/campaigns", {"name": canary("campaign"), "condition": f"event.{canary('cel')} > 0"})

    async def administer(self, password: str, wallet: str) -> None:
        begun = (await self.send("POST", "/v1/auth/login", {"email": f"{MARK}admin@example.com", "password": password})).json()
        bearer = {"authorization": f"Bearer {begun['access_token']}"}
        self.secrets |= {begun["access_token"], begun["refresh_token"]}
        member = wallet.partition(":")[0]
        await self.send("POST", f"/v1/wallets/{wallet}/credit", {"amount": 1, "reason": canary("adjust")}, **bearer)
        await self.send("PUT", f"/v1/members/{member}/role", {"role": "support"}, **bearer)
        await self.send("POST", f"/v1/members/{member}/disable", **bearer)
        await self.send("GET", "/v1/audit", **bearer)
        await self.enrol(password, **bearer)

    async def enrol(self, password: str, **bearer: str) -> None:
        """Last of all: from then on logging in takes a code."""
        made = (await self.send("POST", "/v1/me/totp", {"current_password": password}, **bearer)).json()
        self.secrets |= {made["secret"], made["uri"], made["qr_svg"]}
        code = TOTP(made["secret"]).now()
        codes = (await self.send("POST", "/v1/me/totp/confirm", {"code": code}, **bearer)).json()["recovery_codes"]
        self.secrets |= {*codes, *(code.replace("-", "") for code in codes)}
        proof = {"current_password": canary("x"), "code": codes[0]}
        await self.send("POST", "/v1/me/totp/remove", proof, **bearer)


def found_in(text: str, secrets: set[str]) -> list[str]:
    """Lines that hold a canary or a secret, cut short: a failing test must not print them all."""
    words = {MARK, *secrets, *(part for secret in secrets for part in secret.split(".") if len(part) > 20)}
    return [line[:300] for line in text.splitlines() if any(word in line for word in words)]
