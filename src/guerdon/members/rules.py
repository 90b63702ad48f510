"""Pure decisions about addresses, claims and scopes."""

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

from guerdon.errors import Forbidden, Validation
from guerdon.members.lookalikes import LOOKALIKES
from guerdon.members.models import EMAIL_LENGTH_MAX, Member
from guerdon.permissions import ROLES_SCOPE, Actor

EMAIL_CLAIM = "email:"
EXTERNAL_ID_CLAIM = "external_id:"
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""What Unicode lets a display leave out (Default_Ignorable_Code_Point), and the blank of Braille."""


def valid_email(text: str) -> str:
    """Return the address as it is stored: syntax checked, Unicode composed, domain in lower case; nothing is looked up.

    Raises:
        Validation: it is not an e-mail address, or one with characters that nobody sees.
    """
    try:
        if _INVISIBLE.search(text):
            raise EmailNotValidError
        # `test_environment` also accepts *.test, which RFC 6761 reserves for trying things out; `strict` bounds the local part.
        checked = validate_email(text[: EMAIL_LENGTH_MAX + 1], strict=True, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        # The library's sentence quotes parts of the address, and a detail may end up in a log.
        raise Validation.at("/email", "not a valid e-mail address") from None
    return checked.normalized


def normal_email(address: str) -> str:
    """Return the form in which a valid address is compared: the same for two spellings that people take for the same address."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).casefold()).translate(LOOKALIKES)


def claimed_field(claim_id: str) -> str:
    """Return the name of the member's field that a claim guards."""
    return claim_id.partition(":")[0]


def require_authority(actor: Actor, member: Member) -> None:
    """Hold a change of somebody's standing to who asks for it.

    Raises:
        Forbidden: it is the caller's own, or that of somebody who works here and the caller is no admin.
    """
    if actor.id == member.id:
        raise Forbidden("nobody changes their own standing")
    if member.role != "member" and not actor.may(ROLES_SCOPE):
        raise Forbidden("only an admin changes the standing of somebody who works here")
