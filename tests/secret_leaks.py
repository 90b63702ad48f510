"""Finds our own secrets where they do not belong."""

import re

from guerdon.crypto.redaction import PATTERNS


def leaks(text: str) -> list[str]:
    """The kinds of secrets that a text holds."""
    return [kind for kind, pattern in PATTERNS.items() if re.search(pattern, text)]


def assert_keeps_secrets(text: str, where: str) -> None:
    assert not leaks(text), f"{where} holds a secret: {text[:2000]}"
