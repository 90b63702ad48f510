"""The view group `books`: what is derived from entries and events, in one pass."""

from guerdon.calendar import Calendar
from guerdon.projections.models import ViewGroup
from guerdon.views.models import AGGREGATES, BOOKS, BOOKS_VERSION


def books_group(calendar: Calendar) -> ViewGroup:
    """Return the definition of the group. `calendar` gives the days and months of the programme."""
    return ViewGroup(BOOKS, BOOKS_VERSION, (), AGGREGATES)
