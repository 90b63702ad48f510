"""Achievements and streaks: so many events within a window, and the one that completes them is paid. Pure.

A campaign counts the events that it would pay. What counts is kept in the member's standing and moves in the commit that records the
event, so that two events at once complete a goal once. Events that complete one are used up; a purchase counts as long as less than half
of it is refunded, and takes the award back with it when it stops.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec
from msgspec import Struct

from guerdon.campaigns.domain import AchievementProgress, AchievementReached, CountedEvent
from guerdon.campaigns.models import Achievement, Streak
from guerdon.ids import digest

REACHED_MAX = 12
"""So many awards of a campaign can be taken back; older ones are forgotten."""
BESIDE_MAX = 3
"""So many events of one day, week or month back a streak; what one of them loses, another holds."""
_NAME_DIGITS = 16


class Step(Struct, frozen=True):
    """What an event is to a goal."""

    state: AchievementProgress
    completed: tuple[CountedEvent, ...]
    """The events that complete it; none where something is missing."""
    reason: str


def name_of(event_id: str) -> str:
    """By which an event is known among those that count."""
    return digest(event_id).hex()[:_NAME_DIGITS]


def step(known: AchievementProgress, wanted: Achievement, event_id: str, day: date) -> Step:
    """Count an event of a day."""
    if known.times and not wanted.repeats:
        return Step(known, (), "it was achieved before, and pays once")
    within = wanted.within
    kind = within.unit if isinstance(within, Streak) else "days"
    # A goal that is counted in something else begins anew.
    state = known if known.kind == kind else msgspec.structs.replace(known, kind=kind, marks=())
    mark = CountedEvent(unit=_unit(kind, day), event=name_of(event_id))
    span = 2 * wanted.events if isinstance(within, Streak) else within.days
    if any(other.unit - span >= mark.unit for other in state.marks):
        return Step(known, (), "it comes too late to count")
    marks = tuple(other for other in state.marks if other.unit > mark.unit - span)
    if isinstance(within, Streak):
        return _streak(state, (*marks, mark), mark, wanted.events, within)
    return _gather(state, (*marks, mark), mark, wanted.events, within.days)


def _unit(kind: str, day: date) -> int:
    """The number of the day, of its week (they begin on Mondays), or of its month."""
    if kind == "week":
        return (day.toordinal() - 1) // 7
    return day.year * 12 + day.month if kind == "month" else day.toordinal()


def _streak(state: AchievementProgress, marks: tuple[CountedEvent, ...], mark: CountedEvent, wanted: int, within: Streak) -> Step:
    for number, reached in enumerate(state.reached):
        if reached.kind == within.unit and any(other.unit == mark.unit for other in reached.marks):
            backed = msgspec.structs.replace(reached, marks=_beside(reached.marks, mark))
            reached_now = (*state.reached[:number], backed, *state.reached[number + 1 :])
            reason = f"this {within.unit} has counted for an award already"
            return Step(msgspec.structs.replace(state, reached=reached_now), (), reason)
    marks = _beside(marks[:-1], mark)
    units = {each.unit for each in marks}
    first = last = mark.unit
    while first - 1 in units:
        first -= 1
    while last + 1 in units:
        last += 1
    length = min(last - first + 1, wanted)
    reason = f"{length} of {wanted} {within.unit}s in a row"
    if length < wanted:
        return Step(msgspec.structs.replace(state, marks=marks), (), reason)
    used = tuple(each for each in marks if first <= each.unit < first + wanted)
    return _completed(state, marks, used, reason)


def _beside(marks: tuple[CountedEvent, ...], mark: CountedEvent) -> tuple[CountedEvent, ...]:
    there = sum(other.unit == mark.unit for other in marks)
    return marks if there >= BESIDE_MAX else (*marks, mark)


def _gather(state: AchievementProgress, marks: tuple[CountedEvent, ...], mark: CountedEvent, wanted: int, days: int) -> Step:
    """Before this event no window held as many, so that the first one that does holds just as many as are wanted."""
    best: tuple[CountedEvent, ...] = ()
    for end in sorted({each.unit for each in marks if mark.unit <= each.unit < mark.unit + days}):
        there = tuple(each for each in marks if end - days < each.unit <= end)
        if len(there) > len(best):
            best = there
    reason = f"{len(best)} of {wanted} within {days} days"
    if len(best) < wanted:
        return Step(msgspec.structs.replace(state, marks=marks), (), reason)
    return _completed(state, marks, best, reason)


def _completed(state: AchievementProgress, marks: Sequence[CountedEvent], used: tuple[CountedEvent, ...], reason: str) -> Step:
    left = tuple(each for each in marks if each not in used)
    return Step(msgspec.structs.replace(state, marks=left), used, reason)


def reach(taken: Step, reached: AchievementReached) -> AchievementProgress:
    """Return the state after an event that completes a goal."""
    state = taken.state
    return msgspec.structs.replace(state, times=state.times + 1, reached=(*state.reached, reached)[-REACHED_MAX:])


def touching(achieved: Mapping[str, AchievementProgress], event_id: str) -> dict[str, AchievementProgress]:
    """Return, by campaign, what an event counts for."""
    name = name_of(event_id)
    return {
        campaign: state
        for campaign, state in achieved.items()
        if any(mark.event == name for marks in (state.marks, *(each.marks for each in state.reached)) for mark in marks)
    }


def without(state: AchievementProgress, event_id: str) -> tuple[AchievementProgress, list[AchievementReached]]:
    """Let an event count no more. Return the state, and the awards that rested on it; their other events count again."""
    name = name_of(event_id)
    marks = [mark for mark in state.marks if mark.event != name]
    kept: list[AchievementReached] = []
    broken: list[AchievementReached] = []
    for reached in state.reached:
        own = next((mark for mark in reached.marks if mark.event == name), None)
        if own is None:
            kept.append(reached)
            continue
        rest = tuple(mark for mark in reached.marks if mark.event != name)
        if reached.kind != "days" and any(mark.unit == own.unit for mark in rest):
            kept.append(msgspec.structs.replace(reached, marks=rest))
            continue
        broken.append(reached)
        if reached.kind == state.kind:
            marks += rest
    times = state.times - len(broken)
    return msgspec.structs.replace(state, marks=tuple(marks), reached=tuple(kept), times=max(times, 0)), broken
