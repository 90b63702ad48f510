"""Identity of a request that moves value: its caller, its Idempotency-Key and the digest of its content."""

import re

from falcon.asgi import Request
from msgspec import Struct

from guerdon.errors import IdempotencyKeyMissing
from guerdon.http.operation import actor_of, is_dry_run
from guerdon.ids import digest
from guerdon.permissions import Actor

_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")


class KeyedRequest(Struct, frozen=True):
    """Identity of a request: its caller, its idempotency key, and the digest of its route and body."""

    actor: Actor
    key: str
    fingerprint: bytes
    dry_run: bool = False
    """True to decide and write nothing."""


def fingerprint(route: str, raw: bytes) -> bytes:
    """Return 16 bytes of a digest of the route (with its ids) and the raw body, so that it does not depend on a parser."""
    return digest(route, raw)[:16]


def request_of(req: Request, route: str, raw: bytes) -> KeyedRequest:
    """Return the identity of a request, by which a repeated request is recognised."""
    return KeyedRequest(actor_of(req), idempotency_key(req), fingerprint(route, raw), is_dry_run(req))


def idempotency_key(request: Request) -> str:
    """Return the idempotency key without its optional quotes (draft-ietf-httpapi-idempotency-key-header).

    Raises:
        IdempotencyKeyMissing: the request has no key or several, or the key is not 1 to 255 visible ASCII characters.
    """
    # `get_header` joins repeated headers into one value.
    values = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if len(values) != 1:
        raise IdempotencyKeyMissing("send one Idempotency-Key header: this request moves value")
    key = values[0].decode("latin-1")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.match(key):
        raise IdempotencyKeyMissing("the Idempotency-Key must be one value of 1 to 255 visible ASCII characters")
    return key
