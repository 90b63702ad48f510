"""Validation errors as JSON Pointers and details."""

import re
from typing import NoReturn

import msgspec

from guerdon.errors import Validation
from guerdon.types import CLEAN_PATTERN

_AT, _KEY_IN = " - at `", "key` in `"
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)
_INDEX = re.compile(r"\[(\d+)\]")


def raise_validation(error: msgspec.ValidationError, *, body: bool) -> NoReturn:
    """Turn msgspec's sentence ("… - at `$.commands[1].amount`") into a JSON Pointer and a detail."""
    what, at, place = str(error).rpartition(_AT)
    if not at:
        what, place = place, "$`"
    path = place.removesuffix("`").removeprefix(_KEY_IN).removeprefix("$")
    path = _INDEX.sub(r"/\1", path.replace("[...]", "")).replace(".", "/")
    unknown = _UNKNOWN.match(what)
    if unknown:
        path, what = f"{path}/{unknown[1]}", "unknown field"
    elif repr(CLEAN_PATTERN) in what:
        what = "Expected text without control or direction-override characters"
    elif place.startswith(_KEY_IN):
        what = f"A key is not acceptable: {what}"
    raise Validation.at(path if body else path.removeprefix("/"), what.replace("`", ""))
