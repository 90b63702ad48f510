"""The OpenAPI 3.1 document, made by SpecTree from the declarations that the handlers carry.

SpecTree is used for the document only: its request wrapper would decode every body a second time. A backend plug-in hands it the route
table of the composition root, so that no route can be served without being documented.
"""

from functools import cache
from string import Formatter
from typing import Any, cast

import msgspec
from falcon.routing.util import map_http_methods
from msgspec import Struct
from spectree import Response, SpecTree
from spectree.model_adapter import get_msgspec_model_adapter
from spectree.models import SecureType, SecurityScheme, SecuritySchemeData
from spectree.plugins.falcon_plugin import FalconAsgiPlugin

from guerdon import __version__
from guerdon.errors import (
    BadRequest,
    BodyTooLarge,
    DatabaseUnavailable,
    Forbidden,
    GuerdonError,
    Internal,
    MalformedJson,
    OutcomeUnknown,
    Overloaded,
    RequestTimeout,
    StoreUnavailable,
    TooManyRequests,
    Unauthenticated,
    UnsupportedMediaType,
    Validation,
)
from guerdon.http.operation import Operation
from guerdon.http.respond import JSON_TYPE

Routes = list[tuple[str, Any, str | None]]
Shape = tuple[tuple[str, type[Any], str | None], ...]
"""Routes without the services behind them: (path, the resource's class, suffix)."""
_TAGS = (
    "auth",
    "members",
    "privacy",
    "keys",
    "audit",
    "wallets",
    "holds",
    "transactions",
    "assets",
    "events",
    "campaigns",
    "tiers",
    "offers",
    "vouchers",
    "codes",
    "referrals",
    "test",
    "operations",
)
_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\u0021-\\u007e]+$"},
    "description": "Made by the client before the first attempt. The same key with the same body replays the first answer.",
    "example": "c0ffee-0001",
}
_EVENT = {
    "type": "object",
    "required": ["event", "id", "data"],
    "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": {"type": "string", "description": "JSON."}},
}
_MEDIA_SCHEMAS: dict[str, dict[str, Any]] = {JSON_TYPE: {}, "text/event-stream": _EVENT}
"""What other answers than structs are; a text unless it stands here. The schema of a stream is that of each of its events."""


class FieldError(Struct, frozen=True):
    """One value that is not acceptable."""

    pointer: str
    detail: str


class Problem(Struct, frozen=True):
    """An RFC 9457 problem document. Some types carry more members, which their page under `type` names."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] = []


class _Node:
    """The two attributes of a router node that SpecTree's Falcon plug-in reads, and the handlers by method."""

    def __init__(self, path: str, handlers: dict[str, Any]) -> None:
        self.uri_template = path
        self.method_map = handlers


class _RouteTablePlugin(FalconAsgiPlugin):
    """Reads our route table instead of a router's private tree, and registers no routes of its own."""

    def register_route(self, app: Any) -> None:
        pass

    def find_routes(self) -> list[Any]:
        return self.spectree.app

    def bypass(self, func: Any, method: str) -> Any:
        return False

    def parse_path(self, route: Any, path_parameter_descriptions: Any) -> Any:
        """Our templates hold plain fields only; the inherited form leaves a backslash before the dots of a path."""
        fields = [name for _, name, _, _ in Formatter().parse(route.uri_template) if name]
        return route.uri_template, [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": ""} for name in fields
        ]


def operations_of(path: str, resource: Any, suffix: str | None) -> dict[str, Operation]:
    """Return the declaration of every responder of a route, by method.

    Raises:
        TypeError: a responder carries none, so nobody has said who may call it.
    """
    found: dict[str, Operation] = {}
    for method, handler in _handlers(resource, suffix).items():
        declared = getattr(handler, "operation", None)
        if not isinstance(declared, Operation):
            raise TypeError(f"{method} {path} ({handler.__qualname__}) declares no policy")
        found[method] = declared
    return found


def _handlers(resource: Any, suffix: str | None) -> dict[str, Any]:
    return cast(dict[str, Any], map_http_methods(resource, suffix=suffix))


def document_of(routes: Routes) -> bytes:
    """Return the document of all routes as JSON. What it says depends on declarations alone, so a process makes it once."""
    return _render(tuple((path, cast(type[Any], type(resource)), suffix) for path, resource, suffix in routes))


@cache
def _render(routes: Shape) -> bytes:
    bearer = SecurityScheme(
        name="bearer",
        data=SecuritySchemeData(type=SecureType.HTTP, scheme="bearer", description="A service key or an access token."),
    )
    tree = SpecTree(
        backend=_RouteTablePlugin,
        model_adapter=get_msgspec_model_adapter(),
        naming_strategy=lambda model: model.__name__,
        nested_naming_strategy=lambda _parent, child: child,
        title="Guerdon",
        version=__version__,
        description="Wallets that never lose or double a unit, rewards that explain themselves.",
        security_schemes=[bearer],
        annotations=False,
        validation_error_model=Problem,
    )
    nodes = [_Node(path, _document_handlers(tree, resource, suffix)) for path, resource, suffix in routes]
    tree.register(nodes)
    document: dict[str, Any] = tree.spec
    for path, resource, suffix in routes:
        for method, declared in operations_of(path, resource, suffix).items():
            _finish(document["paths"][path][method.lower()], declared)
    _make_portable(document)
    document.pop("security", None)
    document["tags"] = [{"name": name} for name in _TAGS]
    return msgspec.json.encode(document)


