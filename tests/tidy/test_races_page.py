"""docs/races.md names tests for each of the fourteen races; each of them exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "races.md").read_text(encoding="utf-8")
ROWS = {
    int(number): re.findall(r"`(tests/[a-z_/]+\.py)::(\w+)`", tests)
    for number, tests in re.findall(r"^\| (\d+) \|(.*)$", PAGE, re.MULTILINE)
}


def test_every_race_is_there() -> None:
    assert list(ROWS) == list(range(1, 15))


@pytest.mark.parametrize("number", ROWS)
def test_each_race_names_tests_that_exist(number: int) -> None:
    assert ROWS[number]
    for path, name in ROWS[number]:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (path, name)
