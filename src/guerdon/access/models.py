"""Stored and wire shapes of service keys and of the public keys that verify access tokens."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field, structs
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.types import PageQuery

SERVICE_KEYS = "service_keys"
INDEXES: dict[str, list[IndexModel]] = {SERVICE_KEYS: []}
KEY_NAME_LENGTH_MAX = 100
KEY_EXPIRY_DAYS_MAX = 3650


class ServiceKey(Struct, frozen=True, kw_only=True):
    """What a service may do. The secret itself is shown once and never stored. Times are milliseconds since the epoch."""

    id: str = field(name="_id")
    name: str
    secret_sha256: bytes
    scopes: list[str]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    """Within a few minutes."""

    def is_live(self, now_ms: int) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now_ms < self.expires_at)


class KeyCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A service that is to call."""

    name: Annotated[str, Meta(min_length=1, max_length=KEY_NAME_LENGTH_MAX)]
    scopes: Annotated[list[Annotated[str, Meta(min_length=1, max_length=40)]], Meta(min_length=1, max_length=50)]
    expires_in_days: Annotated[int, Meta(ge=1, le=KEY_EXPIRY_DAYS_MAX)] | None = None


class KeyView(Struct, frozen=True):
    """A service key, without its secret."""

    id: str
    name: str
    scopes: list[str]
    status: Literal["live", "expired", "revoked"]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    """Within a few minutes."""


class NewKeyView(KeyView, frozen=True):
    """A service key that was just made. `key` is shown this once and never again."""

    key: str


class KeyQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of service keys, in the order of their ids."""


class KeyPage(Struct, frozen=True):
    """Service keys in the order of their ids; revoked and expired ones too."""

    items: list[KeyView]
    next_cursor: str | None


class PublicJwk(Struct, frozen=True):
    """The public half of a key that signs access tokens (RFC 8037)."""

    kid: str
    x: str
    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA"] = "EdDSA"


class JwksView(Struct, frozen=True):
    """All keys by which an access token may be verified."""

    keys: list[PublicJwk]


def view_key(key: ServiceKey, now_ms: int) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        scopes=key.scopes,
        status="revoked" if key.revoked_at is not None else "live" if key.is_live(now_ms) else "expired",
        created_at=rfc3339(key.created_at),
        expires_at=None if key.expires_at is None else rfc3339(key.expires_at),
        revoked_at=None if key.revoked_at is None else rfc3339(key.revoked_at),
        last_used_at=None if key.last_used_at is None else rfc3339(key.last_used_at),
    )


def view_new_key(key: ServiceKey, text: str, now_ms: int) -> NewKeyView:
    return NewKeyView(**structs.asdict(view_key(key, now_ms)), key=text)
