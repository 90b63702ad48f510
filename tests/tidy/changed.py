"""Print the test files of what has changed since a branch: `python -m tests.tidy.changed [main]`. `make fast` runs them.

A changed test file is one of them. A changed source file brings the tests that import its module or call a path of its folder; of these
at most `FILES_MAX` are printed, the ones with the most mentions first.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES_MAX = 12
PLACES = ("access", "api", "invariants", "jobs", "races")
ROUTE = re.compile(r'"(/v1/[a-z-]+(?:/[a-z-]+)*)')


def main() -> None:
    """Print one test file a line, and on standard error how many are left to `make test`."""
    tests, related = files_for(changed_since(sys.argv[1] if len(sys.argv) > 1 else "main"))
    print("\n".join([*tests, *related[:FILES_MAX]]))
    if len(related) > FILES_MAX:
        print(f"{len(related) - FILES_MAX} more test files mention what has changed; `make test` runs them", file=sys.stderr)


def changed_since(branch: str) -> set[str]:
    """The files that differ from where this branch left the other one, with those that are not committed or not added yet."""
    base = git("merge-base", "HEAD", branch) or ["HEAD"]
    return {*git("diff", "--name-only", base[0]), *git("ls-files", "--others", "--exclude-standard")}


def git(*arguments: str) -> list[str]:
    """The lines that git prints; none when it fails, as where there is no such branch."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")[:-1]


def files_for(changed: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the changed test files, and those that mention a changed module or its paths, most mentions first."""
    names = {name for name in changed if (ROOT / name).is_file()}
    tests = sorted(name for name in names if re.search(r"^tests/(?!trust/)(?:.+/)?test_\w+\.py$", name))
    sources = [ROOT / name for name in names if re.search(r"^src/guerdon/.+\.py$", name)]
    words = {module_of(path) for path in sources} | {route for path in sources for route in routes_beside(path)}
    if not words:
        return tests, []
    wanted = re.compile("|".join(rf"{re.escape(word)}\b" for word in sorted(words, key=len, reverse=True)))
    mentions: dict[str, int] = {}
    for path in (path for place in PLACES for path in sorted((ROOT / "tests" / place).glob("test_*.py"))):
        count = len(wanted.findall(path.read_text(encoding="utf-8")))
        if count and (name := str(path.relative_to(ROOT))) not in tests:
            mentions[name] = count
    return tests, sorted(mentions, key=lambda name: -mentions[name])


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


def routes_beside(path: Path) -> set[str]:
    """The paths that the controllers of a file's folder serve, up to their first parameter."""
    return {route for each in path.parent.glob("*controller.py") for route in ROUTE.findall(each.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    main()
