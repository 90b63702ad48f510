"""NOSQL-2: how the source asks the database. Names of fields are literals, and nothing that the server would run as a program is sent."""

import ast
import re

from tests.tidy.test_source_rules import PRODUCT, name_of

PROGRAMS = re.compile(r"\$(?:where|function|accumulator|regex|expr)\b|mapReduce|map_reduce", re.IGNORECASE)
BUILT = {"'HTTP_{status}'"}
"""Keys of mappings that are built from parts: statuses of the OpenAPI document.
They are no names of fields, and no caller has a part in them. A new one is put here with its reason."""
READERS = {"request.params": "query.py", "request.stream": "body.py"}
"""What a caller sent is read in one place, which turns it into typed structs."""
TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in PRODUCT}


def nodes(kind: type[ast.AST]) -> list[tuple[str, ast.AST]]:
    return [(where, node) for where, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, kind)]


def test_no_server_side_code_is_sent_to_the_database() -> None:
    """Not even a regular expression: what is searched for is equal, or lies in a range."""
    texts = [(where, node.value) for where, node in nodes(ast.Constant) if isinstance(node.value, str)]
    assert len(texts) > 1000
    assert [(where, text[:60]) for where, text in texts if PROGRAMS.search(text)] == []


def test_source_evaluates_no_code() -> None:
    called = [(where, node.func.id) for where, node in nodes(ast.Call) if isinstance(node.func, ast.Name)]
    assert [each for each in called if each[1] in ("eval", "exec", "compile", "__import__")] == []


def test_field_names_are_literals() -> None:
    keys = [(where, key) for where, node in nodes(ast.Dict) for key in node.keys]
    keys += [(where, node.key) for where, node in nodes(ast.DictComp)]
    keys += [(where, node.slice) for where, node in nodes(ast.Subscript)]
    built = {ast.unparse(key).removeprefix("f") for _, key in keys if isinstance(key, (ast.JoinedStr, ast.BinOp)) and is_text(key)}
    assert built == BUILT


def is_text(key: ast.AST) -> bool:
    """Sums of numbers are places in lists."""
    return any(
        isinstance(node, (ast.JoinedStr, ast.Constant)) and isinstance(getattr(node, "value", ""), str) for node in ast.walk(key)
    )


def test_request_input_is_read_in_one_place() -> None:
    """Falcon would hand out JSON of any shape (`media`), and parameters one by one."""
    reads = {(where.rpartition("/")[2], ast.unparse(node)) for where, node in nodes(ast.Attribute)}
    raw = re.compile(r"(?:req|request)\.(?:media|get_media|get_param\w*|params|stream|bounded_stream|context\.body|cookies)$")
    assert {(place, text) for place, text in reads if raw.match(text)} == {(place, text) for text, place in READERS.items()}
