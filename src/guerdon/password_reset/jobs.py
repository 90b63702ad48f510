"""Background work of recovery: handing out tokens, and sending them."""

from urllib.parse import urlsplit

from structlog.typing import FilteringBoundLogger

from guerdon.errors import StartupRefused
from guerdon.mail import Mailer, is_loopback
from guerdon.outbox import Event, Outbox
from guerdon.password_reset.service import BATCH, TO_MAIL, PasswordResets

EVERY_MS = 1000
PLACE = "{token}"
_SUBJECT = "Set a new password"
_TEXT = """\
Somebody has asked to set a new password for this e-mail address.

If it was you, open this page. It works once, and for half an hour after the asking:

{link}

If it was not you, there is nothing to do: the password stays as it is.
"""


def check_link(template: str) -> str:
    """Return the address of the page that sets a new password, with a place for the token.

    Raises:
        StartupRefused: it has no such place, or would carry the token unprotected.
    """
    try:
        parts = urlsplit(template)
        safe = bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(str(parts.hostname))))
    except ValueError:
        safe = False
    if not safe or template.count(PLACE) != 1 or not template.isprintable() or " " in template:
        raise StartupRefused(f"GUERDON_RESET_URL must be an https address with {PLACE} in it once, best behind a #")
    return template


class Postman:
    """Sends the tokens that are to be told by mail."""

    def __init__(self, recovery: PasswordResets, outbox: Outbox, mailer: Mailer, link: str, log: FilteringBoundLogger) -> None:
        self._recovery = recovery
        self._outbox = outbox
        self._mailer = mailer
        self._link = check_link(link)
        self._log = log

    async def deliver(self) -> int:
        """Send what is due; return how many letters have left."""
        sent = 0
        for event in await self._outbox.take(TO_MAIL, BATCH):
            letter = await self._recovery.letter_for(event)
            if letter is None:
                await self._outbox.done(event)
            elif await self._send(event, *letter):
                await self._outbox.done(event)
                sent += 1
        return sent

    async def _send(self, event: Event, email: str, token: str) -> bool:
        text = _TEXT.format(link=self._link.replace(PLACE, token))
        try:
            await self._mailer.send(email, _SUBJECT, text, letter_id=event.id)
        except (OSError, ValueError) as error:
            # Never the sentence: servers repeat the address in it.
            pause_ms = await self._outbox.again(event)
            code = getattr(error, "smtp_code", None)
            self._log.warning(
                "mail_failed", id=event.id, tries=event.row.tries, cause=type(error).__name__, smtp_code=code, again_in_ms=pause_ms
            )
            return False
        return True
