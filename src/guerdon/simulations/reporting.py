"""What a simulation adds up, and the report that comes of it. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from guerdon.calendar import Calendar
from guerdon.campaigns.award_types import PLACES, scaled
from guerdon.campaigns.domain import Award, RecordedEvent
from guerdon.campaigns.evaluation import DAY_MS
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

OTHERS, NONE = "others", "none"
ASSETS_SHOWN_MAX = 50
SUM_MAX = 9 * 10**18
"""What the database can hold; a sum that passes it says so by being it."""


def bounded(amount: int) -> int:
    return max(-SUM_MAX, min(SUM_MAX, amount))


def segment_of(recorded: RecordedEvent) -> str:
    """Whom the event is by: somebody new, or somebody who had bought so long ago."""
    inputs = recorded.inputs
    if inputs is None:
        return "unknown"
    if inputs.last_purchase_at is None:
        return "new"
    days = max(0, recorded.occurred_at - inputs.last_purchase_at) // DAY_MS
    return "within_30_days" if days <= 30 else "within_90_days" if days <= 90 else "longer_ago"


class Counting:
    """Adds up what events pay in both worlds."""

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
    ) -> None:
        """Count one event: what it pays in the simulation and what it really paid, and the member's tier in both worlds."""
        sums, names = self._sums, [tier or NONE for tier in tiers]
        segment, week = segment_of(recorded), window_name("week", recorded.occurred_at, self._calendar)
        shared = [(sums.total, "total", ""), (_part(sums.segments, segment), segment, ""), (_part(sums.weeks, week), "week", week)]
        by_tier = [_part(sums.tiers, name) for name in names]
        for part in (*(part for part, _, _ in shared), by_tier[1]):
            part.events += 1
        for side, paid in enumerate((awards, recorded.awards)):
            if not paid:
                continue
            rows = [*shared, (by_tier[side], f"tier {names[side]}", "")]
            for award in paid:
                if award.asset != self._asset:
                    self._count_other(award, side)
                    continue
                member = members[award.to or recorded.owner]
                for place in (side, side + 2) if award.campaign == self._campaign_id else (side + 2,):
                    member.got[place] += award.amount
                    for part, row, name in rows:
                        _count(part.tallies[place], award.amount, member.seen, row + _PLACES[place], name)

    def _count_other(self, award: Award, place: int) -> None:
        others = self._sums.other_assets
        name = award.asset if award.asset in others or len(others) < ASSETS_SHOWN_MAX else OTHERS
        others.setdefault(name, [0, 0])[place] += award.amount


def _part(rows: dict[str, Part], name: str) -> Part:
    if name not in rows and len(rows) >= ROWS_MAX:
        name = OTHERS
    return rows.setdefault(name, Part())


def _count(tally: SimulationTally, amount: int, seen: dict[str, str], row: str, name: str) -> None:
    """Add an amount to a row; a member counts where `name` is not what stands in `seen` for that row."""
    if amount < 0:
        tally.taken_back -= amount
        return
    tally.awards += 1
    tally.awarded += amount
    if seen.get(row) != name:
        seen[row] = name
        tally.members += 1


_PLACES = ("", " really", " all", " really all")
"""Of a row: by whom something is paid, and in which world."""


def hold(sums: Sums, members: Iterable[SimulatedMember]) -> None:
    """Hold everything to what the database can hold, after each page."""
    for part in (sums.total, *sums.tiers.values(), *sums.segments.values(), *sums.weeks.values()):
        for tally in part.tallies:
            tally.awarded, tally.taken_back = min(tally.awarded, SUM_MAX), min(tally.taken_back, SUM_MAX)
    for pair in sums.other_assets.values():
        pair[:] = map(bounded, pair)
    for member in members:
        member.got[:] = map(bounded, member.got)


# --- the report -------------------------------------------------------------------------------------------------------


def report_of(simulation: Simulation, winners: Sequence[Winner], budget: str) -> Report:
    """The report of a simulation that has come to its end; `budget` is the account of the campaign's budget."""
    sums, campaign = simulation.sums, simulation.campaign
    cost = scaled(simulation.unit_cost)
    used = simulation.budgets.get(budget)
    return Report(
        asset=campaign.asset,
        events=sums.total.events,
        total=_row("total", sums.total, cost),
        by_tier=_rows(sums.tiers, cost),
        by_segment=_rows(sums.segments, cost),
        by_week=_rows(sums.weeks, cost),
        largest_winners=list(winners),
        other_assets=[
            OtherAsset(asset, here, there, bounded(here - there)) for asset, (here, there) in sorted(sums.other_assets.items())
        ],
        as_it_was=AsItWas(sums.without_inputs, sums.version_missing, sums.member_erased),
        budget_used=None if campaign.budget is None else 0 if used is None else used.own,
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
    here, there = _figures(simulated, cost), _figures(real, cost)
    difference = Figures(
        here.awards - there.awards,
        here.members - there.members,
        bounded(here.awarded - there.awarded),
        bounded(here.taken_back - there.taken_back),
        bounded(here.points - there.points),
        bounded(here.cost - there.cost),
    )
    return Comparison(here, there, difference)


def _figures(tally: SimulationTally, cost: int) -> Figures:
    points = tally.awarded - tally.taken_back
    money = bounded(divide(points * cost, PLACES, "half_even"))
    return Figures(tally.awards, tally.members, tally.awarded, tally.taken_back, points, money)
