"""What decides, by name and version: it is written on every event, so that nobody has to guess what judged it."""

from importlib.metadata import version

DECIDING_VERSION = 4
"""Counts the changes of our own judging after which the same inputs may give another decision or another reason."""
ENGINE = f"guerdon-deciding/{DECIDING_VERSION} cel-expr-python/{version('cel-expr-python')}"
