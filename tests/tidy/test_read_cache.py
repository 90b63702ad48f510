"""No command can read a copy: who may import the read cache, and which handlers may use it."""

import ast
from pathlib import Path

from guerdon.http.operation import Operation
from guerdon.wallets import controller

PACKAGE = Path(__file__).parents[2] / "src" / "guerdon"
CACHE, READING = "guerdon.read_cache", "guerdon.wallets.reading"
MAY_IMPORT = {
    CACHE: {"wallets/reading.py", "wiring/resources.py", "wiring/services.py", "system/metrics.py"},
    READING: {"wallets/controller.py", "wiring/services.py"},
}
"""The files that build, show or ask the cache. The room itself is left out."""


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_only_reads_know_the_read_cache() -> None:
    files = {str(path.relative_to(PACKAGE)): imports_of(path) for path in sorted(PACKAGE.rglob("*.py"))}
    assert len(files) > 250
    for module, allowed in MAY_IMPORT.items():
        importers = {file for file, names in files.items() if any(f"{name}.".startswith(f"{module}.") for name in names)}
        assert {file for file in importers if not file.startswith("read_cache/")} == allowed, module


def test_only_handlers_of_get_ask_for_copies() -> None:
    """A handler that uses the reads takes `If-Seq-At-Least`, and changes nothing."""
    tree = ast.parse(Path(controller.__file__).read_text(encoding="utf-8"))
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("on_")]
    asking = {
        node.name for node in handlers if any(isinstance(each, ast.Attribute) and each.attr == "_reads" for each in ast.walk(node))
    }
    assert asking == {"on_get", "on_get_lots"}
    for name in asking:
        declared: Operation = getattr(controller.WalletResource, name).operation
        assert declared.reads_copies
