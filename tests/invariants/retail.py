"""Online Retail for tests: the real file, the oracle that knows its answer, and the command that replays it."""

import asyncio
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guerdon.config import Settings
from guerdon.ledger.store import ACCOUNTS
from guerdon.wiring.services import Services

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("RETAIL_DATA") or ROOT.parent / "shared" / "data")
"""The folder with the real file and the oracle; the environment variable `RETAIL_DATA` names another one."""
FILE, ORACLE = DATA / "online_retail.csv.gz", DATA / "oracle.py"
REPLAY_SECONDS = 600


def require_data() -> Path:
    """The real file; a check without it proves nothing, so it must fail."""
    missing = [str(path) for path in (FILE, ORACLE) if not path.is_file()]
    assert not missing, f"the real data is missing, so nothing was checked: {', '.join(missing)}"
    return FILE


def head(lines: int) -> list[str]:
    """The header and the first so many lines of the real file, with their ends; without it, as many that look like them."""
    if not FILE.is_file():
        return made_up(lines)
    with gzip.open(require_data(), "rt", encoding="utf-8", newline="") as file:
        return [next(file) for _ in range(lines + 1)]


def made_up(lines: int) -> list[str]:
    """Lines of the file's form, from a seed: they begin with the same seven-line invoice, and some have no customer."""
    chance = random.Random(536_365)
    text = ["InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"]
    number = 536_365
    while len(text) <= lines:
        customer = "17850.0" if number == 536_365 else chance.choice(["", f"{chance.randrange(12_346, 18_288)}.0"])
        refund = "C" if number > 536_366 and chance.random() < 0.2 else ""
        for _ in range(7 if number == 536_365 else chance.randint(1, 9)):
            sign, price = "-" if refund else "", f"{chance.randint(1, 3000) / 100:.2f}"
            text.append(
                f"{refund}{number},{chance.randint(10_000, 90_000)}A,GOODS WITH NAMES,{sign}{chance.randint(1, 20)},"
                f"2010-12-01 08:{(number - 536_365) % 60:02d}:00,{price},{customer},United Kingdom\n"
            )
        number += 1
    return text[: lines + 1]


def write_csv(path: Path, lines: list[str]) -> Path:
    path.write_bytes(gzip.compress("".join(lines).encode("utf-8", "surrogateescape"), mtime=0))
    return path


def ask_oracle(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Points by customer, and the oracle's summary."""
    result = subprocess.run([sys.executable, str(ORACLE), str(path)], capture_output=True, text=True, check=True, timeout=300)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return {row["customer"]: row["points"] for row in rows[:-1]}, rows[-1]


def environment(**more: str) -> dict[str, str]:
    """What a `guerdon` process of a test is started with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUERDON_")}
    return {**kept, **more}


@dataclass(frozen=True)
class Run:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return summary


async def guerdon(*arguments: str, seconds: float = REPLAY_SECONDS, **more: str) -> Run:
    """Run a `guerdon` command to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "guerdon", *arguments,
        env=environment(**more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Run(process.returncode, out.decode(), err.decode())


async def replay_killed(settings: Settings, errors: Path, has_enough: Callable[[], Awaitable[bool]], *arguments: str) -> None:
    """Start a replay and kill it with -9 as soon as it has recorded enough. What it wrote to standard error is in `errors`."""
    with errors.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "guerdon", "replay", str(require_data()), *arguments, "--json",
            env=environment(**places(settings)), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
        )  # fmt: skip
    try:
        async with asyncio.timeout(REPLAY_SECONDS):
            while process.returncode is None:
                if await has_enough():
                    break
                await asyncio.sleep(0.05)
    finally:
        if process.returncode is None:
            process.kill()
        status = await process.wait()
    assert status == -signal.SIGKILL, await asyncio.to_thread(errors.read_text)


def places(settings: Settings) -> dict[str, str]:
    """The database of a test and what it is sealed with, for a process of its own."""
    assert settings.mongodb_url is not None
    assert settings.master_keys is not None
    return {
        "GUERDON_MONGODB_URL": settings.mongodb_url.get_secret_value(),
        "GUERDON_MONGODB_DATABASE": settings.mongodb_database,
        "GUERDON_MASTER_KEYS": settings.master_keys.get_secret_value(),
    }


@dataclass(frozen=True)
class People:
    """Customers by the ids of their members, and what each of them has."""

    names: dict[str, str]
    points: dict[str, int]


async def points_of_asset(services: Services, asset: str) -> People:
    """What customers have of one asset, as the ledger has it. Who never earned has no wallet yet."""
    names: dict[str, str] = {}
    page, following = await services.members.find_people(None, 100)
    while True:
        names.update({person.id: str(person.profile.external_id) for person in page})
        if following is None:
            break
        page, following = await services.members.find_people(None, 100, following)
    points = dict.fromkeys(names.values(), 0)
    async for row in services.database.raw[ACCOUNTS].find({"asset": asset}):
        points[names[row["owner"]]] = row["balance"]
    return People(names, points)


async def points_of(services: Services) -> dict[str, int]:
    """Points by customer."""
    return (await points_of_asset(services, "PTS")).points


async def heads_of(services: Services) -> dict[str, tuple[int, bytes]]:
    """Seq and head of every account: equal heads are equal histories."""
    return {row["_id"]: (row["seq"], row["head"]) async for row in services.database.raw[ACCOUNTS].find({})}
