"""Evaluation of the conditions of segments for a page of members."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from guerdon.campaigns.cel import Condition, compile_segment, facts_of_member
from guerdon.campaigns.domain import MEMBER_STATES, MemberState
from guerdon.campaigns.evaluation import Subject
from guerdon.database import Database
from guerdon.errors import Validation
from guerdon.members.service import Members
from guerdon.segments.models import MemberRow, RunCondition
from guerdon.segments.rules import RunTime, facts_of_row
from guerdon.tiers.models import PROGRAMME, TIER_SETS, TierSet, TierSets
from guerdon.tiers.rules import tier_at

MEMBERS_PER_YIELD = 20
"""Number of members between two yields to the event loop."""


class Matches(NamedTuple):
    """Names of the segments of each member, and by segment the number of members for whom its condition could not be evaluated."""

    names: dict[str, list[str]]
    unevaluated: dict[str, int]


class SegmentEvaluator:
    """Evaluates conditions on the members' profiles, states and tiers."""

    def __init__(self, members: Members, database: Database) -> None:
        self._members = members
        self._member_states = database.collection(MEMBER_STATES, MemberState)
        self._tier_sets = database.collection(TIER_SETS, TierSets)

    async def evaluate(self, rows: Sequence[MemberRow], conditions: Sequence[RunCondition], run: RunTime) -> Matches:
        """Return the segments of each member of a page. Profiles are read only if a condition reads them."""
        names: dict[str, list[str]] = {row.owner: [] for row in rows}
        unevaluated: dict[str, int] = {}
        compiled: dict[str, Condition] = {}
        for each in conditions:
            try:
                compiled[each.name] = compile_segment(each.condition, "/condition")
            except Validation:  # A version of Guerdon that accepted the condition has saved it.
                unevaluated[each.name] = len(rows)
        if not compiled:
            return Matches(names, unevaluated)
        subjects = await self._subjects(list(names)) if any(each.reads_member for each in compiled.values()) else {}
        found = await self._member_states.find({"_id": {"$in": list(names)}}, limit=len(names))
        states = {state.id: state for state in found}
        sets = await self._tier_sets.get(PROGRAMME)
        for number, row in enumerate(rows):
            if number % MEMBERS_PER_YIELD == 0:
                await asyncio.sleep(0)  # Lets the worker run its other jobs and renew its leases.
            state = states.get(row.owner)
            tier = _tier_of(() if sets is None else sets.versions, state, run)
            facts = facts_of_member(facts_of_row(row, subjects.get(row.owner) or Subject(row.owner), state, tier, run), run.at)
            for name, condition in compiled.items():
                holds, error = condition.evaluate(facts)
                if holds:
                    names[row.owner].append(name)
                elif error is not None:
                    unevaluated[name] = unevaluated.get(name, 0) + 1
        return Matches(names, unevaluated)

    async def _subjects(self, members: list[str]) -> dict[str, Subject]:
        profiles = await self._members.find_profiles(members)
        return {member: Subject(member, profile.external_id, profile.attributes) for member, profile in profiles.items()}


def _tier_of(versions: Sequence[TierSet], state: MemberState | None, run: RunTime) -> str | None:
    return tier_at(versions, {} if state is None else state.qualifying, run.at, run.calendar) if versions else None
