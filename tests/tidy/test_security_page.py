"""docs/security.md names tests; each of them exists, and every risk of the list is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[a-z_/]+\.py)(?:::(\w+))?`", PAGE)))


def test_every_risk_has_a_row_and_a_mechanism() -> None:
    risks = re.findall(r"^\| (API\d+) ", PAGE, re.MULTILINE)
    assert risks == [f"API{number}" for number in range(1, 11)]
    assert len(NAMED) > 50


ITEMS = re.findall(r"^\| (\d+\.\d+\.\d+[^|]*) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)


def test_every_item_names_its_evidence() -> None:
    """A row of ASVS without a test or a file that exists is an opinion."""
    assert len(ITEMS) > 50
    assert {state for _, state, _ in ITEMS} == {"met", "partly", "not met", "not applicable"}
    for item, _, text in ITEMS:
        named = re.findall(r"`((?:tests|src|deploy|docs)/[\w/.-]+|README\.md)(?:::\w+)?`", text)
        assert named, item
        assert [path for path in named if not (ROOT / path).is_file()] == [], item


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)
