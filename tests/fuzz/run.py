"""Runs Schemathesis over the whole document of a running application, as somebody."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery"
SPARE, SPARE_MEMBERS = 40, 120
"""So many people: some are disabled or erased, or lose their role or password, by what is called. Members erase themselves as well."""
FURNISHED = 8
"""Number of people with a wallet, a hold, a voucher, a campaign and an offer of their own: many calls end what they are made on."""
SECONDS_BETWEEN_ENTRIES = 0.2
DICTIONARIES = {
    "wallets": [
        "path.wallet_id",
        "body.wallet",
        "body.from",
        "body.to",
        "body.commands[*].wallet",
        "body.commands[*].to",
        "body.postings[*].wallet",
    ],
    "members": ["path.member_id", "body.member_id", "body.member.id"],
    "holds": ["path.hold_id"],
    "transactions": ["path.transaction_id"],
    "events": ["path.event_id"],
    "campaigns": ["path.campaign_id"],
    "offers": ["path.offer_id"],
    "batches": ["path.batch_id"],
    "sessions": ["path.session_id"],
    "keys": ["path.key_id"],
    "months": ["path.month"],
    "rates": ["path.pair"],
    "pages": ["path.name"],
    "codes": ["path.code"],
    "references": ["query.reference", "query.external_id"],
    "refresh_tokens": ["body.refresh_token"],
    "passwords": ["body.current_password"],
    "amounts": ["body.amount", "body.commands[*].amount"],
}
"""What exists, and where it is tried: a fuzzer that knows no id gets 404 for everything."""
PROBABILITY, OF_PASSWORDS = 0.7, 0.15
"""How often it is tried. Who knows a password ends themselves: they change it, or are erased."""


class Fuzzed(NamedTuple):
    """How a run ended."""

    status: int
    out: str
    answers: dict[str, dict[str, int]]
    excused: dict[str, int]
    log_ins: int
    refused: int
    """401 for the token of whoever calls; tokens that are made up, or left out, are not counted here."""

    @property
    def cases(self) -> int:
        return sum(sum(answer.values()) for answer in self.answers.values())

    def cases_of(self, status: str) -> int:
        """How many were answered with this status, or one that begins so."""
        return sum(count for answer in self.answers.values() for each, count in answer.items() if each.startswith(status))

    def never_good(self) -> set[str]:
        return {name for name, answer in self.answers.items() if not any(status.startswith("2") for status in answer)}


class Stage:
    """People of one role, and one of everything that a path or a body could name, made through the API with a service key."""

    def __init__(self, client: httpx.AsyncClient, key: str) -> None:
        self._client = client
        self._headers = {"authorization": f"Bearer {key}"}
        self._number = 0
        self.known: dict[str, list[Any]] = {
            "months": ["2026-11", "2026-01"],
            "rates": ["PTS-GBP", "GBP-PTS"],
            "pages": ["swagger-ui.css", "index.css"],
            "codes": ["validation", "not-found"],
            "references": ["order-1001", "17850"],
            "refresh_tokens": [],
            "sessions": [],
            "passwords": [PASSWORD],
            "amounts": [1, 5, 100],
        }

    async def people(self, role: str) -> list[str]:
        """Addresses of so many people of the role, with their wallets among what is known."""
        found: list[str] = []
        for _ in range(SPARE_MEMBERS if role == "member" else SPARE):
            self._number += 1
            email = f"{role}-{self._number}@example.com"
            member = (await self._post("/v1/auth/register", {"email": email, "password": PASSWORD}))["id"]
            if role != "member":
                answer = await self._client.put(f"/v1/members/{member}/role", json={"role": role}, headers=self._headers)
                assert answer.status_code == 200, answer.text
            found.append(email)
            session = await self._post("/v1/auth/login", {"email": email, "password": PASSWORD})
            self.known["refresh_tokens"].append(session["refresh_token"])
            self.known["sessions"].append(session["session_id"])
            if len(found) <= FURNISHED:
                await self._furnish(member)
        await self._finish(member)
        return found

    async def _finish(self, member: str) -> None:
        """What can only be done to something in a certain state: an empty wallet, a campaign that runs, somebody who was erased."""
        for amount in ("credit", "debit"):
            await self._post(f"/v1/wallets/{member}:PTS/{amount}", {"amount": 1})
        for campaign in self.known["campaigns"][: FURNISHED // 2]:
            await self._post(f"/v1/campaigns/{campaign}/activate", {})
        for pair in self.known["rates"]:
            answer = await self._client.put(f"/v1/rates/{pair}", json={"from_amount": 1, "to_amount": 1}, headers=self._headers)
            assert answer.status_code in (200, 201), answer.text
        gone = (await self._post("/v1/members", {"external_id": "gone"}))["id"]
        await self._post(f"/v1/members/{gone}/erase", {})
        self.known["wallets"].append(f"{member}:PTS")
        self.known["members"].append(gone)
        self.known["offers"].append((await self._post("/v1/offers", EXTERNAL_OFFER))["id"])

    async def _furnish(self, member: str) -> None:
        wallet = f"{member}:PTS"
        number = self._number
        for kind, thing in {
            "transactions": (await self._post(f"/v1/wallets/{wallet}/credit", {"amount": 10**9, "reference": "order-1001"}))["id"],
            "holds": (await self._post("/v1/holds", {"wallet": wallet, "amount": 1000}))["id"],
            "events": (await self._post("/v1/events", _event(f"fuzzed-{number}", member)))["id"],
            "campaigns": (await self._post("/v1/campaigns", CAMPAIGN))["id"],
            "offers": (offer := (await self._post("/v1/offers", PERCENT_OFFER if "offers" in self.known else FIXED_OFFER))["id"]),
            "codes": await self._voucher_code(offer, member),
            "batches": (await self._post(f"/v1/offers/{offer}/codes", {"count": 10}))["id"],
            "keys": (await self._post("/v1/keys", {"name": "fuzzed", "scopes": ["wallets:read"]}))["id"],
            "members": member,
            "wallets": wallet,
        }.items():
            self.known.setdefault(kind, []).append(thing)

    async def _voucher_code(self, offer: str, member: str) -> str:
        await self._post(f"/v1/offers/{offer}/activate", {})
        return str((await self._post(f"/v1/offers/{offer}/redeem", {"member_id": member}))["voucher"]["code"])

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self._number += 1
        answer = await self._client.post(path, json=body, headers={**self._headers, "idempotency-key": f"stage-{self._number}"})
        assert answer.status_code in (200, 201, 202), (path, answer.text)
        return dict(answer.json())

    async def pulse(self) -> None:
        """New entries of the known wallets until cancelled, so that somebody who follows one has something to read."""
        while True:
            for wallet in self.known["wallets"][:2]:
                self._number += 1
                headers = {**self._headers, "idempotency-key": f"pulse-{self._number}"}
                with suppress(httpx.HTTPError):  # The wallet may be frozen or closed by now.
                    await self._client.post(f"/v1/wallets/{wallet}/credit", json={"amount": 1}, headers=headers)
            await asyncio.sleep(SECONDS_BETWEEN_ENTRIES)


CAMPAIGN = {
    "name": "1 point per pound", "asset": "PTS", "event_types": ["purchase", "refund"],
    "award": {"type": "per_amount", "points": 1, "per": 100, "rounding": "floor"},
}  # fmt: skip

FIXED_OFFER = {"name": "5 pounds off", "kind": "discount", "value": {"type": "fixed", "amount": 500, "currency": "GBP"}}
PERCENT_OFFER = {"name": "5 percent off", "kind": "discount", "value": {"type": "percent", "percent": "5"}}
"""A use of its vouchers needs the amount of the basket."""

EXTERNAL_OFFER = {"name": "cinema codes", "kind": "external_code"}
"""Takes imported codes."""


def _event(name: str, member: str) -> dict[str, Any]:
    return {
        "id": name, "type": "purchase", "member": {"id": member}, "occurred_at": "2026-01-31T12:00:00Z", "amount": 13912, "currency": "GBP",
    }  # fmt: skip


async def fuzz(folder: Path, url: str, people: Sequence[str], known: Mapping[str, list[Any]], *options: str) -> Fuzzed:
    """Run `schemathesis run` with `options` to its end."""
    plan, report = folder / "plan.json", folder / "report.json"
    contents = {"url": url, "people": list(people), "password": PASSWORD, "report": str(report), "examples": examples(known)}
    plan.write_text(json.dumps(contents))
    (folder / "schemathesis.toml").write_text(config(known))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "--config-file", str(folder / "schemathesis.toml"), "run", f"{url}/openapi.json", "--no-color", *options,
        cwd=folder, env={**os.environ, "FUZZ_PLAN": str(plan), "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        out, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    text = out.decode()
    assert report.exists(), text
    return Fuzzed(process.returncode, text, **json.loads(report.read_text()))


def examples(known: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return an existing id for each path parameter: the examples of the document name nothing that exists here.

    The first session belongs to the first person who calls, the first codes are those of problem pages, and the second of everything else belongs to the
    second person.
    """
    places = [
        (place.partition(".")[2], name) for name, paths in DICTIONARIES.items() for place in paths if place.startswith("path.")
    ]
    index = {"sessions": 0, "codes": -1}
    return {parameter: known[name][min(index.get(name, 1), len(known[name]) - 1)] for parameter, name in places}


def config(known: Mapping[str, list[Any]]) -> str:
    """JSON texts and lists are TOML too."""
    lines = ["request-timeout = 20", "max-stream-events = 1", "continue-on-failure = true", "", "[dictionaries]"]
    lines += [f"{name} = {{ values = {json.dumps(known[name])} }}" for name in DICTIONARIES]
    lines += ["", "[parameters]"]
    lines += [
        f'"{place}" = {{ dictionary = "{name}", probability = {OF_PASSWORDS if name == "passwords" else PROBABILITY} }}'
        for name, places in DICTIONARIES.items()
        for place in places
    ]
    return "\n".join([*lines, "", "[generation]", 'database = "none"', "", "[auth]", "auto-signup = false", ""])
