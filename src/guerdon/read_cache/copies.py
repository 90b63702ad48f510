"""Copies of accounts as bytes. Pure.

A copy begins with the account's `seq` and the time until which it may be used, both with a fixed number of digits. The store compares these
without understanding the rest: of two copies, the one with the larger beginning is the newer.
"""

import re
import zlib

import msgspec
from msgspec import Struct

from guerdon.ledger.models import SEQ_DIGITS, Account

AGE_MS_MAX = 60_000
"""Time after which no copy is used, even if the store has kept it."""
TIME_DIGITS = 15
HEAD_BYTES = SEQ_DIGITS + TIME_DIGITS + 2
COPY_BYTES_MAX = 64 * 1024
"""Size above which an account is not copied: it has thousands of lots in holds, and is read from the database."""
SHAPE = f"{zlib.crc32(msgspec.json.encode(msgspec.json.schema(Account))):08x}"
"""Digest of the fields of an account. It is part of every key, so that a version with other fields does not read these copies."""
_HEAD = re.compile(rb"([0-9]{%d})\|([0-9]{%d})\|" % (SEQ_DIGITS, TIME_DIGITS))
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Account).decode


class Copy(Struct, frozen=True):
    """An account as it was stored at some time, and the time until which it may be used, in milliseconds."""

    account: Account
    valid_until: int


class MalformedCopy(ValueError):
    """The bytes are not a copy of the account."""


def usable_until(account: Account, read_at_ms: int, jitter_ms: int) -> int:
    """Return the time until which a copy of an account that was read at a time may be used.

    It ends when a lot or a hold of the account ends, because the ledger books that. `jitter_ms` spreads the ends of copies that were made together.
    """
    until = read_at_ms + AGE_MS_MAX - jitter_ms
    return until if account.due_at is None else min(until, account.due_at)


def pack(copy: Copy) -> bytes | None:
    """Return a copy as bytes, or None if it is too large."""
    body = _encode(copy.account)
    if len(body) > COPY_BYTES_MAX - HEAD_BYTES:
        return None
    return b"%0*d|%0*d|%b" % (SEQ_DIGITS, copy.account.seq, TIME_DIGITS, max(copy.valid_until, 0), body)


def unpack(data: bytes, account_id: str) -> Copy:
    """Return the copy of an account.

    Raises:
        MalformedCopy: The bytes are something else, or the copy of another account.
    """
    head = _HEAD.match(data)
    if head is None or len(data) > COPY_BYTES_MAX:
        raise MalformedCopy("not a copy")
    try:
        account = _decode(memoryview(data)[HEAD_BYTES:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise MalformedCopy("not a copy of an account") from error
    if account.id != account_id or account.owner != account_id.rpartition(":")[0] or account.seq != int(head[1]):
        raise MalformedCopy("the copy of another account")
    return Copy(account, int(head[2]))
