"""When a member's birthday is."""

from datetime import date

import pytest

from guerdon.campaigns.birthdays import Birthday, birthday_on


@pytest.mark.parametrize(
    ("day", "attribute", "expected"),
    [
        (date(2026, 5, 3), "1990-05-03", (True, True)), (date(2026, 5, 4), "1990-05-03", (False, True)),
        (date(2026, 6, 3), "1990-05-03", (False, False)), (date(2027, 2, 28), "1992-02-29", (True, True)),
        (date(2028, 2, 28), "1992-02-29", (False, True)), (date(2028, 2, 29), "1992-02-29", (True, True)),
        (date(2100, 2, 28), "1992-02-29", (True, True)), (date(2026, 5, 3), "3 May", (False, False)),
        (date(2026, 5, 3), 19900503, (False, False)), (date(2026, 5, 3), None, (False, False)),
    ],
)  # fmt: skip
def test_birthday_follows_the_attribute_and_the_calendar(day: date, attribute: object, expected: tuple[bool, bool]) -> None:
    assert birthday_on(day, attribute) == Birthday(*expected)
