"""The word list of the house: what docstrings, comments, error texts and names do not say, and what to write instead."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SOURCES = sorted((*(ROOT / "src").rglob("*.py"), *(ROOT / "tools").rglob("*.py")))
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
FORMER_WORDS = "## Replaced words"

WORDS = {
    r"laps(?:e|es|ed|ing)": "expire, expires, expired",
    r"for ever": "permanently",
    r"anew": "again",
    r"(?-i:is none)\b": "does not exist, None",
    r"who(?:m)?ever|what(?:so)?ever": "the caller, the value; or: regardless of",
    r"somebody|nobody|everybody": "a member, no member, every caller",
    r"people who work here|who works here": "staff",
    r"judge(?:s|d|ment|ments)?|judging": "evaluate, evaluation",
    r"verdicts?": "allocation, outcome, result",
    r"so (?:many|much|long) (?:of|characters|months|days|keys|times|later|seconds|commands)": "N, a number of, `name`",
    r"lies beside|beside each other": "next to, together",
    r"desk|heart|door|riddle": "the field's own term",
    r"standing": "member state, status",
    r"has come by|come by yet": "has been read",
    r"as it were|so to speak": "(leave it out)",
    r"be said of|says of|what is said": "states, describes",
    r"tells (?:who|what|which|whether)": "returns, states",
}
"""Pattern of a word or phrase, and its replacement."""
OPENINGS = re.compile(r"(?:What|How|Whether|Who|Whom|Whose|Say|Says|So|Where|Why|Tell|Tells)\b")
"""First words that a docstring does not have: it begins with a verb or a noun."""
ALLOWED: dict[tuple[str, str], str] = {
    ("docs/operations.md", "standing"): "the member of an export, in the table of personal data",
}
"""File and text that a pattern matches although it is right, and the reason."""
_WORDS = re.compile("|".join(rf"(?P<w{index}>\b(?:{pattern})\b)" for index, pattern in enumerate(WORDS)), re.IGNORECASE)
_REPLACEMENTS = list(WORDS.values())
_QUOTED = re.compile(r"`[^`]*`")


class Finding(NamedTuple):
    """A place where the list is broken."""

    file: str
    line: int
    found: str
    write: str


def docstrings_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every docstring, attribute docstrings included."""
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value


def comments_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type", "# fmt", "# pyright")):
            yield token.start[0], token.string.lstrip("# ")


def error_texts_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the constant parts of every text that an error is raised with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for part in ast.walk(node.exc):
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value:
                    yield part.lineno, part.value


def findings_in_page(path: Path) -> list[Finding]:
    """Return every break of the word list in the prose of a page. Code and the glossary's table of former words are left out."""
    name = str(path.relative_to(ROOT))
    text = re.sub(r"```.*?```", lambda match: "\n" * match[0].count("\n"), path.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = text.split(FORMER_WORDS)[0].splitlines()
    return [
        Finding(name, number, match[0], _REPLACEMENTS[int(str(match.lastgroup)[1:])])
        for number, line in enumerate(lines, start=1)
        for match in _WORDS.finditer(_QUOTED.sub("``", line))
        if (name, match[0]) not in ALLOWED
    ]


def findings_in(path: Path) -> list[Finding]:
    """Return every break of the word list in one file."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    name = str(path.relative_to(ROOT))
    docstrings = list(docstrings_of(tree))
    found = [
        Finding(name, line, text.split("\n")[0][:60], "a verb or a noun first") for line, text in docstrings if OPENINGS.match(text)
    ]
    for line, text in [*docstrings, *comments_of(source), *error_texts_of(tree)]:
        for match in _WORDS.finditer(_QUOTED.sub("``", text)):
            if (name, match[0]) not in ALLOWED:
                write = _REPLACEMENTS[int(str(match.lastgroup)[1:])]
                at = line + text[: match.start()].count("\n")
                found.append(Finding(name, at, match[0], write))
    return found
