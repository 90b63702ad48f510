"""What our own secrets look like. They have forms of their own so that a scanner finds one in the wrong place, and so do we."""

import re

PATTERNS = {
    "service key": r"(gk_live_[0-9A-Za-z]{12}_)[0-9A-Za-z]{20,}",
    "refresh token": r"(gr_[0-9a-f]{32}[0-9A-Za-z]{12}_)[0-9A-Za-z]{20,}",
    "reset token": r"(gp_[0-9a-f]{32}_)[0-9A-Za-z]{20,}",
    "access token": r"(eyJ)[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{80,}",
    "private key": r"([\"'\\]{1,8}[dk][\"'\\]{1,8}\s{0,8}:\s{0,8}[\"'\\]{1,8})[0-9A-Za-z_-]{43}",
}
"""By kind; the group is what may be shown, such as the id of a key. docs/operations.md repeats them for other people's scanners."""
_ANY = re.compile("|".join(PATTERNS.values()))


def redacted(text: str) -> str:
    """Return the text without our own secrets: of each only what tells which one it was."""
    return _ANY.sub(lambda match: f"{match[match.lastindex or 0]}…", text)
