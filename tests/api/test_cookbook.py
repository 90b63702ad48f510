"""The campaigns of `docs/campaigns.md`, played as they stand on the page."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.clients import Caller
from tests.factories import Factory

PAGE = (Path(__file__).parents[2] / "docs/campaigns.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"^## (\d+\. .+)\n((?:(?!^## ).*\n?)*)", PAGE, re.MULTILINE)
BLOCK = re.compile(r"```json (campaign|play)\n(.*?)```", re.DOTALL)
TIERS = {"asset": "PTS", "window": {"type": "rolling", "months": 12}, "tiers": [{"code": "gold", "name": "Gold", "points": 1000}]}
RECIPES_COUNT = 16


def blocks(text: str, kind: str) -> list[Any]:
    return [json.loads(body) for found, body in BLOCK.findall(text) if found == kind]


def test_cookbook_page_has_all_recipes() -> None:
    assert len(RECIPES) == RECIPES_COUNT
    for title, text in RECIPES:
        assert blocks(text, "campaign"), title
        earned = [step["earns"] for [play] in [blocks(text, "play")] for step in play if "earns" in step]
        assert any(amount > 0 for amount in earned), f"{title}: an event that earns"
        assert 0 in earned, f"{title}: an event that does not"


@pytest.mark.parametrize(("title", "text"), RECIPES, ids=[title for title, _ in RECIPES])
async def test_recipe_pays_what_the_page_states(service: Caller, factory: Factory, title: str, text: str) -> None:
    attributes = {"birthday": "1990-03-14"} if "Birthday" in title else {}
    members = {"ada": attributes, "bob": {}}
    ids = {
        name: (await service.post("/v1/members", {"external_id": name, "email": None, "attributes": known})).json()["id"]
        for name, known in members.items()
    }
    assert (await service.put("/v1/tiers", TIERS)).status_code == 200
    for campaign in blocks(text, "campaign"):
        answer = await service.post("/v1/campaigns", campaign)
        assert answer.status_code == 201, answer.text
        assert (await service.post(f"/v1/campaigns/{answer.json()['id']}/activate")).status_code == 200
    [play] = blocks(text, "play")
    for step in play:
        if "refer" in step:
            code = (await service.get(f"/v1/members/{ids[step['by']]}/referral")).json()["code"]
            answer = await service.post(f"/v1/members/{ids[step['refer']]}/referral", {"code": code}, key=None)
            assert answer.status_code == 201, answer.text
            continue
        money = {"currency": "GBP"} if "amount" in step["event"] else {}
        event = {"member": {"external_id": "ada"}, **money, **step["event"]}
        preview = (await service.post("/v1/events/preview", event, key=None)).json()
        answer = await service.post("/v1/events", event, key=None)
        assert answer.status_code == 201, answer.text
        assert sum(award["amount"] for award in answer.json()["awards"]) == step["earns"], (event, answer.json()["decisions"])
        assert sum(release["amount"] for release in answer.json()["releases"]) == step.get("releases", 0)
        assert preview["decisions"] == answer.json()["decisions"]
    await factory.assert_books_balance()
