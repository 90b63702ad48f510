"""The house rules that a machine can check: sizes, one source of time and ids, no addresses and no machine paths."""

import ast
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX, FUNCTION_LINES_MAX, POSITIONAL_MAX, HANDLER_LINES_MAX = 500, 70, 5, 15
SOURCES = sorted(path for folder in ("src", "tests", "bench", "tools") for path in (ROOT / folder).rglob("*.py"))
PRODUCT = sorted((ROOT / "src").rglob("*.py"))
CONTROLLERS = sorted((ROOT / "src").rglob("*controller.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
CLOCK = re.compile(r"datetime\.now|datetime\.utcnow|time\.time\b|time\.time_ns|time\.monotonic|(?<!\")\buuid\b")
RANDOMNESS = re.compile(r"urandom|import secrets")


class FunctionFacts(NamedTuple):
    """A function's name and sizes."""

    file: str
    name: str
    lines: int
    body_lines: int
    """Lines after the signature and the docstring."""
    positional: tuple[str, ...]


class Facts(NamedTuple):
    """What the rules ask about a file. The syntax trees of all files together would not be worth keeping."""

    file: str
    lines_without_imports: int
    functions: tuple[FunctionFacts, ...]
    catches: bool
    """True when it has a `try`."""


@cache
def facts_of(path: Path) -> Facts:
    text = path.read_text(encoding="utf-8")
    imports: set[int] = set()
    functions: list[FunctionFacts] = []
    catches = False
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, Function):
            functions.append(function_facts(name_of(path), node))
        elif isinstance(node, ast.Try):
            catches = True
    return Facts(name_of(path), len(text.splitlines()) - len(imports), tuple(functions), catches)


def function_facts(file: str, function: Function) -> FunctionFacts:
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    end = function.end_lineno or 0
    arguments = (*function.args.posonlyargs, *function.args.args)
    positional = tuple(each.arg for each in arguments if each.arg not in ("self", "cls"))
    return FunctionFacts(file, function.name, end - function.lineno + 1, end - first.lineno + 1, positional)


def functions_of(paths: Iterable[Path]) -> list[FunctionFacts]:
    return [each for path in paths for each in facts_of(path).functions]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_file_has_at_most_500_lines_without_imports() -> None:
    facts = [facts_of(path) for path in SOURCES]
    assert len(facts) > 400
    assert [(each.file, each.lines_without_imports) for each in facts if each.lines_without_imports > FILE_LINES_MAX] == []


def test_every_function_has_at_most_70_lines() -> None:
    assert [each for each in functions_of(SOURCES) if each.lines > FUNCTION_LINES_MAX] == []


def test_every_function_has_at_most_5_positional_parameters() -> None:
    assert [each for each in functions_of(SOURCES) if len(each.positional) > POSITIONAL_MAX] == []


def test_controllers_catch_no_exceptions() -> None:
    assert len(CONTROLLERS) > 10
    assert [name_of(path) for path in CONTROLLERS if facts_of(path).catches] == []


def test_every_handler_has_at_most_15_lines() -> None:
    handlers = [each for each in functions_of(CONTROLLERS) if each.name.startswith("on_")]
    assert len(handlers) > 50
    assert [each for each in handlers if each.body_lines > HANDLER_LINES_MAX] == []


def test_every_handler_is_in_a_controller() -> None:
    """A handler in a file of another name would escape the rules above."""
    elsewhere = functions_of(path for path in PRODUCT if path not in CONTROLLERS)
    assert [each for each in elsewhere if re.fullmatch(r"on_(get|post|put|patch|delete)(_\w+)?", each.name)] == []


def test_time_and_ids_have_one_source() -> None:
    """Code that waits for processes at a terminal may read the clock directly."""
    checked = [path for path in PRODUCT if path.name != "clock.py" and not {"embedded", "cli"} & set(path.parts)]
    assert len(checked) > 150
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in checked}
    assert [name for name, text in texts.items() if CLOCK.search(text)] == []
    assert [name for name, text in texts.items() if not name.endswith("/ids.py") and RANDOMNESS.search(text)] == []


def test_no_registry_addresses_and_no_machine_paths() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")
    tracked = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    files = tracked or [*SOURCES, *sorted((ROOT / "requirements").iterdir()), ROOT / "Makefile"]
    forbidden = re.compile(r"--(extra-)?index-url|pythonhosted|pypi\.org|/simple/|[\"' (]/(work|root|home)/")
    for path in files:
        if path.resolve() != Path(__file__).resolve():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not forbidden.search(text), path


def test_every_dependency_is_pinned_with_hashes() -> None:
    for name in ("runtime.txt", "exports.txt", "build.txt", "dev.txt", "mongod.txt"):
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        for line in lines:
            assert re.match(r"[a-z0-9.\[\],_-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line, re.IGNORECASE), line


def test_runtime_lock_has_no_tools_that_build() -> None:
    """A deployment installs a wheel: what built it is a lock of its own, and the tools for development have both."""

    def names(lock: str) -> set[str]:
        text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
        return {line.partition("==")[0].partition("[")[0] for line in text.splitlines() if "==" in line and line[:1].isalnum()}

    wanted = (ROOT / "requirements" / "build.in").read_text(encoding="utf-8").splitlines()
    tools = {line for line in wanted if line and not line.startswith("#")}
    assert tools <= names("build.txt")
    assert not tools & names("runtime.txt")
    assert names("runtime.txt") | names("build.txt") <= names("dev.txt")
