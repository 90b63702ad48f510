"""JSON responses and RFC 9457 problem documents."""

from typing import Any

import msgspec
from falcon.asgi import Response
from msgspec import Struct

from guerdon.errors import GuerdonError

JSON_TYPE = "application/json"
_encode = msgspec.json.Encoder().encode


def send(response: Response, answer: Struct, status: int = 200, *, replayed: bool = False) -> None:
    """Write a JSON answer: a struct, so that nothing leaves that is not declared. `replayed` marks it as the first answer to a key that was used before."""
    response.status = status
    response.content_type = JSON_TYPE
    response.data = _encode(answer)
    if replayed:
        response.set_header("Idempotency-Replayed", "true")


def problem_of(error: GuerdonError) -> dict[str, Any]:
    """Return the members of an error's RFC 9457 document."""
    return {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        **error.members,
    }


def problem_document(error: GuerdonError, request_id: str) -> bytes:
    """Return the RFC 9457 document of an error."""
    return _encode({**problem_of(error), "request_id": request_id})
