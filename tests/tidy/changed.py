"""Print the test files of what has changed since a branch: `python -m tests.tidy.changed [main]`. `make fast` runs them.

A changed test file is one of them. A changed module brings the tests that import it or call a path of its folder, then those that do so by
their helper modules, then those that import another module of its domain. At most `FILES_MAX` of these related files are printed.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES_MAX = 8
"""Eight files take 40 to 70 s of processor time, and the types and the unit tests 30 s: under a minute on two processors without other load."""
FOLDERS = (".", "access", "api", "invariants", "jobs", "matrix", "races", "tidy")
ROUTE = re.compile(r'"(/v1/[a-z-]+(?:/[a-z-]+|/\{\w+\})*)"')
PARAMETER = re.compile(r"\\\{\w+\\\}")
HELPER = re.compile(r"^from (tests(?:\.\w+)*) import (.+)$", re.MULTILINE)


def main() -> None:
    """Print one test file a line, and on standard error how many are left to `make test`."""
    tests, related = files_for(changed_since(sys.argv[1] if len(sys.argv) > 1 else "main"))
    print("\n".join([*tests, *related[:FILES_MAX]]))
    if len(related) > FILES_MAX:
        print(f"{len(related) - FILES_MAX} more test files mention what has changed; `make test` runs them", file=sys.stderr)


def changed_since(branch: str) -> set[str]:
    """The files that differ from where this branch left the other one, with those that are not committed or not added yet.

    A renamed file is there with both names: a test may still import the old one.
    """
    base = git("merge-base", "HEAD", branch) or ["HEAD"]
    return {*git("diff", "--name-only", "--no-renames", base[0]), *git("ls-files", "--others", "--exclude-standard")}


def git(*arguments: str) -> list[str]:
    """The lines that git prints; none when it fails, as where there is no such branch."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")[:-1]


def files_for(changed: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the changed test files, and those that have to do with a changed module, the closest ones first."""
    names = sorted(changed)
    tests = [name for name in names if re.search(r"^tests/(?!trust/)(?:.+/)?test_\w+\.py$", name) and (ROOT / name).is_file()]
    modules = [name for name in names if re.search(r"^(?:src/guerdon|tests)/(?:.+/)?(?!test_|conftest)\w+\.py$", name)]
    itself = re.compile("|".join(pattern for name in modules for pattern in (*importing(name), *routes_beside(name))) or "(?!)")
    domain = re.compile("|".join({domain_of(name) for name in modules} - {""}) or "(?!)")
    rank = {str(path.relative_to(ROOT)): (*mentions(itself, path), *mentions(domain, path)) for path in test_files()}
    return tests, sorted((name for name in rank if any(rank[name]) and name not in tests), key=rank.__getitem__, reverse=True)


def test_files() -> Iterable[Path]:
    """The test files that `make fast` chooses from. It runs the unit tests anyway."""
    return (path for folder in FOLDERS for path in sorted((ROOT / "tests" / folder).glob("test_*.py")))


def mentions(wanted: re.Pattern[str], path: Path) -> tuple[int, int]:
    """Return how often a test file mentions something, and how many of the helper modules that it imports do."""
    return len(wanted.findall(text_of(path))), sum(1 for helper in helpers_of(path) if wanted.search(text_of(helper)))


def importing(name: str) -> list[str]:
    """Return the patterns of an import of a module."""
    module = name.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, last = module.rpartition(".")
    return [rf"{re.escape(module)}\b", rf"from {re.escape(package)} import .*\b{last}\b"]


def domain_of(name: str) -> str:
    """Return the pattern of an import from the domain of a source file. It is empty for a file that is in no domain."""
    parts = name.split("/")
    return rf"guerdon\.{parts[2]}\b" if parts[0] == "src" and len(parts) > 3 else ""


def routes_beside(name: str) -> list[str]:
    """Return the patterns of the paths that the controllers of a file's folder serve."""
    controllers = (ROOT / name).parent.glob("*controller.py")
    routes = sorted({route for each in controllers for route in ROUTE.findall(each.read_text(encoding="utf-8"))})
    return [PARAMETER.sub('[^/"]+', re.escape(route)) + '["?]' for route in routes]


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def helpers_of(path: Path) -> frozenset[Path]:
    """The modules of `tests` that a test file imports, and the ones that they import."""
    found, waiting = set[Path](), [path]
    while waiting:
        for package, names in HELPER.findall(text_of(waiting.pop())):
            for module in (package, *(f"{package}.{name.strip()}" for name in names.split(","))):
                helper = ROOT / (module.replace(".", "/") + ".py")
                if helper.is_file() and helper not in found:
                    found.add(helper)
                    waiting.append(helper)
    return frozenset(found - {path})


if __name__ == "__main__":
    main()
