"""The registry of reports, from which the API, the command line, the exports and the console list them."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple, cast

from msgspec import Struct
from msgspec import inspect as mi

from guerdon.errors import NotFound
from guerdon.reports.models import DEFINITIONS, ReportHead, ReportInfo, ReportParameter
from guerdon.reports.rows import columns_of, row_type_of
from guerdon.system.field_docs import field_docs


class ReportDefinition(NamedTuple):
    """One report: how it is named, asked for and made."""

    name: str
    summary: str
    """Content of the report, in one sentence."""
    query: type[Struct]
    answer: type[ReportHead]
    make: Callable[[Any], Awaitable[ReportHead]]
    """Function that takes a query and returns the report."""
    path: str | None = None
    """Path of its route, where it is not `/v1/reports/{name}`."""
    formula: str = ""
    """Formula of its figures, as docs/reports.md states it."""


class Reports:
    """All reports by name, in the order in which they are listed."""

    def __init__(self, definitions: Iterable[ReportDefinition]) -> None:
        self._by_name = {each.name: each for each in definitions}

    def list_reports(self) -> list[ReportDefinition]:
        return list(self._by_name.values())

    def get_report(self, name: str) -> ReportDefinition:
        """Return the definition of a report.

        Raises:
            NotFound: there is no report of this name.
        """
        found = self._by_name.get(name)
        if found is None:
            raise NotFound(f"there is no such report; there are {', '.join(self._by_name)}")
        return found

    async def make(self, name: str, query: Struct) -> ReportHead:
        """Make a report. `query` is of the type that its definition names.

        Raises:
            NotFound: there is no report of this name, or what the query names does not exist.
            Validation: a parameter is not acceptable.
            ViewsNotBuilt: no version of the views is complete yet.
        """
        return await self.get_report(name).make(query)


def describe_report(report: ReportDefinition) -> ReportInfo:
    """Return what the list of reports tells about a report."""
    return ReportInfo(
        name=report.name,
        summary=report.summary,
        path=report.path or f"/v1/reports/{report.name}",
        parameters=_parameters_of(report.query),
        columns=list(columns_of(row_type_of(report.answer))),
        definition=f"{DEFINITIONS}#{report.name}",
    )


def _parameters_of(query: type[Struct]) -> list[ReportParameter]:
    docs = field_docs(query)
    fields = cast(mi.StructType, mi.type_info(query)).fields
    return [ReportParameter(each.encode_name, each.required, docs[each.encode_name], _values_of(each.type)) for each in fields]


def _values_of(kind: mi.Type) -> list[str]:
    match kind:
        case mi.Metadata():
            return _values_of(kind.type)
        case mi.LiteralType():
            return [str(value) for value in kind.values]
        case mi.UnionType():
            return [value for each in kind.types for value in _values_of(each)]
        case _:
            return []
