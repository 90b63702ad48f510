"""Name and version of the engine, which every recorded event carries."""

from importlib.metadata import version

DECIDING_VERSION = 5
"""Version of the evaluation. It is incremented with each change after which equal inputs may give another decision or another reason."""
ENGINE = f"guerdon-deciding/{DECIDING_VERSION} cel-expr-python/{version('cel-expr-python')}"
