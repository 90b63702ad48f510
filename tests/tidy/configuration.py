"""Prints docs/configuration.md from the settings class: `make docs`.

A comment `# --- Title` in the class begins a section, and the text below a field is its meaning.
"""

import ast
import inspect
import re
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le, MaxLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from guerdon import config
from guerdon.config import Settings

PATH = Path(__file__).parents[2] / "docs" / "configuration.md"
INTERNAL = {"token_keys_file"}
"""Fields that are filled in by loading and are not set by a variable of their own."""
_QUOTA = config._QUOTA
_HEAD = """# Configuration

`make docs` writes this page from `src/guerdon/config.py`.

Settings are read from environment variables when a process starts. Each variable can instead be given as `…_FILE`, the name of a file
that holds the value; use this for secrets. Setting both is refused. A value outside of its bounds is refused with exit code 2, and the
message names the variable. Unknown variables are ignored.

A *rate* is a number of requests and a number of seconds, such as `600/60`. What each rate limit counts is described in
[operations.md](operations.md#quotas), what production requires of secrets in [operations.md](operations.md#secrets).
"""


def _type(field: FieldInfo) -> str:
    """Return the type and the bounds of a setting in words."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind: Any = kinds[0] if kinds and NoneType in get_args(field.annotation) else field.annotation
    limits = {type(each): each for each in field.metadata}
    pattern = next((each.pattern for each in field.metadata if getattr(each, "pattern", None)), None)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    if kind is int:
        return f"integer, {limits[Ge].ge:,} to {limits[Le].le:,}"
    if kind is SecretStr:
        return "secret"
    if kind is Path:
        return "path"
    if kind is not str:
        raise TypeError(f"describe {kind} here")
    if pattern == _QUOTA:
        return "rate"
    if pattern is not None:
        return f"text, `{pattern}`"
    return f"text, at most {limits[MaxLen].max_length:,} characters" if MaxLen in limits else "text"


def _default(field: FieldInfo) -> str:
    if field.default is None or field.default == "":
        return "not set"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _meanings(tree: ast.ClassDef) -> dict[str, tuple[int, str]]:
    """Return the line and the text below each field, by field."""
    found: dict[str, tuple[int, str]] = {}
    for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = following.value.value if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) else ""
            found[statement.target.id] = (statement.lineno, " ".join(str(text).split()))
    return found


def current() -> str:
    """Return the page as the code is now.

    Raises:
        ValueError: a setting has no meaning below it, or stands before the first section.
    """
    source = inspect.getsource(Settings)
    meanings = _meanings(next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)))
    sections = [
        (number, match[1]) for number, line in enumerate(source.splitlines(), 1) if (match := re.match(r" +# --- (.+)$", line))
    ]
    page, begun = [_HEAD], ""
    for name, field in Settings.model_fields.items():
        if name in INTERNAL:
            continue
        line, meaning = meanings[name]
        section = next((title for number, title in reversed(sections) if number < line), None)
        if not meaning or section is None:
            raise ValueError(f"Settings.{name} needs a text below it and a section above it")
        if section != begun:
            page.append(f"\n## {section}\n\n| variable | type | default | meaning |\n|---|---|---|---|\n")
            begun = section
        cells = (f"`GUERDON_{name.upper()}`", _type(field), _default(field), meaning)
        page.append(f"| {' | '.join(cells)} |\n")
    return "".join(page)


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
