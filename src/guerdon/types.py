"""Types of values that many packages take: bounded texts, external ids, metadata and pages."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

PAGE_MAX = 100
EXPECTED = "expected"
"""Key of `Meta.extra` for the words that state what a pattern accepts."""
_CLEAN = {EXPECTED: "must not contain control or direction-override characters"}
# `$(?!\n)`: `$` alone matches before a final line feed in Python, and JSON Schema does not have `\Z`.
# Control characters and direction overrides can make two different texts look alike in a console or a log.
CLEAN_PATTERN = r"^[^\u0000-\u001f\u007f\u202a-\u202e\u2066-\u2069\ud800-\udfff]*$(?!\n)"
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=CLEAN_PATTERN, extra=_CLEAN)]
LongText = Annotated[str, Meta(min_length=1, max_length=2000, pattern=CLEAN_PATTERN, extra=_CLEAN)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=128, pattern=CLEAN_PATTERN, extra=_CLEAN, examples=["17850"])]
KEY_WORDS = "must consist of letters, digits, _ and -"
_PERMANENT = "Stays on the ledger permanently, even after an erasure: no personal data."
Reason = Annotated[str, Meta(min_length=1, max_length=200, pattern=CLEAN_PATTERN, extra=_CLEAN, description=_PERMANENT)]
Reference = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=CLEAN_PATTERN, extra=_CLEAN, examples=["order-1001"], description=_PERMANENT)
]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$(?!\n)", extra={EXPECTED: KEY_WORDS})],
        Annotated[str, Meta(max_length=200, pattern=CLEAN_PATTERN, extra=_CLEAN)],
    ],
    Meta(max_length=20, description=_PERMANENT),
]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """One page of a list, newest first."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50
    """Maximum number of items of the page."""
    cursor: Annotated[str, Meta(max_length=200)] | None = None
    """`next_cursor` of the page before. Leave it out for the first page."""


# Visible ASCII that can be the last segment of `/v1/events/{event_id}`.
_EVENT_ID = r"^(?!preview$|bulk$|\.{1,2}$)[\u0021-\u002e\u0030-\u007e]+$(?!\n)"
EventId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=_EVENT_ID,
        extra={EXPECTED: "must be visible ASCII characters without /, and not preview, bulk, . or .."},
        examples=["order-1001"],
    ),
]
MemberId = Annotated[
    str,
    Meta(
        max_length=40, pattern=r"^mem_[0-9a-f]{32}$(?!\n)", extra={EXPECTED: "must be a member id: mem_ and 32 hexadecimal digits"}
    ),
]
DefinitionStatus = Literal["draft", "active", "paused", "ended"]
"""Status of a definition with versions: a campaign or an offer."""


class DefinitionWarning(Struct, frozen=True):
    """Something in a saved campaign or offer that is valid and probably not meant."""

    pointer: str
    """JSON Pointer of the value in the request."""
    detail: str
    """Sentence that states what is unusual about the value."""
