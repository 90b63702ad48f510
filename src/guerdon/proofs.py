"""Digests of documents, by which entries and chains prove them. Pure; docs/verify.md specifies them."""

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec import NODEFAULT, Struct

GENESIS = "0" * 64
"""`prev` of the first link of every chain of documents."""


def _plain(value: object) -> int:
    """Return a number that the database driver has read, which has a type of its own."""
    if isinstance(value, int):
        return int(value)
    # msgspec asks its hook to refuse a type in this way.
    raise NotImplementedError(f"a document of the database has no {type(value).__name__}")


_canonical = msgspec.json.Encoder(order="sorted", enc_hook=_plain)


class VersionProof(Struct, frozen=True, kw_only=True):
    """Content of an archived version, and its place in the chain of the versions."""

    content: str
    """Canonical JSON of the content."""
    prev: str
    """Hash of the version before, hexadecimal."""
    hash: str
    """SHA-256 over the 32 bytes of `prev` and the content, hexadecimal."""


class ArchivedVersion(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Version in an archive. `proof` is None for versions that are older than the proof of documents."""

    proof: VersionProof | None = None

    @property
    def definition(self) -> Struct:
        """The archived definition, which each archive stores under a name of its own."""
        raise NotImplementedError


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return JSON with sorted keys and without white space; binary values are base64."""
    return _canonical.encode(document)


def digest_of(document: Mapping[str, Any]) -> str:
    """Return the digest of a document as it is stored, in hexadecimal."""
    return hashlib.sha256(_canonical.encode(document)).hexdigest()


def evidence_of(digests: Mapping[str, str]) -> str:
    """Return the evidence of an entry from the digests of its documents, by the names under which docs/verify.md lists them."""
    return digest_of(digests)


def without_empty(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not null, zero, false or empty: those that a struct with `omit_defaults` stores."""
    return {name: value for name, value in document.items() if value}


def content_text(definition: Struct) -> str:
    """Return the canonical JSON of the content of a campaign, offer or tier set.

    Fields that change without a new version (`NOT_CONTENT` of the struct) are left out, and so are fields with their default: a field that a
    later version of the code adds does not change the content.
    """
    excluded: frozenset[str] = getattr(definition, "NOT_CONTENT", frozenset())
    found = cast(dict[str, Any], _content(definition))
    return _canonical.encode({name: value for name, value in found.items() if name not in excluded}).decode()


def content_digest(definition: Struct) -> str:
    """Return the digest of the content of a definition, in hexadecimal."""
    return hashlib.sha256(content_text(definition).encode()).hexdigest()


def version_proof(definition: Struct, before: ArchivedVersion | None) -> VersionProof:
    """Return the proof of a new version. A version before it that has no proof counts as the first of the chain."""
    prev = GENESIS if before is None else (before.proof or version_proof(before.definition, None)).hash
    content = content_text(definition)
    return VersionProof(content=content, prev=prev, hash=hashlib.sha256(bytes.fromhex(prev) + content.encode()).hexdigest())


def _content(value: Any) -> Any:
    if isinstance(value, Struct):
        config = value.__struct_config__
        found: dict[str, Any] = {} if config.tag is None else {str(config.tag_field): config.tag}
        for info in msgspec.structs.fields(value):
            item = getattr(value, info.name)
            default = info.default if info.default_factory is NODEFAULT else info.default_factory()
            if default is NODEFAULT or item != default:
                found[info.encode_name] = _content(item)
        return found
    if isinstance(value, dict):
        return {name: _content(item) for name, item in cast(dict[str, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_content(item) for item in cast(list[Any], value)]
    return value
