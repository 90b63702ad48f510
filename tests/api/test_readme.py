"""The five first requests of README.md, played as they stand there, with the answers that it shows."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from guerdon.cli.demo import ensure_demo
from guerdon.wiring.services import Services
from tests.clients import Caller

PAGE = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\*\*\d\. .*?^```sh\n(.*?)^```\n\n^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
STEPS_COUNT, LINES_MAX = 5, 150


def pattern(excerpt: str) -> str:
    """Return an expression for an answer. The page marks what it leaves out by an ellipsis; its line breaks are for the reader."""
    text = re.sub(r"\s*…\s*", "…", re.sub(r"\n\s*", "", excerpt.strip()))
    return ".*".join(map(re.escape, text.split("…")))


def test_readme_is_within_its_line_limit() -> None:
    assert len(PAGE.splitlines()) <= LINES_MAX


def test_each_make_command_has_its_own_code_block() -> None:
    """`make up` keeps the terminal; what stands below it in the same block would never run."""
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        assert "make" not in block or len(block.splitlines()) == 1, block


async def test_first_requests_return_the_documented_responses(services: Services, service: Caller, tmp_path: Path) -> None:
    await ensure_demo(services, tmp_path)
    member = ""
    assert len(STEPS) == STEPS_COUNT
    for command, excerpt in STEPS:
        request = command.rpartition("curl ")[2]
        path = re.search(r"\$API([^\s\"]+)", request)
        key = re.search(r"Idempotency-Key: ([^']+)'", request)
        body = re.search(r" -d '(.*?)'", request, re.DOTALL)
        assert path is not None
        if "$MEMBER" in path[1] and not member:
            [found] = (await service.get("/v1/members", external_id="shopper-7")).json()["items"]
            member = found["id"]
        target = urlsplit(path[1].replace("$MEMBER", member))
        if body is None:
            answer = await service.get(target.path, **dict(parse_qsl(target.query)))
        else:
            answer = await service.post(target.path, json.loads(body[1]), key=key and key[1])
        assert re.fullmatch(pattern(excerpt), answer.text), answer.text
