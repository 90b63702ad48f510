"""CONTRIBUTING.md names files that exist, and calls planned only what does not exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ELSEWHERE = ("src/", "tests/", "docs/", "tools/", "deploy/", "requirements/")
PLANNED = {"src/guerdon/webhooks/", "src/guerdon/console/"}
ROLES = {"models.py", "rules.py", "service.py", "controller.py"}
"""Files that are named by their role in any folder."""


def named() -> set[str]:
    """Return the paths on the page, from the root of the repository; those with a placeholder are left out."""
    words = re.findall(r"`([\w./-]+(?:\.py|\.md|\.toml|\.txt|\.json|/))`", PAGE)
    return {
        word if word.startswith(ELSEWHERE) or (ROOT / word).is_file() else f"src/guerdon/{word}"
        for word in words
        if word not in ROLES
    }


def test_every_named_file_exists() -> None:
    paths = named()
    assert len(paths) > 50
    assert sorted(path for path in paths - PLANNED if not (ROOT / path).exists()) == []


def test_planned_files_do_not_exist_yet() -> None:
    assert named() >= PLANNED, "a planned path is no longer on the page"
    assert sorted(path for path in PLANNED if (ROOT / path).exists()) == [], "write the recipe"
