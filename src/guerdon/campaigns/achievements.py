"""Achievements and streaks: a number of events within a window, of which the one that completes the goal earns the award. Pure.

A campaign counts the events that it would pay. The counted events are part of the member state and change in the commit that records the
event, so that two concurrent events complete a goal once. Events that complete a goal are used up. A purchase counts while less than half
of it is refunded; when it stops counting, the award is taken back.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec
from msgspec import Struct

from guerdon.campaigns.domain import AchievementProgress, AchievementReached, CountedEvent
from guerdon.campaigns.models import Achievement, Streak
from guerdon.ids import digest

REACHED_MAX = 12
"""Number of awards of a campaign, the newest, that can be taken back."""
EVENTS_PER_UNIT_MAX = 3
"""Maximum number of events kept for one day, week or month of a streak. If one of them is refunded, another still counts."""
_NAME_DIGITS = 16


class Step(Struct, frozen=True):
    """Effect of an event on a goal."""

    state: AchievementProgress
    completed: tuple[CountedEvent, ...]
    """Events that complete the goal; empty while events are missing."""
    reason: str


def name_of(event_id: str) -> str:
    """Return the name of an event among the counted ones, a digest of its id."""
    return digest(event_id).hex()[:_NAME_DIGITS]


def step(known: AchievementProgress, wanted: Achievement, event_id: str, day: date) -> Step:
    """Return the effect of an event on this day."""
    if known.times and not wanted.repeats:
        return Step(known, (), "it was achieved before, and pays once")
    within = wanted.within
    kind = within.unit if isinstance(within, Streak) else "days"
    # A goal with another unit starts again.
    state = known if known.kind == kind else msgspec.structs.replace(known, kind=kind, marks=())
    counted = CountedEvent(unit=_unit(kind, day), event=name_of(event_id))
    span = 2 * wanted.events if isinstance(within, Streak) else within.days
    if any(other.unit - span >= counted.unit for other in state.marks):
        return Step(known, (), "it comes too late to count")
    events = tuple(other for other in state.marks if other.unit > counted.unit - span)
    if isinstance(within, Streak):
        return _streak(state, (*events, counted), counted, wanted.events, within)
    return _gather(state, (*events, counted), counted, wanted.events, within.days)


def _unit(kind: str, day: date) -> int:
    """Return the number of the day, of its week (weeks begin on Mondays), or of its month."""
    if kind == "week":
        return (day.toordinal() - 1) // 7
    return day.year * 12 + day.month if kind == "month" else day.toordinal()


def _streak(
    state: AchievementProgress, events: tuple[CountedEvent, ...], counted: CountedEvent, wanted: int, within: Streak
) -> Step:
    for number, reached in enumerate(state.reached):
        if reached.kind == within.unit and any(other.unit == counted.unit for other in reached.marks):
            backed = msgspec.structs.replace(reached, marks=_with_event(reached.marks, counted))
            reached_now = (*state.reached[:number], backed, *state.reached[number + 1 :])
            reason = f"this {within.unit} has counted for an award already"
            return Step(msgspec.structs.replace(state, reached=reached_now), (), reason)
    events = _with_event(events[:-1], counted)
    units = {each.unit for each in events}
    first = last = counted.unit
    while first - 1 in units:
        first -= 1
    while last + 1 in units:
        last += 1
    length = min(last - first + 1, wanted)
    reason = f"{length} of {wanted} {within.unit}s in a row"
    if length < wanted:
        return Step(msgspec.structs.replace(state, marks=events), (), reason)
    used = tuple(each for each in events if first <= each.unit < first + wanted)
    return _completed(state, events, used, reason)


def _with_event(events: tuple[CountedEvent, ...], counted: CountedEvent) -> tuple[CountedEvent, ...]:
    same_unit = sum(other.unit == counted.unit for other in events)
    return events if same_unit >= EVENTS_PER_UNIT_MAX else (*events, counted)


def _gather(state: AchievementProgress, events: tuple[CountedEvent, ...], counted: CountedEvent, wanted: int, days: int) -> Step:
    """Find the first window that holds enough events. Before this event no window did, so it holds exactly the number that completes the goal."""
    best: tuple[CountedEvent, ...] = ()
    for end in sorted({each.unit for each in events if counted.unit <= each.unit < counted.unit + days}):
        found = tuple(each for each in events if end - days < each.unit <= end)
        if len(found) > len(best):
            best = found
    reason = f"{len(best)} of {wanted} within {days} days"
    if len(best) < wanted:
        return Step(msgspec.structs.replace(state, marks=events), (), reason)
    return _completed(state, events, best, reason)


def _completed(state: AchievementProgress, events: Sequence[CountedEvent], used: tuple[CountedEvent, ...], reason: str) -> Step:
    left = tuple(each for each in events if each not in used)
    return Step(msgspec.structs.replace(state, marks=left), used, reason)


def reach(taken: Step, reached: AchievementReached) -> AchievementProgress:
    """Return the progress after an event that completes the goal."""
    state = taken.state
    return msgspec.structs.replace(state, times=state.times + 1, reached=(*state.reached, reached)[-REACHED_MAX:])


def touching(achieved: Mapping[str, AchievementProgress], event_id: str) -> dict[str, AchievementProgress]:
    """Return, by campaign, the achievements that an event counts for."""
    name = name_of(event_id)
    return {
        campaign: state
        for campaign, state in achieved.items()
        if any(counted.event == name for events in (state.marks, *(each.marks for each in state.reached)) for counted in events)
    }


def without(state: AchievementProgress, event_id: str) -> tuple[AchievementProgress, list[AchievementReached]]:
    """Remove an event. Return the progress, and the goals that no longer hold without it; their other events count again."""
    name = name_of(event_id)
    events = [counted for counted in state.marks if counted.event != name]
    kept: list[AchievementReached] = []
    broken: list[AchievementReached] = []
    for reached in state.reached:
        own = next((counted for counted in reached.marks if counted.event == name), None)
        if own is None:
            kept.append(reached)
            continue
        rest = tuple(counted for counted in reached.marks if counted.event != name)
        if reached.kind != "days" and any(counted.unit == own.unit for counted in rest):
            kept.append(msgspec.structs.replace(reached, marks=rest))
            continue
        broken.append(reached)
        if reached.kind == state.kind:
            events += rest
    times = state.times - len(broken)
    return msgspec.structs.replace(state, marks=tuple(events), reached=tuple(kept), times=max(times, 0)), broken
