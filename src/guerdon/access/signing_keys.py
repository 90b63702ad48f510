"""The timetable of the keys that sign access tokens: which one signs when, and what rotating and revoking make of a set. Pure.

A set without times is read as it always was: the first key signs, all of them verify. `signs_from` and `verifies_until` are members of our own,
which every other reader of a JWK ignores (RFC 7517, 4). All processes read one file, and each decides by its clock which key signs.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from guerdon.errors import NotFound, StartupRefused, Validation

KEYS_MAX = 16
State = Literal["next", "signing", "retiring", "verifying", "ended"]

Kid = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._~-]+$(?!\n)")]
_Moment = Annotated[int, Meta(ge=0, le=2**50)]


class SigningKey(Struct, frozen=True):
    """A private key as the file has it. Times are milliseconds since the epoch."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: Kid
    x: str
    d: str
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA", "Ed25519"] = "EdDSA"
    signs_from: _Moment | None = None
    """It signs from then on, until the next one does. None: from the beginning of time."""
    verifies_until: _Moment | None = None
    """From then on its tokens are refused, and it is published no longer. None: it has no end."""

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
    """Return the keys that ever sign, in the order in which they do; of those that begin at the same moment the first one signs."""
    line: list[SigningKey] = []
    for key in sorted(keys, key=lambda key: key.start):
        if not line or key.start > line[-1].start:
            line.append(key)
    return line


def signer_at(keys: Sequence[SigningKey], now_ms: int) -> SigningKey:
    """Return the key that signs at this moment; before the first one's time, which only a wrong clock can show, it is the first one."""
    line = signers(keys)
    return next((key for key in reversed(line) if key.start <= now_ms), line[0])


def require_succession(keys: Sequence[SigningKey]) -> None:
    """
    Raises:
        StartupRefused: a key ends while it still is the one that signs.
    """
    line = signers(keys)
    for key, following in zip(line, [*line[1:], None], strict=True):
        if key.verifies_until is not None and (following is None or following.start > key.verifies_until):
            raise StartupRefused(f"the token key {key.kid} ends before another one signs")


def state_of(key: SigningKey, keys: Sequence[SigningKey], now_ms: int) -> State:
    if key.has_ended(now_ms):
        return "ended"
    if key is signer_at(keys, now_ms):
        return "signing"
    if key.start > now_ms:
        return "next"
    return "verifying" if key.verifies_until is None else "retiring"


def rotated(keys: Sequence[SigningKey], fresh: SigningKey, now_ms: int, *, wait_ms: int, overlap_ms: int) -> list[SigningKey]:
    """Return the set after a rotation: `fresh` is known now and signs after the wait; who signs until then verifies for the overlap.

    What has ended is dropped. Where another key waits to sign already, the fresh one comes after it.

    Raises:
        Validation: too many keys are in use.
    """
    kept = [key for key in keys if not key.has_ended(now_ms)]
    if len(kept) >= KEYS_MAX:
        raise Validation.at("", f"{len(kept)} token keys are in use, which is the most; wait until some have ended")
    start = max(now_ms + wait_ms, max(key.start for key in kept) + 1)
    return _timed([*kept, replace(fresh, signs_from=start)], now_ms, overlap_ms)


def revoked(keys: Sequence[SigningKey], kid: str, fresh: SigningKey, now_ms: int, *, overlap_ms: int) -> list[SigningKey]:
    """Return the set without one key. If it was the one that signs, the next one does at once or, where none waits, `fresh`.

    Raises:
        NotFound: no key has this name.
    """
    gone = next((key for key in keys if key.kid == kid), None)
    if gone is None:
        raise NotFound(f"there is no token key {kid[:128]}")
    kept = [key for key in keys if key is not gone and not key.has_ended(now_ms)]
    if gone is signer_at(keys, now_ms):
        waiting = [key for key in signers(kept) if key.start > now_ms]
        heir = waiting[0] if waiting else fresh
        kept = [*(key for key in kept if key is not heir), replace(heir, signs_from=now_ms)]
    return _timed(kept, now_ms, overlap_ms)


def _timed(keys: Sequence[SigningKey], now_ms: int, overlap_ms: int) -> list[SigningKey]:
    """Give each key from the one that signs now its end: the last token that it signs is believed until then. The last key has none.

    Keys that have signed before keep their end. Where a set made by hand has given them none, they go with the one that signs now.
    """
    line = signers(keys)
    ahead = line[line.index(signer_at(keys, now_ms)) :]
    ends = {
        key.kid: None if following is None else following.start + overlap_ms
        for key, following in zip(ahead, [*ahead[1:], None], strict=True)
    }
    behind = ends[ahead[0].kid]
    timed = [
        replace(key, verifies_until=ends.get(key.kid, behind if key.verifies_until is None else key.verifies_until)) for key in keys
    ]
    return sorted(timed, key=lambda key: key.start)
