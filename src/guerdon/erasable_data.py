"""How a room says what it keeps about people: the rows that an erasure deletes, and the fields that a master key has sealed."""

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from guerdon.database import Document


class ErasableRows(Struct, frozen=True):
    """Rows about one person that go when the person does."""

    name: str
    """What they are called in the certificate of an erasure."""
    collection: str
    where: Callable[[str], Document]
    """Return the filter of a member's rows; an index must serve it."""
    by: Literal["member", "address"] = "member"
    """What `where` is asked with: the member's id, or the claim of an address."""


class SealedField(Struct, frozen=True):
    """A field that a master key has sealed: what a rotation of the master keys seals again."""

    collection: str
    field: str
    context: Callable[[Document], str]
    """Return the context that a document's field is bound to."""
