"""Removal of this service's own secrets from text. Each kind of secret has a fixed form, so that scanners can find a leaked one."""

import re

PATTERNS = {
    "service key": r"(gk_live_[0-9A-Za-z]{12}_)[0-9A-Za-z]{20,}",
    "refresh token": r"(gr_[0-9a-f]{32}[0-9A-Za-z]{12}_)[0-9A-Za-z]{20,}",
    "reset token": r"(gp_[0-9a-f]{32}_)[0-9A-Za-z]{20,}",
    "access token": r"(eyJ)[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{20,}\.[0-9A-Za-z_-]{80,}",
    "private key": r"([\"'\\]{1,8}[dk][\"'\\]{1,8}\s{0,8}:\s{0,8}[\"'\\]{1,8})[0-9A-Za-z_-]{43}",
}
"""Pattern of each kind of secret. The group may be shown, such as the id of a key. docs/operations.md lists them for other scanners."""
_ANY = re.compile("|".join(PATTERNS.values()))


def redacted(text: str) -> str:
    """Return the text with each of this service's secrets reduced to its identifying prefix."""
    return _ANY.sub(lambda match: f"{match[match.lastindex or 0]}…", text)
