"""Pure schedule of the keys that sign access tokens: the signing key at a time, and the sets after a rotation and a revocation.

In a set without times the first key signs and all keys verify. `signs_from` and `verifies_until` are private JWK members, which other
readers ignore (RFC 7517, 4). All processes read one file, and each process selects the signing key by its clock.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from guerdon.errors import NotFound, StartupRefused, Validation

KEYS_MAX = 16
"""Maximum number of keys in a set."""
State = Literal["next", "signing", "retiring", "verifying", "ended"]
"""`next` will sign. `retiring` verifies until a set time, `verifying` without an end."""

Kid = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._~-]+$(?!\n)")]
_TimeMs = Annotated[int, Meta(ge=0, le=2**50)]


class SigningKey(Struct, frozen=True):
    """A private key with its times as the file contains it. Times are milliseconds since the epoch."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: Kid
    x: str
    d: str
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA", "Ed25519"] = "EdDSA"
    signs_from: _TimeMs | None = None
    """Time from which the key signs, until the next key does. None means 0."""
    verifies_until: _TimeMs | None = None
    """Time from which its tokens are rejected and it is no longer published. None means that the key has no end."""

    def __repr__(self) -> str:
        return f"SigningKey({self.kid})"

    @property
    def start(self) -> int:
        return self.signs_from or 0

    def has_ended(self, now_ms: int) -> bool:
        return self.verifies_until is not None and now_ms >= self.verifies_until


class KeySet(Struct, frozen=True):
    """A JWK set of signing keys."""

    keys: Annotated[list[SigningKey], Meta(min_length=1, max_length=KEYS_MAX)]


def signers(keys: Sequence[SigningKey]) -> list[SigningKey]:
    """Return the keys that sign at some time, in the order of their turns. Of keys that begin at the same time, only the first signs."""
    succession: list[SigningKey] = []
    for key in sorted(keys, key=lambda key: key.start):
        if not succession or key.start > succession[-1].start:
            succession.append(key)
    return succession


def signer_at(keys: Sequence[SigningKey], now_ms: int) -> SigningKey:
    """Return the key that signs at `now_ms`. Before the first key's start, which only a wrong clock can show, it is the first key."""
    succession = signers(keys)
    return next((key for key in reversed(succession) if key.start <= now_ms), succession[0])


def require_succession(keys: Sequence[SigningKey]) -> None:
    """Check that a key signs at every time.

    Raises:
        StartupRefused: a key ends before the next key begins to sign.
    """
    succession = signers(keys)
    for key, successor in zip(succession, [*succession[1:], None], strict=True):
        if key.verifies_until is not None and (successor is None or successor.start > key.verifies_until):
            raise StartupRefused(f"the token key {key.kid} ends before another key signs")


def state_of(key: SigningKey, keys: Sequence[SigningKey], now_ms: int) -> State:
    """Return the state of a key of the set at `now_ms`."""
    if key.has_ended(now_ms):
        return "ended"
    if key is signer_at(keys, now_ms):
        return "signing"
    if key.start > now_ms:
        return "next"
    return "verifying" if key.verifies_until is None else "retiring"


def rotated(keys: Sequence[SigningKey], fresh: SigningKey, now_ms: int, *, wait_ms: int, overlap_ms: int) -> list[SigningKey]:
    """Return the set after a rotation.

    `fresh` is published now and signs after `wait_ms`. The key that signs until then verifies for another `overlap_ms`. Keys that have ended
    are removed. If another key already waits to sign, `fresh` follows it.

    Raises:
        Validation: the set already has the maximum number of keys.
    """
    kept = [key for key in keys if not key.has_ended(now_ms)]
    if len(kept) >= KEYS_MAX:
        raise Validation.at("", f"{len(kept)} token keys are in use, which is the maximum; wait until some have ended")
    start = max(now_ms + wait_ms, max(key.start for key in kept) + 1)
    return _timed([*kept, replace(fresh, signs_from=start)], now_ms, overlap_ms)


def revoked(keys: Sequence[SigningKey], kid: str, fresh: SigningKey, now_ms: int, *, overlap_ms: int) -> list[SigningKey]:
    """Return the set without one key. If the key was signing, the next key signs at once, or `fresh` if no key waits.

    Raises:
        NotFound: no key has this id.
    """
    revoked_key = next((key for key in keys if key.kid == kid), None)
    if revoked_key is None:
        raise NotFound(f"there is no token key {kid[:128]}")
    kept = [key for key in keys if key is not revoked_key and not key.has_ended(now_ms)]
    if revoked_key is signer_at(keys, now_ms):
        waiting = [key for key in signers(kept) if key.start > now_ms]
        successor = waiting[0] if waiting else fresh
        kept = [*(key for key in kept if key is not successor), replace(successor, signs_from=now_ms)]
    return _timed(kept, now_ms, overlap_ms)


def _timed(keys: Sequence[SigningKey], now_ms: int, overlap_ms: int) -> list[SigningKey]:
    """Set the end of the signing key and of each later key, so that it outlasts the last token that the key signs. The last key has no end.

    Keys that have signed earlier keep their end. If a set that was written by hand gives them none, they end with the key that signs now.
    """
    succession = signers(keys)
    remaining = succession[succession.index(signer_at(keys, now_ms)) :]
    ends = {
        key.kid: None if successor is None else successor.start + overlap_ms
        for key, successor in zip(remaining, [*remaining[1:], None], strict=True)
    }
    current_end = ends[remaining[0].kid]
    timed = [
        replace(key, verifies_until=ends.get(key.kid, current_end if key.verifies_until is None else key.verifies_until))
        for key in keys
    ]
    return sorted(timed, key=lambda key: key.start)
