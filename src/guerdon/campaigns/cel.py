"""The one door to the CEL engine (https://github.com/google/cel-spec), with its traps closed.

A failed evaluation is a value of type ERROR that is truthy in Python, so only a value of type BOOL that `is True` counts as true.
Conditions are compiled, checked for type BOOL and for known field names when a campaign is saved. The engine bounds loops and depth.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs]

from guerdon.campaigns.cel_cost import CONDITION_US_MAX, ITEMS_SURE, cost_us
from guerdon.errors import Validation

EVENT_FIELDS = frozenset({"id", "type", "amount", "currency", "items", "attributes", "occurred_at"})
PERSONAL_FIELDS = frozenset({"external_id", "attributes", "birthday_today", "birthday_month"})
STANDING_FIELDS = frozenset({"tier", "segments", "first_purchase", "days_since_last", "referred"})
MEMBER_FIELDS = PERSONAL_FIELDS | STANDING_FIELDS | {"id"}
_FIELDS = {"event": EVENT_FIELDS, "member": MEMBER_FIELDS}
# What is no code: comments, and texts in the forms that CEL knows. One that never ends matches to the end of its line or of the source, and
# nothing is tried twice (`*+`); the compiler says what is wrong with it.
_STRINGS = re.compile(
    r"""
      //[^\n\r]*+
    | (?:[rR][bB]?|[bB][rR]) (?: \"{3}(?:[^"]|"(?!""))*+(?:\"{3})? | '{3}(?:[^']|'(?!''))*+(?:'{3})? | "[^"\n\r]*+"? | '[^'\n\r]*+'? )
    | \"{3}(?:[^"\\]|\\.|"(?!""))*+(?:\"{3})? | '{3}(?:[^'\\]|\\.|'(?!''))*+(?:'{3})?
    | "(?:[^"\\\n\r]|\\.)*+"? | '(?:[^'\\\n\r]|\\.)*+'?
    """,
    re.DOTALL | re.VERBOSE,
)
_ACCESS = re.compile(r"(?<!\w)(?<![\w)\]}]\.)(event|member)\.([A-Za-z_]\w*)")
"""A dot before a variable changes nothing (`.event.amount`), unless something is before the dot."""
_MEMBER = re.compile(r"\bmember\b(?:\.([A-Za-z_]\w*))?")
_FLAGS = frozenset({"member.first_purchase", "member.birthday_today", "member.birthday_month", "member.referred"})
"""The fields that are conditions by themselves; the engine knows the types of fields only when it reads them."""
_WALK = re.compile(r"\.(all|exists|exists_one|filter|map)\(")
_PARTS = re.compile(
    r"\bevent\.(?:(?!items\b)[A-Za-z_]\w*|items\.(?:all|exists|exists_one|filter|map|size)\()|\bsize\(event\.items(?= ?\))"
)
_WHOLE = re.compile(r"(?<!\w)(?<![\w)\]}]\.)event\b")
_PLACE = re.compile(r"<input>:([0-9]{1,9}):([0-9]{1,9})")
_MATCHES = re.compile(r"\bmatches\(")
WALKS_MAX, JOINS_MAX = 3, 2
"""Walks through lists in one condition, and `+` beside a single one. The engine bounds the turns of a walk, but not what each of them makes:
24 walks, each of which doubled a list, took 46 seconds and gigabytes; one that compares the items with themselves 60 times took a minute, and
one that tries a pattern of 100 characters on each item, 43 seconds: the engine compiles it at each turn."""
_COMPILED_MAX = 4096
_KEY_NOT_FOUND = "Key not found in map"


class _Compiled:
    """A compiled expression over `event`, `member` and `now`."""

    __slots__ = ("_code", "_expression", "reads_member", "reads_standing", "source")

    def __init__(self, source: str, expression: Any) -> None:
        self._code = _code_of(source)
        read = set(_MEMBER.findall(self._code))
        self.source = source
        # Whoever takes the whole member, as in `member["tier"]`, may read anything of it.
        self.reads_member = not read <= STANDING_FIELDS
        self.reads_standing = not read.isdisjoint({"", *STANDING_FIELDS})
        self._expression = expression

    def cost_us(self, items: int) -> float:
        """At most so long does it take on an event of so many items."""
        return cost_us(self._code, items)

    def _value(self, facts: Any, *wanted: Any) -> tuple[Any, str | None]:
        """Return (value, None), or (None, why there is none)."""
        try:
            value = self._expression.eval(facts)
        except RuntimeError as error:
            return None, self._reason(str(error))
        kind = value.type()
        if kind in wanted:
            return value.value(), None
        return None, self._reason(str(value.value()) if kind == cel.Type.ERROR else f"it is of type {kind.name()}")

    def _reason(self, error: str) -> str:
        """What may stand in a decision, which is kept for ever: the library's sentence can quote what is known about the member."""
        if not self.reads_member:
            return error[:200]
        code = error.partition(":")[0][:40]
        return f"{code}: {_KEY_NOT_FOUND}" if _KEY_NOT_FOUND in error else f"{code} (it reads the member, so it is not quoted)"


class Condition(_Compiled):
    """It holds, or it does not."""

    __slots__ = ()

    def judge(self, facts: Any) -> tuple[bool, str | None]:
        """Return (holds, error) for the facts that `facts_of` made. What cannot be evaluated does not hold, and says why."""
        if self.source == "true":
            return True, None  # Most audiences: they need no engine.
        value, error = self._value(facts, cel.Type.BOOL)
        return value is True, error


