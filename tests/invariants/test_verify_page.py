"""docs/verify.md: its programs run as they stand there, on what the database exports."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bson.json_util import RELAXED_JSON_OPTIONS, dumps

from guerdon.calendar import first_of_month
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, MEMBER_STATES
from guerdon.database import Document
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.tiers.models import TIER_CHANGES
from guerdon.verification.checkpoint_file import Line, append_missing
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.verification.report import LAWS
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock
from tests.factories import Factory
from tests.invariants.full_ledger import KEYS, Shop, build
from tests.tier_fixtures import set_tiers
from tests.views.build import build_views

PAGE = (Path(__file__).parents[2] / "docs" / "verify.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def run(program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of the page by itself: isolated, so that it finds nothing of ours."""
    command = [sys.executable, "-I", "-c", program, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def exported(rows: list[Document]) -> str:
    """What `mongoexport` prints: one relaxed extended JSON document a line."""
    return "".join(dumps(row, json_options=RELAXED_JSON_OPTIONS) + "\n" for row in rows)


async def test_the_chain_program_checks_every_chain(service: Caller, services: Services, clock: ManualClock) -> None:
    shop, rng = Shop(service, services, clock), random.Random(20)
    await build(shop, rng)
    await shop.credit(await shop.wallet(), 5, reason='naïve – ☃😀 "quoted" \\ /', metadata={"z": "1", "a": "𝒂", "Z": ""})
    rows = [row async for row in services.database.raw[ENTRIES].find({}).sort("_id")]
    accounts = [row async for row in services.database.raw[ACCOUNTS].find({}).sort("_id")]
    program = PROGRAMS[0]
    assert len(program.splitlines()) <= 26
    assert set(re.findall(r"^import (.*)$", program, re.MULTILINE)) == {"base64, hashlib, json, sys"}
    whole = run(program, text=exported(rows))
    assert whole.stderr == ""
    expected = [f"{row['_id']} {row['seq']} {row['head'].hex()} {row['balance']}" for row in accounts if row["seq"]]
    assert whole.stdout.splitlines() == expected
    entries = [number for number, row in enumerate(rows) if "balance_after" in row]
    for number in rng.sample(entries, 8):
        changed = [{**row, "at": row["at"] + 1} if place == number else row for place, row in enumerate(rows)]
        broken = run(program, text=exported(changed))
        assert (broken.returncode, broken.stderr.split()[0]) == (1, rows[number]["_id"])


async def test_the_member_program_checks_every_chain_of_events(
    service: Caller, services: Services, clock: ManualClock, factory: Factory, tmp_path: Path
) -> None:
    await build(Shop(service, services, clock), random.Random(20))
    await set_tiers(service)
    for member in ("naïve-☃", "other"):
        body = factory.event(member={"external_id": member}, attributes={"note": '☃😀 "quoted" \\ /', "till": 2**53, "open": True})
        assert (await service.post("/v1/events", body)).status_code == 201
        voided = await service.post(f"/v1/events/{body['id']}/void", {"reason": "☃"}, key=None)
        assert voided.status_code == 200
    exports: dict[str, list[Document]] = {}
    for name in (MEMBER_STATES, EVENTS, TIER_CHANGES, EVENT_VOIDS):
        exports[name] = [row async for row in services.database.raw[name].find({})]

    def checked() -> subprocess.CompletedProcess[str]:
        files = [tmp_path / name for name in exports]
        for file in files:
            file.write_text(exported(exports[file.name]), encoding="utf-8")
        return run(PROGRAMS[1], *map(str, files))

    whole = checked()
    assert whole.stderr == ""
    states = exports[MEMBER_STATES]
    assert whole.stdout.splitlines() == [f"{row['_id']} {row['links']} {row['head']}" for row in states]
    assert (len(exports[TIER_CHANGES]) >= 1, len(exports[EVENT_VOIDS])) == (True, 2)
    events = exports[EVENTS]
    for number in range(len(events)):
        exports[EVENTS] = [{**row, "amount": row["amount"] + 1} if place == number else row for place, row in enumerate(events)]
        assert checked().returncode == 1
        exports[EVENTS] = events[:number] + events[number + 1 :]
        assert checked().returncode == 1


async def test_the_signature_program_checks_the_newest_checkpoint(
    service: Caller, services: Services, clock: ManualClock, tmp_path: Path
) -> None:
    shop = Shop(service, services, clock)
    await shop.wallet({"amount": 7})
    await shop.checkpoint()
    [row] = [dict(row) async for row in services.database.raw[CHECKPOINTS].find({})]
    keys, file = tmp_path / "keys.json", tmp_path / "checkpoints.jsonl"
    keys.write_text(KEYS.public_set())
    assert append_missing(file, [Line(row["_id"], row["jws"])]) is None
    assert 400 < file.stat().st_size < 700
    good = run(PROGRAMS[2], str(keys), str(file))
    said: dict[str, Any] = eval(good.stdout)  # noqa: S307 - what the page prints is a Python dictionary
    assert (said["number"], said["accounts"], said["entries"], said["previous"]) == (1, 1, 1, None)
    head, _, signature = row["jws"].split(".")
    other = row["jws"].split(".")[1][:-4] + "AAAA"
    file.write_text(json.dumps({"number": 1, "jws": f"{head}.{other}.{signature}"}) + "\n")
    bad = run(PROGRAMS[2], str(keys), str(file))
    assert (bad.returncode, "InvalidSignature" in bad.stderr) == (1, True)


async def test_the_digest_program_checks_a_closed_month(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    await factory.wallet(100)
    clock.advance(days=40)
    await build_views(services)
    month = first_of_month(services.ledger.calendar.local(clock.now_ms()).date(), -1).isoformat()[:7]
    answer = await service.post("/v1/closings", {"month": month})
    assert answer.status_code == 201, answer.text
    assert run(PROGRAMS[3], text=answer.text).stdout == f"holds {month} {answer.json()['sha256']}\n"
    changed = answer.text.replace('"closing":100', '"closing":101')
    assert run(PROGRAMS[3], text=changed).stdout.startswith("BROKEN")


@pytest.mark.parametrize("law", LAWS)
def test_every_law_has_a_row(law: str) -> None:
    assert len(re.findall(rf"^\| {law} \| \w", PAGE, re.MULTILINE)) == 1
