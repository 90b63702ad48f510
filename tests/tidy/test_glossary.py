"""The glossary is in order and defines no word twice."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")


def test_words_are_alphabetical_and_unique() -> None:
    table = PAGE.partition("\n## ")[0]
    words = [word.lower() for word in re.findall(r"^\| ([^|]+) \| [^|]+\. \|", table, re.MULTILINE)]
    assert len(words) > 50
    assert words == sorted(set(words))
