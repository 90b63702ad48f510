"""Every page that the code prints is committed as the code is now."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tidy.pages import PAGES


@pytest.mark.parametrize(("path", "current"), PAGES.items(), ids=lambda part: part.name if isinstance(part, Path) else "")
def test_the_committed_page_is_what_the_code_says(path: Path, current: Callable[[], str]) -> None:
    assert path.is_file(), "run `make docs`"
    assert path.read_text(encoding="utf-8") == current(), "run `make docs`"
