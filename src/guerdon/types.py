"""Types of values that many packages take: bounded texts, external ids, metadata and pages."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

PAGE_MAX = 100
# `$(?!\n)`: in Python, `$` matches before a final line feed, and JSON Schema has no `\Z`.
# Control characters and bidirectional overrides are refused, because they make different texts look alike in a console or a log.
CLEAN_PATTERN = r"^[^\u0000-\u001f\u007f\u202a-\u202e\u2066-\u2069\ud800-\udfff]*$(?!\n)"
Text = Annotated[str, Meta(min_length=1, max_length=200, pattern=CLEAN_PATTERN)]
LongText = Annotated[str, Meta(min_length=1, max_length=2000, pattern=CLEAN_PATTERN)]
ExternalId = Annotated[str, Meta(min_length=1, max_length=128, pattern=CLEAN_PATTERN, examples=["17850"])]
_KEPT = "Kept permanently on the ledger, even after an erasure: it must not contain personal data."
Reason = Annotated[str, Meta(min_length=1, max_length=200, pattern=CLEAN_PATTERN, description=_KEPT)]
Reference = Annotated[str, Meta(min_length=1, max_length=128, pattern=CLEAN_PATTERN, examples=["order-1001"], description=_KEPT)]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+$(?!\n)")],
        Annotated[str, Meta(max_length=200, pattern=CLEAN_PATTERN)],
    ],
    Meta(max_length=20, description=_KEPT),
]


class PageQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """One page of a list, newest first."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = 50
    """Maximum number of items."""
    cursor: Annotated[str, Meta(max_length=200)] | None = None
    """`next_cursor` of the previous page; the first page if absent."""


# Visible ASCII, without the texts that cannot be the last segment of `/v1/events/{event_id}`.
_EVENT_ID = r"^(?!preview$|bulk$|\.{1,2}$)[\u0021-\u002e\u0030-\u007e]+$(?!\n)"
EventId = Annotated[str, Meta(min_length=1, max_length=128, pattern=_EVENT_ID, examples=["order-1001"])]
MemberId = Annotated[str, Meta(max_length=40, pattern=r"^mem_[0-9a-f]{32}$(?!\n)")]
DefinitionStatus = Literal["draft", "active", "paused", "ended"]
"""Status of a definition with versions: a campaign or an offer."""
