"""The only interface to the CEL engine (https://github.com/google/cel-spec).

A failed evaluation is a value of type ERROR, which is truthy in Python, so only a value of type BOOL that `is True` counts as true.
Conditions are compiled and checked for type BOOL and for known field names when a campaign is saved. The engine bounds loops and depth.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cel_expr_python import cel  # pyright: ignore[reportMissingTypeStubs]

from guerdon.campaigns.cel_cost import CONDITION_US_MAX, ITEMS_SURE, cost_us
from guerdon.errors import Validation

EVENT_FIELDS = frozenset({"id", "type", "amount", "currency", "items", "attributes", "occurred_at"})
PERSONAL_FIELDS = frozenset({"external_id", "attributes", "birthday_today", "birthday_month"})
MEMBER_STATE_FIELDS = frozenset({"tier", "segments", "first_purchase", "days_since_last", "referred"})
MEMBER_FIELDS = PERSONAL_FIELDS | MEMBER_STATE_FIELDS | {"id"}
SEGMENT_FIELDS = frozenset({"purchases", "rfm"})
"""Fields of the member that only the condition of a segment can read."""
RFM_FIELDS = frozenset({"group", "recency", "frequency", "monetary", "days", "purchases", "spent"})
_FIELDS = {"event": EVENT_FIELDS, "member": MEMBER_FIELDS}
_FIELDS_OF_SEGMENTS = {"event": frozenset[str](), "member": MEMBER_FIELDS | SEGMENT_FIELDS}
# Comments, and string literals in every form of CEL. An unterminated literal matches to the end of its line or of the source, without
# backtracking (`*+`); the compiler reports it.
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
"""A dot before a variable (`.event.amount`) has no effect, unless an expression precedes the dot."""
_RFM_ACCESS = re.compile(r"\bmember\.rfm\.([A-Za-z_]\w*)")
_MEMBER = re.compile(r"\bmember\b(?:\.([A-Za-z_]\w*))?")
_FLAGS = frozenset({"member.first_purchase", "member.birthday_today", "member.birthday_month", "member.referred"})
"""Fields that are a condition on their own. The engine learns the type of a field only at evaluation."""
_MACRO = re.compile(r"\.(all|exists|exists_one|filter|map)\(")
_PARTS = re.compile(
    r"\bevent\.(?:(?!items\b)[A-Za-z_]\w*|items\.(?:all|exists|exists_one|filter|map|size)\()|\bsize\(event\.items(?= ?\))"
)
_MONEY = re.compile(r"(?<!\w)(?<![\w)\]}]\.)event\b(?!\.)|\bevent\.amount\b|\bunit_price\b|\[''\]")
"""Amounts of the event in `_code_of`. A name in brackets is a string literal, so any of them may be an amount."""
_WHOLE = re.compile(r"(?<!\w)(?<![\w)\]}]\.)event\b")
_POSITION = re.compile(r"<input>:([0-9]{1,9}):([0-9]{1,9})")
_REASON = re.compile(r"<input>:[0-9]{1,9}:[0-9]{1,9}: ([^\n]{1,300})")
"""Sentence of the compiler after the place of the fault; the lines that follow it draw the expression."""
_MATCHES = re.compile(r"\bmatches\(")
MACROS_MAX, JOINS_MAX = 3, 2
"""Maximum number of list macros in a condition, and of `+` beside a single one. The engine bounds the iterations of a macro, but not the cost
of each: 24 macros that each doubled a list took 46 seconds and gigabytes, one that compared the items with themselves 60 times a minute, and
one that matched a pattern of 100 characters on each item 43 seconds, because the engine compiles the pattern at each iteration."""
_COMPILED_MAX = 4096
_VARIABLE = re.compile(r"\b(?:event|member|now)\b")
_KEY_NOT_FOUND = "Key not found in map"


class _Compiled:
    """A compiled expression over `event`, `member` and `now`."""

    __slots__ = ("_code", "_expression", "reads_member", "reads_member_state", "source")

    def __init__(self, source: str, expression: Any) -> None:
        self._code = _code_of(source)
        read = set(_MEMBER.findall(self._code))
        self.source = source
        # An expression that uses the whole member, as in `member["tier"]`, may read any field.
        self.reads_member = not read <= MEMBER_STATE_FIELDS | SEGMENT_FIELDS
        self.reads_member_state = not read.isdisjoint({"", *MEMBER_STATE_FIELDS})
        self._expression = expression

    def cost_us(self, items: int) -> float:
        """Return the maximum cost on an event with this number of items, in microseconds."""
        return cost_us(self._code, items)

    def _value(self, facts: Any, *wanted: Any) -> tuple[Any, str | None]:
        """Return (value, None), or (None, error)."""
        try:
            value = self._expression.eval(facts)
        except RuntimeError as error:
            return None, self._reason(str(error))
        kind = value.type()
        if kind in wanted:
            return value.value(), None
        return None, self._reason(str(value.value()) if kind == cel.Type.ERROR else f"it is of type {kind.name()}")

    def _reason(self, error: str) -> str:
        """Return the error as it may be stored in a decision. Decisions are permanent, and the library's text can quote personal data."""
        if not self.reads_member:
            return error[:200]
        code = error.partition(":")[0][:40]
        return f"{code}: {_KEY_NOT_FOUND}" if _KEY_NOT_FOUND in error else f"{code} (it reads the member, so it is not quoted)"


