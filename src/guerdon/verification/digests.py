"""Digests of stored documents, as docs/verify.md specifies them. Independent of the code that writes them."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

GENESIS = "0" * 64
VOUCHER_FIELDS = (
    "_id", "owner", "member", "offer", "offer_version", "name", "kind", "code", "number", "batch", "value", "minimum_basket", "uses",
    "price", "transaction", "counted", "account", "issued_at",
)  # fmt: skip
"""Fields of a voucher that never change."""


def digest_of(document: Mapping[str, Any]) -> str:
    """Return the digest of a document with all its fields, in hexadecimal."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def canonical(document: Mapping[str, Any]) -> str:
    """Return JSON with sorted keys and without white space; binary values are base64."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_base64)


def without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not null, zero, false or empty."""
    return {name: value for name, value in document.items() if value}


def voucher_digest(document: Mapping[str, Any]) -> str:
    """Return the digest of the fields of a voucher that never change and are not null."""
    return digest_of({name: document[name] for name in VOUCHER_FIELDS if document.get(name) is not None})


def chain_hash(prev: str, content: str) -> str:
    """Return the hash of an archived version."""
    return hashlib.sha256(bytes.fromhex(prev) + content.encode()).hexdigest()


def _base64(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return repr(value)  # No document is written with another type; the digest of a changed one must differ.
