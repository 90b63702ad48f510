"""Docstrings, comments, error texts and pages keep to the word list; no class name has two meanings."""

import ast
from collections import defaultdict
from pathlib import Path

from tests.tidy.words import PAGES, ROOT, SOURCES, findings_in, findings_in_page

NAMES = {
    "judge", "judgement", "judgements", "verdict", "verdicts", "settle", "settled", "blame", "showcase", "bearers", "whatif",
    "behind_the_door", "calm_collector", "desk", "recall", "standing", "standings", "hindrance", "worth", "till", "besides", "wish",
}  # fmt: skip
"""Words of the glossary's left column that are not names in code any more: see docs/glossary.md for the right ones."""


WIRE_FIELDS = {("src/guerdon/privacy/models.py", "standing")}
"""Public names that stay as they are."""


def test_texts_keep_to_the_word_list() -> None:
    found = [each for path in SOURCES for each in findings_in(path)] + [each for path in PAGES for each in findings_in_page(path)]
    assert not found, "\n".join(f"{each.file}:{each.line}: {each.found!r}; write: {each.write}" for each in found)


def test_names_keep_to_the_glossary() -> None:
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {
                ast.Name: lambda each: each.id,
                ast.arg: lambda each: each.arg,
                ast.Attribute: lambda each: each.attr,
                ast.FunctionDef: lambda each: each.name,
                ast.AsyncFunctionDef: lambda each: each.name,
                ast.ClassDef: lambda each: each.name,
            }
            find = names.get(type(node))
            name = "" if find is None else find(node).lstrip("_").lower()
            if name in NAMES and (str(path.relative_to(ROOT)), name) not in WIRE_FIELDS:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found, "\n".join(sorted(set(found)))


def test_no_class_name_is_defined_twice() -> None:
    places: defaultdict[str, set[Path]] = defaultdict(set)
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(path.relative_to(ROOT))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
