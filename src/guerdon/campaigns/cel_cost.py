"""Upper bound of the time that a condition takes, from its source and the number of line items of the event. Pure.

The engine blocks the process while it evaluates and cannot be interrupted: a condition that takes a second delays every request for a
second. Its cost is therefore bounded before the evaluation, and a condition that could take too long is an error of its campaign. The figures
are microseconds on a slow core for the slowest operations that were measured.
"""

import re
from functools import lru_cache

CONDITION_US_MAX = 30_000
"""Maximum cost of a condition on one event, in microseconds."""
COMMIT_US_MAX = 40_000
"""Maximum cost of all conditions of an event that are evaluated in the commit, in microseconds. Other tasks run between all other conditions."""
ITEMS_SURE = 100
"""Number of line items for which the cost of a condition is checked when it is saved."""
_TURN_US, _NAME_US, _OTHER_US, _ITEM_US, _PART_US, _ADDED_US = 1.0, 1.5, 0.4, 5.0, 0.5, 0.14
"""Cost of an iteration of a list macro, of a name, and of any other token; of an item, and of an attribute, that is compared or joined as a
whole; and of an item that `filter` or `map` has kept before, because the engine copies the list for each item that it adds."""
_TOKEN = re.compile(
    r"""
      \.(?P<walk>all|exists|exists_one|filter|map)\(
    | (?P<whole>(?<!\w)(?<![\w)\]}]\.)event(?:\.items)?(?!\w|\.\w|\[))
    | (?P<few>(?<!\w)(?:(?<![\w)\]}]\.)member|attributes)(?!\w|\.\w|\[))
    | (?P<name>[A-Za-z_]\w*)
    | (?P<sign>[(){}\[\].])
    | (?P<other>[0-9][0-9a-zA-Z.]*|''|[^\s\w])
    """,
    re.VERBOSE,
)


PARTS_MIN = 20
"""Maximum number of attributes of an event or a member."""


@lru_cache(maxsize=16384)
def cost_us(code: str, items: int) -> float:
    """Return the maximum cost of code without string literals and comments on an event with this number of items, in microseconds."""
    return _cost_us(code, items, max(items, PARTS_MIN, code.count(",") + 1))


def _cost_us(code: str, items: int, parts: int) -> float:
    """Return the cost; `parts` is the maximum length of any other list or map."""
    total, at = 0.0, 0
    while (token := _TOKEN.search(code, at)) is not None:
        at = token.end()
        if token["walk"] is not None:
            end = _closing(code, at)
            turns = items if code.endswith("event.items", 0, token.start()) else parts
            total += turns * (_TURN_US + _cost_us(code[at:end], items, parts))
            if token["walk"] in ("filter", "map"):
                total += turns * turns * _ADDED_US
            at = end
        elif token["whole"] is not None:
            total += _NAME_US if code.endswith("size(", 0, token.start()) else items * _ITEM_US
        elif token["few"] is not None:
            total += PARTS_MIN * _PART_US
        elif token["name"] is not None:
            total += _NAME_US
        elif token["other"] is not None:
            total += _OTHER_US
    return total


def _closing(code: str, at: int) -> int:
    """Return the index of the bracket that closes the one before `at`, or the end if none does."""
    depth = 1
    for index in range(at, len(code)):
        depth += (code[index] in "([{") - (code[index] in ")]}")
        if not depth:
            return index
    return len(code)
