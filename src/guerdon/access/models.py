"""Stored and wire shapes of service keys and of the public keys that verify access tokens."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field, structs
from pymongo import IndexModel

from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.types import PageQuery

SERVICE_KEYS = "service_keys"
INDEXES: dict[str, list[IndexModel]] = {SERVICE_KEYS: []}
KEY_NAME_LENGTH_MAX = 100
KEY_EXPIRY_DAYS_MAX = 3650


class ServiceKey(Struct, frozen=True, kw_only=True):
    """A service key as it is stored, without its secret. Times are milliseconds since the epoch."""

    id: str = field(name="_id")
    name: str
    secret_sha256: bytes
    scopes: list[str]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    """Time of the last use, exact to five minutes."""

    def is_live(self, now_ms: int) -> bool:
        """Return True while the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now_ms < self.expires_at)


class KeyCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A service key to create."""

    name: Annotated[str, Meta(min_length=1, max_length=KEY_NAME_LENGTH_MAX)]
    """Name of the service, 1 to 100 printable characters."""
    scopes: Annotated[list[Annotated[str, Meta(min_length=1, max_length=40)]], Meta(min_length=1, max_length=50)]
    """Scopes of the key. The caller must have each of them."""
    expires_in_days: Annotated[int, Meta(ge=1, le=KEY_EXPIRY_DAYS_MAX)] | None = None
    """Number of days after which the key expires. Null means that it does not expire."""


class KeyView(Struct, frozen=True):
    """A service key, without its secret."""

    id: str
    """Id of the key, which is also part of its text."""
    name: str
    """Name of the service."""
    scopes: list[str]
    """Scopes of the key."""
    status: Literal["live", "expired", "revoked"]
    """`live` while the key is accepted."""
    created_at: str
    """Time when the key was created, RFC 3339 in UTC."""
    expires_at: str | None
    """Time when the key expires, RFC 3339 in UTC. Null means that it does not expire."""
    revoked_at: str | None
    """Time when the key was revoked, RFC 3339 in UTC. Null while it is not revoked."""
    last_used_at: str | None
    """Time of the last use, RFC 3339 in UTC, exact to five minutes. Null while the key has not been used."""


class NewKeyView(KeyView, frozen=True):
    """A service key that was just created, with its secret."""

    key: str
    """Text of the key, for the `Authorization` header. No later response contains it."""


class KeyQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of service keys, in the order of their ids."""


class KeyPage(Struct, frozen=True):
    """One page of service keys in the order of their ids, including revoked and expired keys."""

    items: list[KeyView]
    """The service keys of this page."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


class PublicJwk(Struct, frozen=True):
    """A public key that verifies access tokens, as a JWK (RFC 8037)."""

    kid: str
    """Id of the key, as in the header of a token."""
    x: str
    """The public key, base64url without padding."""
    kty: Literal["OKP"] = "OKP"
    """Key type."""
    crv: Literal["Ed25519"] = "Ed25519"
    """Curve of the key."""
    use: Literal["sig"] = "sig"
    """Use of the key: signatures."""
    alg: Literal["EdDSA"] = "EdDSA"
    """Signature algorithm."""


class JwksView(Struct, frozen=True):
    """All public keys that verify access tokens."""

    keys: list[PublicJwk]
    """The public keys."""


def view_key(key: ServiceKey, now_ms: int) -> KeyView:
    """Return the wire shape of a key."""
    return KeyView(
        id=key.id,
        name=key.name,
        scopes=key.scopes,
        status="revoked" if key.revoked_at is not None else "live" if key.is_live(now_ms) else "expired",
        created_at=rfc3339(key.created_at),
        expires_at=optional_rfc3339(key.expires_at),
        revoked_at=optional_rfc3339(key.revoked_at),
        last_used_at=optional_rfc3339(key.last_used_at),
    )


def view_new_key(key: ServiceKey, text: str, now_ms: int) -> NewKeyView:
    """Return the wire shape of a key that was just created, with its text."""
    return NewKeyView(**structs.asdict(view_key(key, now_ms)), key=text)
