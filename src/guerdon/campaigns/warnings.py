"""Warnings about a definition that is valid and probably not meant: it can never match, or it names what does not exist. Pure.

Only what is certain is reported: conditions are compared with each other where they are joined by `&&`, and nothing else is evaluated.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice

from msgspec import Struct

from guerdon.campaigns.cel import conjuncts_of, is_never_true
from guerdon.campaigns.domain import PURCHASE, REFUND
from guerdon.campaigns.models import CampaignCreate, PendingEvent
from guerdon.types import DefinitionWarning

WARNINGS_MAX = 20
"""Maximum number of warnings of one answer."""
_NUMBERS = {"event.amount": 0, "member.days_since_last": -1}
"""Least value of each number that conditions compare."""
_FLAGS = frozenset({"member.first_purchase", "member.birthday_today", "member.birthday_month", "member.referred"})
_TEXTS = r"event\.type|event\.currency|member\.tier|member\.external_id"
_TEXT = r"\"[^\"\\]*\"|'[^'\\]*'"
_ANY_TEXT = re.compile(_TEXT)
_COMPARED = re.compile(rf"({'|'.join(map(re.escape, _NUMBERS))})\s*(<=|>=|==|<|>)\s*(-?[0-9]{{1,18}})")
_COMPARED_BACK = re.compile(rf"(-?[0-9]{{1,18}})\s*(<=|>=|==|<|>)\s*({'|'.join(map(re.escape, _NUMBERS))})")
_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "=="}
_EQUAL = re.compile(rf"({_TEXTS})\s*==\s*({_TEXT})")
_ONE_OF = re.compile(rf"({_TEXTS})\s+in\s+\[\s*((?:{_TEXT})(?:\s*,\s*(?:{_TEXT}))*)\s*\]")
_ANY_SEGMENT = re.compile(rf"({_TEXT})\s+in\s+member\.segments\b")
_ANY_TIER = re.compile(rf"\bmember\.tier\s*[!=]=\s*({_TEXT})")


class KnownNames(Struct, frozen=True):
    """Names that exist, to compare those of a definition with."""

    tiers: frozenset[str] = frozenset()
    """Codes of the tiers in force and of those that follow."""
    event_types: frozenset[str] = frozenset()
    """Types of recent events."""
    segments: frozenset[str] = frozenset()
    """Names of the segments."""


ReadKnownNames = Callable[[], Awaitable[KnownNames]]


def warnings_of_campaign(body: CampaignCreate, known: KnownNames) -> list[DefinitionWarning]:
    """Return the warnings about a campaign."""
    return list(islice(_warnings_of_campaign(body, known), WARNINGS_MAX))


def warnings_of_member_rules(
    expressions: Sequence[tuple[str, str]], tiers: Sequence[tuple[str, str]], known: KnownNames
) -> list[DefinitionWarning]:
    """Return the warnings about expressions over the member and about tier codes, each with its pointer."""
    found = [
        *_unknown_tiers(tiers, known.tiers),
        *_unknown_tiers_in(expressions, known.tiers),
        *_unknown_segments_in(expressions, known.segments),
        *_never_true(expressions, {}),
    ]
    return found[:WARNINGS_MAX]


def _warnings_of_campaign(body: CampaignCreate, known: KnownNames) -> Iterator[DefinitionWarning]:
    types = known.event_types | {PURCHASE, REFUND}
    named = [(f"/event_types/{number}", name) for number, name in enumerate(body.event_types)]
    if isinstance(body.pending, PendingEvent):
        named.append(("/pending/event_type", body.pending.event_type))
    for pointer, name in named:
        if name not in types:
            yield DefinitionWarning(pointer, f"no recent event has the type {name}{_suggestion(name, types)}")
    yield from _unknown_tiers([(f"/tier_multipliers/{code}", code) for code in body.tier_multipliers], known.tiers)
    expressions = (("/audience", body.audience), ("/condition", body.condition))
    yield from _unknown_tiers_in(expressions, known.tiers)
    yield from _unknown_segments_in(expressions, known.segments)
    yield from _never_true(expressions, {"event.type": frozenset(body.event_types)})


# --- names ----------------------------------------------------------------------------------------------------------


def _suggestion(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


def _unknown_tiers(named: Sequence[tuple[str, str]], known: Collection[str]) -> Iterator[DefinitionWarning]:
    for pointer, code in named:
        if code not in known:
            tiers = f"the tiers are {', '.join(sorted(known))}" if known else "there are no tiers"
            yield DefinitionWarning(pointer, f"no tier has the code {code}: {tiers}{_suggestion(code, known)}")


def _unknown_tiers_in(expressions: Sequence[tuple[str, str]], known: Collection[str]) -> Iterator[DefinitionWarning]:
    """Yield a warning for each tier code that an expression compares `member.tier` with. An empty text is no tier."""
    for pointer, source in expressions:
        codes = dict.fromkeys(text[1:-1] for text in _ANY_TIER.findall(source))
        yield from _unknown_tiers([(pointer, code) for code in codes if code], known)


def _unknown_segments_in(expressions: Sequence[tuple[str, str]], known: Collection[str]) -> Iterator[DefinitionWarning]:
    """Yield a warning for each name that an expression looks for in `member.segments` and that no segment has."""
    for pointer, source in expressions:
        for name in dict.fromkeys(text[1:-1] for text in _ANY_SEGMENT.findall(source)):
            if name not in known:
                yield DefinitionWarning(pointer, f"no segment has the name {name}{_suggestion(name, known)}")


# --- conditions -----------------------------------------------------------------------------------------------------


def _never_true(expressions: Sequence[tuple[str, str]], possible: Mapping[str, frozenset[str]]) -> Iterator[DefinitionWarning]:
    """Yield a warning for the first expression with which all of them together are never true. `possible` has the values of some texts."""
    facts = _Facts(possible)
    for pointer, source in expressions:
        for part in conjuncts_of(source):
            reason = facts.contradiction(part)
            if reason is not None:
                yield DefinitionWarning(pointer, f"it is never true: {reason}")
                return


class _Facts:
    """Values of fields for which all conditions so far are true."""

    def __init__(self, possible: Mapping[str, frozenset[str]]) -> None:
        self._texts = dict(possible)
        self._least: dict[str, int] = dict(_NUMBERS)
        self._most: dict[str, int] = {}
        self._flags: dict[str, bool] = {}

    def contradiction(self, part: str) -> str | None:
        """Add a condition. Return why it cannot hold beside the others, or None if it can or is not understood."""
        if part.startswith("(") and _is_one_bracket(part):
            return next(filter(None, map(self.contradiction, conjuncts_of(part[1:-1]))), None)
        if is_never_true(part):
            return f"{part[:80]} is false"
        return self._number(part) or self._text(part) or self._flag(part)

    def _number(self, part: str) -> str | None:
        if found := _COMPARED.fullmatch(part):
            name, sign, number = found[1], found[2], int(found[3])
        elif found := _COMPARED_BACK.fullmatch(part):
            name, sign, number = found[3], _MIRRORED[found[2]], int(found[1])
        else:
            return None
        if sign not in {"<", "<="}:
            self._least[name] = max(self._least[name], number + (sign == ">"))
        if sign not in {">", ">="}:
            self._most[name] = min(self._most.get(name, number), number - (sign == "<"))
        if self._least[name] <= self._most.get(name, self._least[name]):
            return None
        least = _NUMBERS[name]
        return (
            f"{name} is never below {least}" if self._most[name] < least else f"{name} cannot be what the conditions ask together"
        )

    def _text(self, part: str) -> str | None:
        found = _EQUAL.fullmatch(part) or _ONE_OF.fullmatch(part)
        if found is None:
            return None
        name, values = found[1], frozenset(text[1:-1] for text in _ANY_TEXT.findall(found[2]))
        before = self._texts.get(name)
        self._texts[name] = values if before is None else values & before
        if self._texts[name]:
            return None
        return f"{name} is {' or '.join(sorted(before or ()))} where the other conditions hold"

    def _flag(self, part: str) -> str | None:
        name = part.removeprefix("!").strip()
        if name not in _FLAGS:
            return None
        wanted = not part.startswith("!")
        if self._flags.setdefault(name, wanted) == wanted:
            return None
        return f"{name} cannot be both true and false"


def _is_one_bracket(part: str) -> bool:
    """Return whether the first bracket closes at the end."""
    depth = 0
    for index, sign in enumerate(part):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return index == len(part) - 1
    return False
