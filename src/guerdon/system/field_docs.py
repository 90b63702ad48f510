"""Docstrings of struct fields: the text below a field in its class becomes the description of the property."""

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise

from msgspec import Struct

from guerdon.http.dry_run import DESCRIPTION, FLAG, usual_of


@cache
def field_docs(struct: type[Struct]) -> dict[str, str]:
    """Return the docstring of each documented field by its name in JSON. A subclass inherits docstrings and may replace them."""
    usual = usual_of(struct)
    if usual is not struct:
        names = struct.__struct_encode_fields__
        return {FLAG: DESCRIPTION} | {name: text for name, text in field_docs(usual).items() if name in names}
    found: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if kind.__module__.partition(".")[0] == "guerdon":
            found |= _docs_by_class(kind.__module__).get(kind.__qualname__, {})
    names = dict(zip(struct.__struct_fields__, struct.__struct_encode_fields__, strict=True))
    return {names[name]: text for name, text in found.items() if name in names}


@cache
def _docs_by_class(module: str) -> dict[str, dict[str, str]]:
    """Read the docstrings of all fields of the classes at the top of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _docs_of(node.body) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docs_of(body: list[ast.stmt]) -> dict[str, str]:
    return {
        field.target.id: inspect.cleandoc(text.value.value).replace("\n", " ")
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
