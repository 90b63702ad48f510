"""The house rules that a machine can check: sizes, one source of time and ids, no addresses and no machine paths."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX, FUNCTION_LINES_MAX, POSITIONAL_MAX, HANDLER_LINES_MAX = 500, 70, 5, 15
SOURCES = sorted(path for folder in ("src", "tests", "bench", "tools") for path in (ROOT / folder).rglob("*.py"))
PRODUCT = sorted((ROOT / "src").rglob("*.py"))
CONTROLLERS = sorted((ROOT / "src").rglob("*controller.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
CLOCK = re.compile(r"datetime\.now|datetime\.utcnow|time\.time\b|time\.time_ns|time\.monotonic|(?<!\")\buuid\b")
RANDOMNESS = re.compile(r"urandom|import secrets")


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in nodes_of(path) if isinstance(node, Function))


def lines_without_imports(path: Path) -> int:
    """Lines of a file, less those of its import statements."""
    imports = {
        line
        for node in nodes_of(path)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return len(path.read_text(encoding="utf-8").splitlines()) - len(imports)


def body_lines(function: Function) -> int:
    """Lines after the signature and the docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def positional(function: Function) -> list[str]:
    return [arg.arg for arg in (*function.args.posonlyargs, *function.args.args) if arg.arg not in ("self", "cls")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_file_has_at_most_500_lines_without_imports() -> None:
    lines = {name_of(path): lines_without_imports(path) for path in SOURCES}
    assert len(lines) > 400
    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}


def test_every_function_has_at_most_70_lines() -> None:
    lines = [(name_of(path), each.name, (each.end_lineno or 0) - each.lineno + 1) for path in SOURCES for each in functions(path)]
    assert [each for each in lines if each[-1] > FUNCTION_LINES_MAX] == []


def test_every_function_has_at_most_5_positional_parameters() -> None:
    parameters = [(name_of(path), each.name, positional(each)) for path in SOURCES for each in functions(path)]
    assert [each for each in parameters if len(each[-1]) > POSITIONAL_MAX] == []


def test_controllers_catch_no_exceptions() -> None:
    assert len(CONTROLLERS) > 10
    assert [name_of(path) for path in CONTROLLERS if any(isinstance(node, ast.Try) for node in nodes_of(path))] == []


def test_every_handler_has_at_most_15_lines() -> None:
    handlers = [
        (name_of(path), each.name, body_lines(each))
        for path in CONTROLLERS
        for each in functions(path)
        if each.name.startswith("on_")
    ]
    assert len(handlers) > 50
    assert [each for each in handlers if each[-1] > HANDLER_LINES_MAX] == []


def test_every_handler_is_in_a_controller() -> None:
    """A handler in a file of another name would escape the rules above."""
    elsewhere = [
        (name_of(path), each.name)
        for path in PRODUCT
        if path not in CONTROLLERS
        for each in functions(path)
        if re.fullmatch(r"on_(get|post|put|patch|delete)(_\w+)?", each.name)
    ]
    assert elsewhere == []


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
    for name in ("runtime.txt", "dev.txt", "mongod.txt"):
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        for line in lines:
            assert re.match(r"[a-z0-9.\[\],_-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line, re.IGNORECASE), line
