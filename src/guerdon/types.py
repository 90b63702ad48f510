"""Types of values that many packages take: bounded texts, external ids, metadata and pages."""

import unicodedata
from typing import Annotated, Literal

from msgspec import Meta, Struct

PAGE_MAX = 100
EXPECTED = "expected"
"""Key of `Meta.extra` for the words that state what a pattern accepts."""
_CLEAN = {EXPECTED: "must not contain control or direction-override characters"}
# `$(?!\n)`: `$` alone matches before a final line feed in Python, and JSON Schema does not have `\Z`.
# Control characters (C0, DEL and C1), line and paragraph separators and direction overrides can make two different texts look alike in a
# console or a log, or one line look like two. An unpaired surrogate is no character.
_UNCLEAN = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
CLEAN_PATTERN = rf"^[^{_UNCLEAN}]*$(?!\n)"
# What is compared must not contain invisible characters. The joiners U+200C and U+200D are a part of Persian words and of emoji.
_UNSEEN = r"\u00ad\u061c\u180e\u200b\u200e\u200f\u2060-\u2065\ufeff\ufff9-\ufffb"
ID_PATTERN = rf"^[^{_UNCLEAN}{_UNSEEN}]*$(?!\n)"
"""Pattern of all texts that are compared: ids, references, SKUs and categories."""
_SEEN = {EXPECTED: "must not contain control, direction-override or invisible characters"}
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=CLEAN_PATTERN, extra=_CLEAN)]
LongText = Annotated[str, Meta(min_length=1, max_length=2000, pattern=CLEAN_PATTERN, extra=_CLEAN)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=128, pattern=ID_PATTERN, extra=_SEEN, examples=["17850"])]
Sku = Annotated[str, Meta(min_length=1, max_length=200, pattern=ID_PATTERN, extra=_SEEN, examples=["85123A"])]
Category = Annotated[str, Meta(min_length=1, max_length=200, pattern=ID_PATTERN, extra=_SEEN, examples=["cheese"])]
KEY_WORDS = "must consist of letters, digits, _ and -"
_PERMANENT = "Stays on the ledger permanently, even after an erasure: no personal data."
Reason = Annotated[str, Meta(min_length=1, max_length=200, pattern=CLEAN_PATTERN, extra=_CLEAN, description=_PERMANENT)]
Reference = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=ID_PATTERN, extra=_SEEN, examples=["order-1001"], description=_PERMANENT)
]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$(?!\n)", extra={EXPECTED: KEY_WORDS})],
        Annotated[str, Meta(max_length=200, pattern=CLEAN_PATTERN, extra=_CLEAN)],
    ],
    Meta(max_length=20, description=_PERMANENT),
]


def nfc(text: str) -> str:
    """Return a text in the Unicode form NFC, in which all texts are stored and compared."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """One page of a list, newest first."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50
    """Maximum number of items of the page."""
    cursor: Annotated[str, Meta(max_length=200)] | None = None
    """`next_cursor` of the page before. Leave it out for the first page."""


# A segment of `/v1/events/{event_id}`: `preview` and `bulk` are other routes, and clients drop the segments `.` and `..`.
EventId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=rf"^(?!(?:preview|bulk|\.{{1,2}})$){ID_PATTERN.removeprefix('^')}",
        extra={EXPECTED: f"{_SEEN[EXPECTED]}, and not be preview, bulk, . or .."},
        examples=["order-1001"],
    ),
]
CODE_PATTERN = rf"^[^{_UNCLEAN}{_UNSEEN}\u200c\u200d]*$(?!\n)"
CodeText = Annotated[
    str,
    Meta(
        min_length=4,
        max_length=64,
        pattern=CODE_PATTERN,
        extra={EXPECTED: _SEEN[EXPECTED]},
        examples=["WELCOME-10"],
    ),
]
"""A code that people chose. `offers.code_patterns.normalise` defines which codes are equal."""
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
