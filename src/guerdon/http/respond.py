"""JSON responses and RFC 9457 problem documents."""

from typing import Any

import msgspec
from falcon.asgi import Response
from msgspec import Struct

from guerdon.errors import GuerdonError

JSON_TYPE = "application/json"
_encode = msgspec.json.Encoder().encode


def send(response: Response, answer: Struct, status: int = 200, *, replayed: bool = False) -> None:
    """Write a JSON answer. It is a struct, so that it has declared fields only. `replayed` marks the answer of an earlier run of the request."""
    response.status = status
    response.content_type = JSON_TYPE
    response.data = _encode(answer)
    if replayed:
        response.set_header("Idempotency-Replayed", "true")


def problem_of(error: GuerdonError) -> dict[str, Any]:
    """Return the members of the problem document of an error (RFC 9457)."""
    return {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.members,
    }


def problem_document(error: GuerdonError, request_id: str) -> bytes:
    """Return the problem document of an error as JSON."""
    return _encode({**problem_of(error), "request_id": request_id})
