"""Every property and parameter of the OpenAPI document is described, and every successful answer has a valid example."""

import importlib
import json
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from msgspec import Struct

import guerdon
from guerdon.system.examples import example_of
from guerdon.system.field_docs import field_docs
from guerdon.system.openapi import document_of, operations_of
from guerdon.types import PageQuery
from guerdon.wallets.models import WalletView
from tests.tidy.openapi import declared_routes


@cache
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document_of(declared_routes()))
    return found


def answers() -> list[type[Struct]]:
    declared = [each for path, resource, suffix in declared_routes() for each in operations_of(path, resource, suffix).values()]
    structs = {struct for each in declared for struct in each.answers.values() if struct is not None}
    return sorted(structs, key=lambda struct: struct.__name__)


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document()["paths"].items():
        for method, entry in item.items():
            yield f"{method.upper()} {path}", entry


def files_of_structs() -> dict[str, str]:
    """The file of each struct by its name in the document."""
    modules = [
        importlib.import_module(each.name)
        for each in pkgutil.walk_packages(guerdon.__path__, "guerdon.")
        if "__main__" not in each.name
    ]
    return {
        name: kind.__module__.replace(".", "/") + ".py"
        for module in modules
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, Struct)
    }


def test_every_property_is_described() -> None:
    files, missing = files_of_structs(), defaultdict[str, list[str]](list)
    count = 0
    for name, schema in document()["components"]["schemas"].items():
        for field, each in schema.get("properties", {}).items():
            count += 1
            if not each.get("description"):
                missing[files[name]].append(f"{name}.{field}")
    assert count > 800
    assert not missing, "write a docstring below each field:\n" + "\n".join(
        f"{file} ({len(fields)}): {', '.join(fields)}" for file, fields in sorted(missing.items())
    )


def test_every_parameter_is_described() -> None:
    missing = [
        f"{where}: {parameter['in']} {parameter['name']}"
        for where, entry in operations()
        for parameter in entry["parameters"]
        if not parameter.get("description")
    ]
    assert not missing, "write a docstring below each field of the query, or a line in system/descriptions.py:\n" + "\n".join(
        missing
    )


def test_every_successful_answer_has_an_example() -> None:
    missing = [
        f"{where}: {status} {media}"
        for where, entry in operations()
        for status, answer in entry["responses"].items()
        if status < "300"
        for media, content in answer.get("content", {}).items()
        if "example" not in content
    ]
    assert not missing, missing
    without_content = {
        (where, status)
        for where, entry in operations()
        for status, answer in entry["responses"].items()
        if status < "300" and "content" not in answer
    }
    assert {status for _, status in without_content} == {"204"}


@pytest.mark.parametrize("struct", answers(), ids=lambda struct: struct.__name__)
def test_an_example_is_an_answer_that_the_service_could_give(struct: type[Struct]) -> None:
    example = example_of(struct)
    answer = msgspec.convert(example, struct)
    assert json.loads(msgspec.json.encode(answer)) == example
    assert "text" not in strings_of(example), "add a value to the table in system/examples.py"
    schema = {"$ref": f"#/components/schemas/{struct.__name__}", "components": document()["components"]}
    jsonschema_rs.validator_for(schema).validate(example)


def strings_of(node: Any) -> Iterator[str]:
    """Every text of an example."""
    if isinstance(node, str):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from strings_of(each)


def test_tags_are_described_and_used() -> None:
    tags = {tag["name"] for tag in document()["tags"] if tag["description"]}
    assert tags == {tag for _, entry in operations() for tag in entry["tags"]}


def test_the_docstring_below_a_field_is_its_description() -> None:
    class Inner(PageQuery, frozen=True):
        pass

    assert field_docs(PageQuery)["limit"] == "Maximum number of items of the page."
    assert field_docs(Inner) == field_docs(PageQuery)
    described = document()["components"]["schemas"]["WalletView"]["properties"]
    assert described["expired"]["description"] == field_docs(WalletView)["expired"]
