"""Declarations of personal data by each package: rows that an erasure deletes, and fields that a master key seals."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from guerdon.database import Document

ERASURES = "erasures"
"""Collection of the certificates of erasures."""
ERASED = "memberErased"
"""Action of the record in the audit log that contains the digest of a certificate."""


class ErasableRows(Struct, frozen=True):
    """Rows about one person that an erasure deletes."""

    name: str
    """Name in the certificate of an erasure."""
    collection: str
    where: Callable[[str], Document]
    """Function that returns the filter of a member's rows; an index must serve it."""
    by: Literal["member", "address"] = "member"
    """Argument of `where`: the member's id, or the claim of an address."""


class SealedField(Struct, frozen=True):
    """A field that is sealed by a master key; a rotation seals it with the new key."""

    collection: str
    field: str
    context: Callable[[Document], str]
    """Function that returns the context to which the field of a document is bound."""
