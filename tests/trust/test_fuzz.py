"""FUZZ-1: Schemathesis over every operation of the document, with all of its checks, as everybody; the books balance afterwards.

`FUZZ_SEED` and `FUZZ_EXAMPLES` choose another run.
"""

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.fuzz.run import Fuzzed, Stage, fuzz
from tests.trust.deployment import Deployment
from tests.trust.figures import record
from tests.trust.load import report

EXAMPLES = {"admin": 100, "operator": 50, "member": 50, "nobody": 20}
REFUSED_MAX = 0.05
"""So many calls may come with a token that something called before has ended."""
SETTINGS = {"GUERDON_RATE_LIMIT": "off", "GUERDON_METRICS": "key"}
"""Everybody calls from here, which would be held up for that alone (quotas have tests of their own); and no route is only sometimes there."""
UNREACHED_SHARE = 8
"""All but an eighth of the operations are done by an admin in a full run. Some take a token from a letter or a code of an authenticator, and nobody who
works here is erased."""
OF_THOSE_WHO_WORK_HERE = {"createKey", "listKeys", "listAudit", "setRole"}
pytestmark = [pytest.mark.trust, pytest.mark.timeout(3600)]


async def fuzzed(deployment: Deployment, folder: Path, role: str, *options: str) -> Fuzzed:
    made = await deployment.command("keys", "create", "--name", "stage", "--scopes", "*")
    async with httpx.AsyncClient(base_url=deployment.url, timeout=20) as client:
        stage = Stage(client, made.out.splitlines()[-1])
        people = await stage.people("member" if role == "nobody" else role)
        pulse = asyncio.create_task(stage.pulse())
        try:
            return await fuzz(folder, deployment.url, [] if role == "nobody" else people, stage.known, *options)
        finally:
            pulse.cancel()
            with suppress(asyncio.CancelledError):
                await pulse


@pytest.mark.parametrize("role", EXAMPLES)
async def test_every_operation_conforms_to_the_document(tmp_path: Path, role: str) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))
    examples = int(os.environ.get("FUZZ_EXAMPLES") or EXAMPLES[role])
    deployment = Deployment(tmp_path / "data", workers=2, settings=SETTINGS)
    await deployment.start()
    try:
        run = await fuzzed(deployment, tmp_path, role, "--seed", str(seed), "--max-examples", str(examples), "--workers", "1")
        verified = await deployment.command("verify")
        assert verified.status == 0, verified.out
        record(f"FUZZ-1 {role}: 5xx answers", f"{run.cases_of('5')} of {run.cases}", 0)
        record(f"FUZZ-1 {role}: operations with a 2xx answer", f"{len(run.answers) - len(run.never_good())} of {len(run.answers)}")
        assert not run.cases_of("5"), run.answers
        assert run.status == 0, run.out
        if role == "admin" and examples >= EXAMPLES[role]:
            assert len(run.never_good()) <= len(run.answers) / UNREACHED_SHARE, {
                name: run.answers[name] for name in run.never_good()
            }
        if role != "admin":
            assert run.never_good() >= OF_THOSE_WHO_WORK_HERE
        if role != "nobody":
            assert run.refused < REFUSED_MAX * run.cases
        report(
            f"FUZZ-1 {role}", seed, operations=len(run.answers), cases=run.cases, good=run.cases_of("2"), log_ins=run.log_ins, refused=run.refused,
            never_good=sorted(run.never_good()), excused=run.excused, verify=verified.out.splitlines()[0],
        )  # fmt: skip
    finally:
        await deployment.stopped()
