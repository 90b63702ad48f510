"""Every page that the code prints is committed as the code is now."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tidy.pages import PAGES


@pytest.mark.parametrize(("path", "current"), PAGES.items(), ids=lambda part: part.name if isinstance(part, Path) else "")
def test_committed_page_matches_the_code(path: Path, current: Callable[[], str]) -> None:
    assert path.is_file(), "run `make docs`"
    assert path.read_text(encoding="utf-8") == current(), "run `make docs`"
