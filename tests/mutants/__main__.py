"""Plant one bug after the other in a copy of the sources and run the tests that ought to see it: `make mutants`.

A test that cannot fail proves nothing. A planted bug whose place is not found exactly once fails the run, so that the list cannot rot.
Every mutant has a process of its own, forked from this one once the libraries are loaded: most die within a second.
"""

import argparse
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.mutants.planted import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
KILLED_SHARE_MIN = 0.9
TEST_SECONDS_MAX = 120
LIBRARIES = ("hypothesis.stateful", "pymongo", "falcon.asgi", "httpx", "msgspec", "structlog", "zoneinfo", "pytest_asyncio")


class Watch:
    """A plugin for pytest: notes the first test that fails."""

    def __init__(self) -> None:
        self.passed = 0
        self.killer: str | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.passed and report.when == "call"
        if report.failed and self.killer is None:
            self.killer = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.killer is None:
            self.killer = f"{report.nodeid} (cannot be imported)"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose name holds one of these")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    rotten = [mutant.name for mutant in MUTANTS if (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old) != 1]
    if rotten:
        print("not found exactly once:", *rotten, sep="\n  ", file=sys.stderr)
        return 2
    mutants = [mutant for mutant in MUTANTS if not chosen.words or any(word in mutant.name for word in chosen.words)]
    for library in LIBRARIES:
        importlib.import_module(library)
    assert "guerdon" not in sys.modules, "the mutants would all be the same"
    began = time.monotonic()
    survived = []
    with multiprocessing.get_context("fork").Pool(chosen.jobs, maxtasksperchild=1) as pool:
        for mutant, killer, seconds in pool.imap_unordered(run, mutants, chunksize=1):
            print(f"{mutant.name:48} {seconds:5.1f} s  {killer or 'SURVIVED'}", flush=True)
            if killer is None:
                survived.append(mutant.name)
    killed = len(mutants) - len(survived)
    print(f"{killed} of {len(mutants)} killed in {time.monotonic() - began:.0f} s; survived: {', '.join(survived) or 'none'}")
    return int(killed < KILLED_SHARE_MIN * len(mutants))


def run(mutant: Mutant) -> tuple[Mutant, str | None, float]:
    """Return the test that has killed it, and the processor seconds that took. In a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        sources = Path(name) / "src"
        shutil.copytree(ROOT / "src", sources)
        place = Path(name) / mutant.path
        place.write_text(place.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
        sys.path.insert(0, str(sources))
        os.environ["PYTHONPATH"] = f"{sources}{os.pathsep}{ROOT}"
        os.chdir(ROOT)
        with Path(name, "output").open("w", encoding="utf-8") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            killer = first_failure(mutant.tests)
    return mutant, killer, time.process_time()


def first_failure(tests: tuple[str, ...]) -> str | None:
    # Nobody reads the example, so it need not be made small.
    settings.register_profile("first failure", phases=[Phase.explicit, Phase.generate])
    settings.load_profile("first failure")
    for test in tests:
        watch = Watch()
        options = [
            "-x",
            "--tb=no",
            "-m",
            "not trust",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            f"--timeout={TEST_SECONDS_MAX}",
            f"--rootdir={ROOT}",
        ]
        pytest.main([*options, str(ROOT / test)], plugins=[watch])
        if watch.killer is not None:
            return watch.killer
        if not watch.passed:
            raise RuntimeError(f"{test} has run no test")
    return None


if __name__ == "__main__":
    sys.exit(main())
