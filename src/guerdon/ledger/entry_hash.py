"""The hash of an entry: which stored fields it covers, and in which form."""

import hashlib
from operator import attrgetter
from typing import Any

import msgspec

from guerdon.ledger.models import Entry

_canonical = msgspec.json.Encoder(order="sorted")
HASHED_FIELDS = (
    "_id", "owner", "asset", "transaction", "kind", "amount", "balance_after", "held_after", "counter", "actor", "at", "reason",
    "reference", "key", "fingerprint", "metadata", "once",
    "pair", "lots", "hold", "reverses", "terms", "spent", "spendable_after", "attempt", "evidence", "effective_at", "sides", "rate",
)  # fmt: skip
"""Stored names of the hashed fields of an entry: every field except `prev` and `hash`. docs/verify.md publishes this list.

The first `POSITIONAL_FIELDS` names and their order are frozen. Add a new field at the end.
"""
POSITIONAL_FIELDS = 17
"""Number of fields that are always elements of the hashed array; the others form one object at its end, where they are set."""
_NAMES = {info.encode_name: info.name for info in msgspec.structs.fields(Entry)}
_positional_values = attrgetter(*(_NAMES[stored] for stored in HASHED_FIELDS[:POSITIONAL_FIELDS]))
_OPTIONAL = HASHED_FIELDS[POSITIONAL_FIELDS:]
_optional_values = attrgetter(*(_NAMES[stored] for stored in _OPTIONAL))
_NO_OPTIONAL_VALUES = (None,) * len(_OPTIONAL)
_Optional = msgspec.defstruct("_Optional", [(stored, Any, None) for stored in _OPTIONAL], omit_defaults=True, frozen=True)
_FINGERPRINT, _UNIQUE_KEYS = HASHED_FIELDS.index("fingerprint"), HASHED_FIELDS.index("once")


def entry_hash(entry: Entry) -> bytes:
    """Return the SHA-256 of the previous hash and the canonical JSON array of `HASHED_FIELDS`.

    Canonical JSON has sorted keys, no white space, and binary values as lower-case hexadecimal, so that a program in any language can
    check a chain. docs/verify.md specifies it.
    """
    elements = [*_positional_values(entry)]
    if (fingerprint := entry.fingerprint) is not None:
        elements[_FINGERPRINT] = fingerprint.hex()
    if (unique_keys := entry.unique_keys) is not None:
        elements[_UNIQUE_KEYS] = [*map(bytes.hex, unique_keys)]
    optional = _optional_values(entry)
    if optional != _NO_OPTIONAL_VALUES:
        elements.append(_Optional(*optional))
    return hashlib.sha256(entry.prev + _canonical.encode(elements)).digest()
