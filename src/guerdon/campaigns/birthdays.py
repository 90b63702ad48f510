"""The member's birthday, as conditions see it. Pure.

It is an attribute like others, `birthday`, and so sealed with the profile: nothing can be looked up by it, and no job walks through
everybody's to find those of today. A condition asks when an event occurs, which is right whether or not a job has run.
"""

from calendar import isleap
from datetime import date

from msgspec import Struct

BIRTHDAY = "birthday"


class Birthday(Struct, frozen=True):
    """Whether an event lies on the member's birthday, and in its month."""

    today: bool = False
    month: bool = False


def birthday_on(day: date, attribute: object) -> Birthday:
    """Say what a day is for whoever has this `birthday`, `1990-02-28`; what is no date is nobody's birthday.

    Who was born on 29 February has their birthday on 28 February in years without one.
    """
    if not isinstance(attribute, str):
        return Birthday()
    try:
        born = date.fromisoformat(attribute)
    except ValueError:
        return Birthday()
    on = 28 if (born.month, born.day) == (2, 29) and not isleap(day.year) else born.day
    month = day.month == born.month
    return Birthday(month and day.day == on, month)
