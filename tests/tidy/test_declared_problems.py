"""A handler declares every error that the service methods it calls name under `Raises:`; the OpenAPI document shows what is declared."""

import ast
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from guerdon import errors
from guerdon.errors import GuerdonError
from guerdon.http.operation import Operation
from guerdon.system.openapi import errors_of, operations_of
from tests.tidy.openapi import declared_routes

NAME = re.compile(r"\b[A-Z][A-Za-z]+\b")
ROUTES = [
    (f"{method} {path}", resource, declared)
    for path, resource, suffix in declared_routes()
    for method, declared in operations_of(path, resource, suffix).items()
]

OWN = ("GET /v1/me/wallets", "GET /v1/me/vouchers", "GET /v1/me/tier", "GET /v1/me/tier/changes", "GET /v1/me/referral")
IMPOSSIBLE: dict[str, set[str]] = {
    **{name: {"NotFound"} for name in OWN},  # The caller exists and reaches their own data.
    "POST /v1/campaigns/{campaign_id}/pause": {"ApprovalMissing"},  # Only an activation needs an approval.
    "POST /v1/campaigns/{campaign_id}/end": {"ApprovalMissing"},
    "POST /v1/wallets/{wallet_id}/freeze": {"WalletNotEmpty"},  # Only a wallet that is closed must be empty.
    "POST /v1/wallets/{wallet_id}/unfreeze": {"WalletNotEmpty"},
}
"""Errors that a service method can raise, but not when this handler calls it."""


def raised_by(method: Any) -> set[type[GuerdonError]]:
    """Return the error classes in the `Raises:` section of a method. A line may name several, before its colon."""
    _, _, section = (inspect.getdoc(method) or "").partition("Raises:")
    heads = [line.partition(":")[0] for line in section.split("\n\n")[0].splitlines() if ":" in line]
    named = {getattr(errors, name, None) for head in heads for name in NAME.findall(head)}
    return {each for each in named if isinstance(each, type) and issubclass(each, GuerdonError)}


def calls_of(resource: type[Any], handler: Any) -> Iterator[Any]:
    """Yield the methods of services that a handler uses, in its own body or in a helper method of its resource.

    The constructor's annotations give the services. A service under another name, as in `wallets = self._wallets`, is refused.
    """
    parameters = typing.get_type_hints(resource.__init__)
    source = inspect.getsource(resource.__init__)
    services = {
        attribute: parameters[name] for attribute, name in re.findall(r"self\.(_\w+) = (\w+)\n", source) if name in parameters
    }
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(handler))))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    direct = {id(node.value) for node in attributes}
    for node in attributes:
        if isinstance(node.value, ast.Attribute):
            method = getattr(services.get(node.value.attr), node.attr, None)
            if method is not None:
                yield method
        elif ast.unparse(node.value) == "self":
            helper = getattr(resource, node.attr, None)
            if helper is not None:
                yield from calls_of(resource, helper)
            assert node.attr not in services or not inspect.isclass(services[node.attr]) or id(node) in direct, (
                f"{handler.__qualname__}: call self.{node.attr} directly"
            )


@pytest.mark.parametrize(("name", "resource", "declared"), ROUTES, ids=[name for name, _, _ in ROUTES])
def test_a_handler_declares_what_its_service_raises(name: str, resource: Any, declared: Operation) -> None:
    owner = resource if isinstance(resource, type) else type(resource)
    handler = next(each for each in vars(owner).values() if getattr(each, "operation", None) is declared)
    raised = {error for method in calls_of(owner, handler) for error in raised_by(method)}
    known = set(errors_of(declared))
    missing = {error.__name__ for error in raised if not any(issubclass(error, each) for each in known)}
    missing -= IMPOSSIBLE.get(name, set())
    assert not missing, f"{name}: add {sorted(missing)} to errors="