class Condition(_Compiled):
    """A compiled expression that is true or false."""

    __slots__ = ()

    def evaluate(self, facts: Any) -> tuple[bool, str | None]:
        """Return (holds, error) for facts from `facts_of`. A condition that cannot be evaluated does not hold, and has an error."""
        if self.source == "true":
            return True, None  # The usual audience needs no engine.
        value, error = self._value(facts, cel.Type.BOOL)
        return value is True, error


class Formula(_Compiled):
    """A compiled expression that gives a number."""

    __slots__ = ()

    @property
    def reads_money(self) -> bool:
        """True if the formula may read an amount of money: that of the event or the price of a line item."""
        return _MONEY.search(self._code) is not None

    def evaluate(self, facts: Any) -> tuple[int | float | None, str | None]:
        """Return (number, None), or (None, error)."""
        return self._value(facts, cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE)


def _code_of(source: str) -> str:
    """Return the source with empty string literals, without comments, and without spaces around dots and opening brackets."""
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
    """Return the environment of the eligibility of an offer, which has no event."""
    return cel.NewEnv(variables={"member": cel.Type.Map(cel.Type.STRING, cel.Type.DYN), "now": cel.Type.TIMESTAMP})


def facts_of(event: dict[str, Any], member: dict[str, Any], now_ms: int) -> Any:
    """Return the variables of conditions, converted once for all conditions. Amounts are integers, times in `event` are RFC 3339 text."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return _environment().Activation({"event": event, "member": member, "now": now})


def facts_of_member(member: dict[str, Any], now_ms: int) -> Any:
    """Return the variables of eligibilities, converted once for all of them."""
    return _environment_of_members().Activation({"member": member, "now": datetime.fromtimestamp(now_ms / 1000, UTC)})


def require_bounded(source: str, pointer: str) -> None:
    """Require that the cost of a new expression is bounded; `pointer` names the expression in the error.

    Raises:
        Validation: the expression has too many list macros, joins or compares whole lists within one, or matches a pattern.
    """
    code = _code_of(source)
    macros, joins = _MACRO.findall(code), code.count("+")
    if len(macros) > MACROS_MAX or macros.count("map") > 1 or joins > (JOINS_MAX if len(macros) == 1 else 0 if macros else joins):
        raise Validation.at(
            pointer,
            f"a condition can use list macros at most {MACROS_MAX} times, `map` once, and `+` at most twice beside a single macro",
        )
    if macros and _WHOLE.search(_PARTS.sub("_", code)):
        raise Validation.at(
            pointer, "beside a list macro, `event` must be followed by a field, and `event.items` by a macro or used in `size`"
        )
    if cost_us(code, ITEMS_SURE) > CONDITION_US_MAX:
        raise Validation.at(pointer, f"the condition could take too long on an event of {ITEMS_SURE} items")
    if _MATCHES.search(code):
        raise Validation.at(pointer, "a condition cannot match patterns; use startsWith, endsWith, contains or ==")


@lru_cache(maxsize=_COMPILED_MAX)
def compile_condition(source: str, pointer: str) -> Condition:
    """Compile and check a condition; `pointer` names it in the error. Equal sources share one compiled form.

    Raises:
        Validation: the condition does not compile, is not of type bool, or names an unknown field of `event` or `member`.
    """
    return _condition(source, _compile(source, pointer, _environment()), pointer)


@lru_cache(maxsize=_COMPILED_MAX)
def compile_eligibility(source: str, pointer: str) -> Condition:
    """Compile and check a condition over `member` and `now`, like `compile_condition`.

    Raises:
        Validation: the condition does not compile, is not of type bool, or names another variable or an unknown field.
    """
    return _condition(source, _compile(source, pointer, _environment_of_members()), pointer)


@lru_cache(maxsize=_COMPILED_MAX)
def compile_segment(source: str, pointer: str) -> Condition:
    """Compile and check the condition of a segment, like an eligibility, which can also read `member.purchases` and `member.rfm`.

    Raises:
        Validation: the condition does not compile, is not of type bool, or names another variable or an unknown field.
    """
    for field in _RFM_ACCESS.findall(_code_of(source)):
        if field not in RFM_FIELDS:
            raise Validation.at(pointer, f"member.rfm.{field} does not exist; member.rfm has {', '.join(sorted(RFM_FIELDS))}")
    return _condition(source, _compile(source, pointer, _environment_of_members(), _FIELDS_OF_SEGMENTS), pointer)


def _condition(source: str, expression: Any, pointer: str) -> Condition:
    if expression.return_type() != cel.Type.BOOL and _code_of(source).strip() not in _FLAGS:
        kind = expression.return_type().name()
        raise Validation.at(pointer, f"the expression is of type {kind}; a condition must be of type BOOL")
    return Condition(source, expression)


@lru_cache(maxsize=_COMPILED_MAX)
def compile_formula(source: str, pointer: str) -> Formula:
    """Compile and check a formula. Fields have no type before evaluation, so DYN passes and the value is checked then.

    Raises:
        Validation: the formula does not compile, gives no number, or names an unknown field of `event` or `member`.
    """
    expression = _compile(source, pointer, _environment())
    if expression.return_type() not in (cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE, cel.Type.DYN):
        kind = expression.return_type().name()
        raise Validation.at(pointer, f"the expression is of type {kind}; a formula must give a number")
    return Formula(source, expression)


def _compile(source: str, pointer: str, environment: Any, fields: Mapping[str, frozenset[str]] = _FIELDS) -> Any:
    for name, field in _ACCESS.findall(_code_of(source)):
        if field not in fields[name] and fields[name]:
            raise Validation.at(pointer, f"{name}.{field} does not exist; {name} has {', '.join(sorted(fields[name]))}")
    try:
        return environment.compile(source)
    except (RuntimeError, ValueError) as error:
        raise _refused(pointer, str(error)) from None


def _refused(pointer: str, error: str) -> Validation:
    """Return the compiler's error, with its `line` and `column` (both counted from 1) if it names them."""
    position = _POSITION.search(error)
    where = {} if position is None else {"line": int(position[1]), "column": int(position[2])}
    reason = _REASON.search(error)
    sentence = error[:300] if reason is None else reason[1].removesuffix(" (in container '')")
    return Validation.at(pointer, f"not a CEL expression: {sentence}", **where)


def conjuncts_of(source: str) -> list[str]:
    """Return the parts of an expression that must all be true: those between `&&` outside of brackets, or the expression itself."""
    code = _STRINGS.sub(lambda found: " " * len(found[0]) if found[0].startswith("//") else "'" * len(found[0]), source)
    plain = _STRINGS.sub(lambda found: " " * len(found[0]) if found[0].startswith("//") else found[0], source)
    depth, began, parts = 0, 0, list[str]()
    for index, sign in enumerate(code):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and (sign == "?" or code.startswith("||", index)):
            return [plain.strip()]
        if depth == 0 and code.startswith("&&", index):
            parts.append(plain[began:index].strip())
            began = index + 2
    return [*parts, plain[began:].strip()]


def is_never_true(source: str) -> bool:
    """Return whether an expression that reads no variable is false, or cannot be evaluated."""
    if _VARIABLE.search(_code_of(source)):
        return False
    try:
        return not compile_condition(source, "").evaluate(facts_of({}, {}, 0))[0]
    except Validation:
        return False  # Not a condition on its own.
