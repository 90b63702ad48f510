"""Running totals of a simulation, and its report. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from guerdon.calendar import Calendar
from guerdon.campaigns.award_types import PLACES, scaled
from guerdon.campaigns.domain import Award, RecordedEvent
from guerdon.campaigns.periods import window_name
from guerdon.money import divide
from guerdon.simulations.models import (
    ROWS_MAX,
    AsItWas,
    Comparison,
    Figures,
    OtherAsset,
    Part,
    Report,
    Row,
    SimulatedMember,
    Simulation,
    SimulationTally,
    Sums,
    Winner,
)

OTHERS, NONE, UNKNOWN = "others", "none", "unknown"
ASSETS_SHOWN_MAX = 50
SUM_MAX = 9 * 10**18
"""Maximum of a stored sum, within the 64-bit integers of the database. A larger sum is stored as this value."""


def bounded(amount: int) -> int:
    """Return the amount, limited to -`SUM_MAX` … `SUM_MAX`."""
    return max(-SUM_MAX, min(SUM_MAX, amount))


def segments_of(recorded: RecordedEvent) -> tuple[str, ...]:
    """Return the names of the rows of an event: the segments of the member when the event was recorded, or `none`.

    An event of an early version, which did not store the inputs of the evaluation, is in the row `unknown`.
    """
    if recorded.inputs is None:
        return (UNKNOWN,)
    return recorded.inputs.segments or (NONE,)


class Accumulator:
    """Adds the simulated and the real awards of events to the running totals."""

    def __init__(self, sums: Sums, campaign_id: str, asset: str, calendar: Calendar) -> None:
        self._sums = sums
        self._campaign_id = campaign_id
        self._asset = asset
        self._calendar = calendar

    def add(
        self,
        recorded: RecordedEvent,
        awards: Sequence[Award],
        tiers: tuple[str | None, str | None],
        members: Mapping[str, SimulatedMember],
        segments: Sequence[str],
    ) -> None:
        """Add one event. `awards` are the simulated ones; `tiers` are the simulated and the real tier of the member.

        `segments` are those of the member. An event of a member in several segments is in the row of each.
        """
        sums, tier_names = self._sums, [tier or NONE for tier in tiers]
        week = window_name("week", recorded.occurred_at, self._calendar)
        shared = [(sums.total, "total", ""), (_part(sums.weeks, week), "week", week)]
        shared += [(_part(sums.segments, name), f"segment {name}", "") for name in segments]
        by_tier = [_part(sums.tiers, name) for name in tier_names]
        for part in (*(part for part, _, _ in shared), by_tier[1]):
            part.events += 1
        for side, paid in enumerate((awards, recorded.awards)):
            if not paid:
                continue
            rows = [*shared, (by_tier[side], f"tier {tier_names[side]}", "")]
            for award in paid:
                if award.asset != self._asset:
                    self._add_other_asset(award, side)
                    continue
                member = members[award.to or recorded.owner]
                for column in (side, side + 2) if award.campaign == self._campaign_id else (side + 2,):
                    member.got[column] += award.amount
                    for part, row, name in rows:
                        _add_amount(part.tallies[column], award.amount, member.seen, row + _COLUMN_SUFFIXES[column], name)

    def _add_other_asset(self, award: Award, side: int) -> None:
        others = self._sums.other_assets
        name = award.asset if award.asset in others or len(others) < ASSETS_SHOWN_MAX else OTHERS
        others.setdefault(name, [0, 0])[side] += award.amount


def _part(rows: dict[str, Part], name: str) -> Part:
    if name not in rows and len(rows) >= ROWS_MAX:
        name = OTHERS
    return rows.setdefault(name, Part())


def _add_amount(tally: SimulationTally, amount: int, seen: dict[str, str], row: str, name: str) -> None:
    """Add an amount to a row. The member is counted unless `seen` already maps the row to `name`."""
    if amount < 0:
        tally.taken_back -= amount
        return
    tally.awards += 1
    tally.awarded += amount
    if seen.get(row) != name:
        seen[row] = name
        tally.members += 1


_COLUMN_SUFFIXES = ("", " really", " all", " really all")
"""Suffixes of the keys of `SimulatedMember.seen` for the four columns of `Part.tallies`."""


def limit_sums(sums: Sums, members: Iterable[SimulatedMember]) -> None:
    """Limit all running totals to `SUM_MAX`."""
    for part in (sums.total, *sums.tiers.values(), *sums.segments.values(), *sums.weeks.values()):
        for tally in part.tallies:
            tally.awarded, tally.taken_back = min(tally.awarded, SUM_MAX), min(tally.taken_back, SUM_MAX)
    for pair in sums.other_assets.values():
        pair[:] = map(bounded, pair)
    for member in members:
        member.got[:] = map(bounded, member.got)


# --- the report -------------------------------------------------------------------------------------------------------


def report_of(simulation: Simulation, winners: Sequence[Winner], budget: str) -> Report:
    """Return the report of a finished simulation; `budget` is the id of the budget account of its campaign."""
    sums, campaign = simulation.sums, simulation.campaign
    cost = scaled(simulation.unit_cost)
    usage = simulation.budgets.get(budget)
    return Report(
        asset=campaign.asset,
        events=sums.total.events,
        total=_row("total", sums.total, cost),
        by_tier=_rows(sums.tiers, cost),
        by_segment=_rows(sums.segments, cost),
        by_week=_rows(sums.weeks, cost),
        largest_winners=list(winners),
        other_assets=[
            OtherAsset(asset, simulated, real, bounded(simulated - real))
            for asset, (simulated, real) in sorted(sums.other_assets.items())
        ],
        as_it_was=AsItWas(sums.without_inputs, sums.version_missing, sums.member_erased),
        budget_used=None if campaign.budget is None else 0 if usage is None else usage.own,
    )


def _rows(parts: dict[str, Part], cost: int) -> list[Row]:
    return [_row(name, part, cost) for name, part in sorted(parts.items())]


def _row(name: str, part: Part, cost: int) -> Row:
    return Row(
        name,
        part.events,
        _comparison(part.tallies[0], part.tallies[1], cost),
        _comparison(part.tallies[2], part.tallies[3], cost),
    )


def _comparison(simulated: SimulationTally, real: SimulationTally, cost: int) -> Comparison:
    left, right = _figures(simulated, cost), _figures(real, cost)
    difference = Figures(
        left.awards - right.awards,
        left.members - right.members,
        bounded(left.awarded - right.awarded),
        bounded(left.taken_back - right.taken_back),
        bounded(left.points - right.points),
        bounded(left.cost - right.cost),
    )
    return Comparison(left, right, difference)


def _figures(tally: SimulationTally, cost: int) -> Figures:
    points = tally.awarded - tally.taken_back
    money = bounded(divide(points * cost, PLACES, "half_even"))
    return Figures(tally.awards, tally.members, tally.awarded, tally.taken_back, points, money)
