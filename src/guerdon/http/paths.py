"""Segments of paths, decoded one by one."""

from urllib.parse import unquote_to_bytes

from guerdon.types import nfc

SLASH = "\u001f"
"""Stands for a slash within a segment. It is a control character, which no id and no code can contain."""


def segments_of(path: str, raw: bytes) -> str:
    """Return the decoded path, in which a slash within a segment is `SLASH`. `raw` is the path as it was sent, if the server passed it on."""
    if b"%2f" in raw.lower():
        decoded = (unquote_to_bytes(segment).decode("utf-8", "replace") for segment in raw.split(b"/"))
        path = "/".join(_shut(segment) for segment in decoded)
    elif SLASH in path:
        path = path.replace(SLASH, "\ufffd")
    return nfc(path)


def parameter_of(segment: str) -> str:
    """Return the value of a path parameter."""
    return segment.replace(SLASH, "/")


def _shut(segment: str) -> str:
    return segment.replace(SLASH, "\ufffd").replace("/", SLASH)
