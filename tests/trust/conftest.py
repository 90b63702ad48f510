"""A database for each check, checks that measure time alone on the machine, and one table of figures at the end.

`make trust` runs two checks at a time. A check marked `ALONE` measures time: it runs when no other check does.
"""

import fcntl
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from xdist.scheduler import LoadScopeScheduling

from guerdon.collections import INDEXES
from guerdon.config import Settings
from guerdon.database import Database
from tests.trust.figures import Check, Figure, table, take
from tests.trust.groups import group_of, is_alone, order_of

_databases = itertools.count(1)
_names: dict[str, str] = {}


@pytest.fixture
def settings(usual_settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Settings with a database that no other check uses; the cases of one parametrized check share it."""
    check = request.node.nodeid.partition("[")[0]
    if check not in _names:
        _names[check] = f"guerdon_check_{next(_databases)}"
    return usual_settings.model_copy(update={"mongodb_database": _names[check]})


@pytest_asyncio.fixture
async def database(mongodb_url: str, settings: Settings) -> AsyncIterator[Database]:
    """The check's own database: empty, with every index. The databases of earlier checks are dropped."""
    database = Database(mongodb_url, settings.mongodb_database)
    for name in await database.client.list_database_names():
        if name.startswith("guerdon_check_") and name != settings.mongodb_database:
            await database.client.drop_database(name)
    for name in await database.raw.list_collection_names():
        await database.raw[name].delete_many({})
    await database.sync_indexes(INDEXES)
    yield database
    await database.close()


# --- scheduling -----------------------------------------------------------------------------------------------------


class Scheduling(LoadScopeScheduling):
    """Hands out the groups in the order of the collection, each to the first worker that is free."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest checks first and those that run alone last."""
    items.sort(key=order_of)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Keep every other worker from running a check beside one that runs alone. Waiting does not count against its time limit."""
    with _machine(alone=is_alone(item)):
        return (yield)


@contextmanager
def _machine(*, alone: bool) -> Iterator[None]:
    """Hold a lock that all workers share, and hold it exclusively for a check that runs alone."""
    with Path(__file__).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Attach the recorded figures to the report, which workers send to the process that prints."""
    if call.when == "call":
        item.user_properties.extend(("figure", list(figure)) for figure in take())
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report
        for outcome in ("passed", "failed", "skipped", "error")
        for report in terminalreporter.stats.get(outcome, [])
        if "tests/trust/" in report.nodeid and (report.when == "call" or outcome != "passed")
    ]
    if reports:
        terminalreporter.section("figures")
        for line in table(_check_of(report) for report in sorted(reports, key=lambda each: each.nodeid)):
            terminalreporter.write_line(line)


def _check_of(report: pytest.TestReport) -> Check:
    name = report.nodeid.rpartition("/")[2].partition("@")[0]
    figures = [Figure(*value) for key, value in report.user_properties if key == "figure"]
    return Check(name, report.outcome, report.duration, figures)
