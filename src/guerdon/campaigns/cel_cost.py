"""How long a condition may take, by its text and the number of items of the event. Pure.

The engine holds the whole process while it evaluates, and cannot be told to stop: a condition that takes a second stops everybody for a
second. So what it may take is worked out before, from above, and what would take too long is an error of its campaign. The figures are
microseconds of a slow core for what the engine was seen to do most slowly; `tests/unit/test_costs.py` measures the worst that they let pass.
"""

import re
from functools import lru_cache

CONDITION_US_MAX = 30_000
"""What a condition may take on one event."""
STANDING_US_MAX = 40_000
"""What all conditions of an event together may take that are evaluated in the commit; all others let the process do something else between
one and the next."""
ITEMS_SURE = 100
"""A condition that takes too long on so many items is refused when it is saved."""
_TURN_US, _NAME_US, _OTHER_US, _ITEM_US, _PART_US, _ADDED_US = 1.0, 1.5, 0.4, 5.0, 0.5, 0.14
"""A turn of a walk; a name that is read; everything else in a condition; an item, and an attribute, of what is compared or joined whole; and,
since the engine copies a list for each item that it adds, an item that `filter` or `map` has kept already."""
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
"""So many attributes may an event and a member have."""


@lru_cache(maxsize=16384)
def cost_us(code: str, items: int) -> float:
    """At most so long does this code, without its texts and comments, take on an event of so many items."""
    return _cost_us(code, items, max(items, PARTS_MIN, code.count(",") + 1))


def _cost_us(code: str, items: int, parts: int) -> float:
    """`parts`: no list and no map in it has more."""
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
    """The place of the bracket that closes the one right before `at`; the end where none does."""
    depth = 1
    for place in range(at, len(code)):
        depth += (code[place] in "([{") - (code[place] in ")]}")
        if not depth:
            return place
    return len(code)
