"""Pure rules for e-mail addresses, claims and changes of a member."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date, timedelta

from email_validator import EmailNotValidError, validate_email

from guerdon.errors import Forbidden, Validation
from guerdon.members.lookalikes import LOOKALIKES
from guerdon.members.models import BIRTHDAY, EMAIL_LENGTH_MAX, Member
from guerdon.permissions import ROLES_SCOPE, Actor

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
EMAIL_CLAIM = "email:"
EXTERNAL_ID_CLAIM = "external_id:"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Characters that a display may omit (Unicode: Default_Ignorable_Code_Point), and the blank Braille pattern."""


def valid_email(text: str) -> str:
    """Check the syntax of an address, without any look-up. Return its stored form: Unicode composed, domain in lower case.

    Raises:
        Validation: `text` is not an e-mail address, or contains invisible characters.
    """
    try:
        if _INVISIBLE.search(text):
            raise EmailNotValidError
        # `test_environment` also accepts *.test, which RFC 6761 reserves for tests; `strict` limits the length of the local part.
        checked = validate_email(text[: EMAIL_LENGTH_MAX + 1], strict=True, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        # The library's message quotes parts of the address, and a detail may be logged.
        raise Validation.at("/email", "not a valid e-mail address") from None
    return checked.normalized


def normal_email(address: str) -> str:
    """Return the form in which valid addresses are compared: equal for two spellings that look the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).casefold()).translate(LOOKALIKES)


def faults_of_attributes(attributes: Mapping[str, object], today: date) -> list[Validation]:
    """Return the faults of attributes that have a meaning. `today` is the day in UTC.

    `birthday` is the only one: a value that is no date would be no birthday in any condition, without an error.
    """
    if BIRTHDAY not in attributes:
        return []
    pointer, text = f"/attributes/{BIRTHDAY}", attributes[BIRTHDAY]
    try:
        born = date.fromisoformat(text) if isinstance(text, str) and _DAY.match(text) else None
    except ValueError:
        born = None
    if born is None:
        return [Validation.at(pointer, "it must be an existing day such as 1990-02-28; use another name for other values")]
    if born > today + timedelta(days=1):
        return [Validation.at(pointer, "it must not be in the future")]
    return []


def claimed_field(claim_id: str) -> str:
    """Return the name of the member's field that a claim guards."""
    return claim_id.partition(":")[0]


def require_authority(actor: Actor, member: Member) -> None:
    """Check that the caller may change the role of a member, or disable or enable them.

    Raises:
        Forbidden: the member is the caller, or the member is staff and the caller is not an admin.
    """
    if actor.id == member.id:
        raise Forbidden("you cannot change your own role or disable yourself")
    if member.role != "member" and not actor.may(ROLES_SCOPE):
        raise Forbidden("only an admin can change the role of staff, or disable or enable staff")
