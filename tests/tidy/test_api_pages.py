"""The pages of the HTTP API name routes that exist, and are linked from the contents list."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
PATHS = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))["paths"]
ROUTES = {(method.upper(), path) for path, methods in PATHS.items() for method in methods}
_ROUTE = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) (/[\w/{}.-]*[\w}])(?=[`? \n])")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_route_on_a_page_exists(page: Path) -> None:
    named = set(_ROUTE.findall(" ".join(page.read_text(encoding="utf-8").split())))
    assert sorted(named - ROUTES) == []


def test_the_contents_list_has_every_page() -> None:
    contents = (ROOT / "docs" / "api" / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert set(re.findall(r"\((\w[\w-]*\.md)\)", contents)) == {page.name for page in PAGES} - {"README.md"}
