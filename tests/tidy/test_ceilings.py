"""The house rules that a machine can check: sizes, one source of time and ids, no addresses and no machine paths."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX, FUNCTION_LINES_MAX, POSITIONAL_MAX, HANDLER_LINES_MAX = 500, 70, 5, 15
SOURCES = sorted(path for folder in ("src", "tests", "bench") for path in (ROOT / folder).rglob("*.py"))
PRODUCT = sorted((ROOT / "src").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def body_lines(function: Function) -> int:
    """Lines after the signature and the docstring."""
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return (function.end_lineno or 0) - first.lineno + 1


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_sizes(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX
    for function in functions(path):
        assert (function.end_lineno or 0) - function.lineno + 1 <= FUNCTION_LINES_MAX, function.name
        positional = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args) if arg.arg not in ("self", "cls")]
        assert len(positional) <= POSITIONAL_MAX, function.name


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("controller.py")), ids=name_of)
def test_controllers_only_translate(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
    for function in functions(path):
        if function.name.startswith("on_"):
            assert body_lines(function) <= HANDLER_LINES_MAX, function.name


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_time_and_ids_have_one_source(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "clock.py" or "embedded" in path.parts or "cli" in path.parts:
        return  # Waiting for processes at a terminal is not the product's time.
    assert not re.search(r"datetime\.now|datetime\.utcnow|time\.time\b|time\.time_ns|time\.monotonic|(?<!\")\buuid\b", text)
    if path.name != "ids.py":
        assert "urandom" not in text
        assert "import secrets" not in text


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
