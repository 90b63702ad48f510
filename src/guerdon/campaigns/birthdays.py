"""The member's birthday in conditions. Pure.

The birthday is the attribute `birthday`, sealed with the profile like the others: members cannot be searched by it, and no job reads all
profiles each day. A condition reads it when an event occurs, so the result does not depend on a job.
"""

from calendar import isleap
from datetime import date

from msgspec import Struct


class Birthday(Struct, frozen=True):
    """Position of an event relative to the member's birthday."""

    today: bool = False
    """True on the birthday."""
    month: bool = False
    """True in the month of the birthday."""


NO_BIRTHDAY = Birthday()


def birthday_on(day: date, attribute: object) -> Birthday:
    """Return what a day is for a member whose attribute `birthday` has this value, such as `1990-02-28`.

    A value that is not a date is no birthday. The birthday of 29 February is on 28 February in years without a leap day.
    """
    if not isinstance(attribute, str):
        return NO_BIRTHDAY
    try:
        born = date.fromisoformat(attribute)
    except ValueError:
        return NO_BIRTHDAY
    on = 28 if (born.month, born.day) == (2, 29) and not isleap(day.year) else born.day
    month = day.month == born.month
    return Birthday(month and day.day == on, month)