class Formula(_Compiled):
    """It gives a number."""

    __slots__ = ()

    def evaluate(self, facts: Any) -> tuple[int | float | None, str | None]:
        """Return (number, None), or (None, error)."""
        return self._value(facts, cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE)


def _code_of(source: str) -> str:
    """The source with empty texts, without comments and without spaces around dots and opening brackets."""
    code = _STRINGS.sub(lambda found: " " if found[0].startswith("//") else "''", source)
    code = " ".join(code.split())
    for sign in ".(":
        code = code.replace(f" {sign}", sign).replace(f"{sign} ", sign)
    return code


@lru_cache(maxsize=1)
def _environment() -> Any:
    fields = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables={"event": fields, "member": fields, "now": cel.Type.TIMESTAMP})


@lru_cache(maxsize=1)
def _environment_of_members() -> Any:
    """Where there is no event: what an offer asks."""
    return cel.NewEnv(variables={"member": cel.Type.Map(cel.Type.STRING, cel.Type.DYN), "now": cel.Type.TIMESTAMP})


def facts_of(event: dict[str, Any], member: dict[str, Any], now_ms: int) -> Any:
    """Convert what conditions see, once for all conditions: amounts as integers, times inside `event` as RFC 3339 text."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return _environment().Activation({"event": event, "member": member, "now": now})


def facts_of_member(member: dict[str, Any], now_ms: int) -> Any:
    """Convert what an eligibility sees, once for all of them."""
    return _environment_of_members().Activation({"member": member, "now": datetime.fromtimestamp(now_ms / 1000, UTC)})


def require_bounded(source: str, pointer: str) -> None:
    """Hold a new condition to a form that cannot make much of little; `pointer` names it in the error.

    Raises:
        Validation: it walks through lists too often, joins or compares too much while it does, or tries a pattern.
    """
    code = _code_of(source)
    walks, joins = _WALK.findall(code), code.count("+")
    if len(walks) > WALKS_MAX or walks.count("map") > 1 or joins > (JOINS_MAX if len(walks) == 1 else 0 if walks else joins):
        raise Validation.at(
            pointer,
            f"a condition walks through lists at most {WALKS_MAX} times and maps once; `+` stands beside one walk, at most twice",
        )
    if walks and _WHOLE.search(_PARTS.sub("_", code)):
        raise Validation.at(
            pointer, "beside a walk through a list, `event` stands before a field, and `event.items` before a walk or in `size`"
        )
    if cost_us(code, ITEMS_SURE) > CONDITION_US_MAX:
        raise Validation.at(
            pointer, f"a condition that could take so long on an event of {ITEMS_SURE} items would hold up everybody else"
        )
    if _MATCHES.search(code):
        raise Validation.at(pointer, "a condition tries no patterns: use startsWith, endsWith, contains or ==")


@lru_cache(maxsize=_COMPILED_MAX)
def compile_condition(source: str, pointer: str) -> Condition:
    """Compile and check a condition; `pointer` names it in the error. Equal texts share one compiled form.

    Raises:
        Validation: it does not compile, is not of type bool, or names a field that neither event nor member has.
    """
    return _condition(source, _compile(source, pointer, _environment()), pointer)


@lru_cache(maxsize=_COMPILED_MAX)
def compile_eligibility(source: str, pointer: str) -> Condition:
    """Like `compile_condition`, for a condition over `member` and `now` alone.

    Raises:
        Validation: it does not compile, is not of type bool, or names something else.
    """
    return _condition(source, _compile(source, pointer, _environment_of_members()), pointer)


def _condition(source: str, expression: Any, pointer: str) -> Condition:
    if expression.return_type() != cel.Type.BOOL and _code_of(source).strip() not in _FLAGS:
        kind = expression.return_type().name()
        raise Validation.at(pointer, f"the expression is of type {kind}; a condition must be of type BOOL")
    return Condition(source, expression)


@lru_cache(maxsize=_COMPILED_MAX)
def compile_formula(source: str, pointer: str) -> Formula:
    """Compile and check a formula. What it reads of the event has no type before there is one, so DYN passes and is checked then.

    Raises:
        Validation: it does not compile, gives no number, or names a field that neither event nor member has.
    """
    expression = _compile(source, pointer, _environment())
    if expression.return_type() not in (cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE, cel.Type.DYN):
        kind = expression.return_type().name()
        raise Validation.at(pointer, f"the expression is of type {kind}; a formula must give a number")
    return Formula(source, expression)


def _compile(source: str, pointer: str, environment: Any) -> Any:
    for name, field in _ACCESS.findall(_code_of(source)):
        if field not in _FIELDS[name]:
            raise Validation.at(pointer, f"{name}.{field} does not exist; {name} has {', '.join(sorted(_FIELDS[name]))}")
    try:
        return environment.compile(source)
    except (RuntimeError, ValueError) as error:
        raise _refused(pointer, str(error)) from None


def _refused(pointer: str, error: str) -> Validation:
    """What the compiler says; where it says so too, as `line` and `column`, both counted from 1."""
    place = _PLACE.search(error)
    where = {} if place is None else {"line": int(place[1]), "column": int(place[2])}
    return Validation.at(pointer, f"not a CEL expression: {error[:300]}", **where)