def _document_handlers(tree: SpecTree, resource: Any, suffix: str | None) -> dict[str, Any]:
    handlers: dict[str, Any] = {}
    for method, handler in _handlers(resource, suffix).items():
        declared: Operation = handler.operation
        answers: dict[str, Any] = {f"HTTP_{status}": model for status, model in declared.answers.items()}
        for error in sorted(_errors_of(declared), key=lambda error: (error.status, error.code)):
            code = f"HTTP_{error.status}"
            known = answers.get(code)
            titles = f"{known[1]}; {error.title}" if known else error.title
            answers[code] = (Problem, titles)
        decorate = cast(Any, tree).validate(
            query=declared.query,
            json=declared.body,
            resp=Response(**answers),
            tags=(declared.tag,),
            security=[] if declared.policy.public else [{"bearer": []}],
            operation_id=declared.operation_id,
            skip_validation=True,
        )
        handlers[method] = decorate(handler)
    return handlers


_OF_ALL: frozenset[type[GuerdonError]] = frozenset(
    {BadRequest, RequestTimeout, Overloaded, OutcomeUnknown, DatabaseUnavailable, Internal}
)
_OF_BODIES: frozenset[type[GuerdonError]] = frozenset({MalformedJson, BodyTooLarge, UnsupportedMediaType, Validation})


def _errors_of(declared: Operation) -> set[type[GuerdonError]]:
    """What a route can answer: what it says itself, and what those before it do: server, door, quotas, policy, the gates of bodies."""
    errors: set[type[GuerdonError]] = {*_OF_ALL, *declared.errors}
    if declared.body is not None:
        errors |= _OF_BODIES
    if declared.takes is not None:
        errors |= _OF_BODIES - {MalformedJson}
    if declared.query is not None:
        errors.add(Validation)
    if not declared.policy.public:
        errors |= {Unauthenticated, Forbidden, Validation}
    if declared.quota != "none":
        errors |= {TooManyRequests, StoreUnavailable}
    return errors


def _not_null(parameter: dict[str, Any]) -> None:
    """A parameter is left out or has a value; the struct's default is no value that anybody could send."""
    schema = parameter["schema"]
    if "anyOf" in schema:
        parameter["schema"] = next(kind for kind in schema["anyOf"] if kind != {"type": "null"})


def _make_portable(node: Any) -> None:
    """Write patterns as ECMA-262 reads them (JSON Schema, 6.4): `$` is the very end there, and a text has no lone surrogates."""
    if isinstance(node, list):
        for each in cast(list[Any], node):
            _make_portable(each)
    elif isinstance(node, dict):
        for name, each in cast(dict[str, Any], node).items():
            if name == "pattern" and isinstance(each, str):
                node[name] = each.replace(r"$(?!\n)", "$").replace(r"\ud800-\udfff", "")
            else:
                _make_portable(each)


def _finish(entry: dict[str, Any], declared: Operation) -> None:
    """Add what SpecTree does not know: our summaries, the key header, examples, and the media type of problems."""
    if declared.idempotent:
        entry["parameters"].insert(0, _KEY_PARAMETER)
    if declared.body_optional:
        entry["requestBody"]["required"] = False
    if declared.takes is not None:
        body: dict[str, Any] = {"required": True, "content": {declared.takes: {"schema": {"type": "string"}}}}
        entry["requestBody"] = body
    for parameter in entry["parameters"]:
        _not_null(parameter)
    if declared.media:
        good = entry["responses"][str(min(declared.answers))].setdefault("content", {})
        good.update({media: {"schema": _MEDIA_SCHEMAS.get(media, {"type": "string"})} for media in declared.media})
    if declared.body is None and declared.query is None and declared.policy.public:
        del entry["responses"]["422"]  # SpecTree thinks that whatever it documents it also validates.
    if declared.example is not None:
        entry["requestBody"]["content"][declared.takes or JSON_TYPE]["example"] = declared.example
    for status, answer in entry["responses"].items():
        if int(status) >= 400 and "content" in answer:
            answer["content"] = {"application/problem+json": answer["content"].pop("application/json")}
    scope = declared.policy.scope
    if scope is not None:
        note = f"Needs the scope `{scope}`" + ("; members may call it for what is theirs." if declared.policy.own else ".")
        entry["description"] = f"{entry.get('description') or ''}\n\n{note}".strip()
