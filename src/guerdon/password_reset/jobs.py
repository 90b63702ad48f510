"""Job that sends the mails of password resets."""

from urllib.parse import urlsplit

from structlog.typing import FilteringBoundLogger

from guerdon.errors import StartupRefused
from guerdon.mail import Mailer, is_loopback
from guerdon.outbox import Event, Outbox
from guerdon.password_reset.service import BATCH, TO_MAIL, PasswordResets

EVERY_MS = 1000
TOKEN_PLACEHOLDER = "{token}"  # noqa: S105 (a placeholder of the message, not a secret)
_SUBJECT = "Set a new password"
_TEXT = """\
A new password was requested for the account with this e-mail address.

If you requested it, open this page. The link works once, within 30 minutes of the request:

{link}

If you did not request it, ignore this message. The password has not changed.
"""


def check_link(template: str) -> str:
    """Check and return the address of the page that sets a new password, which contains `{token}` once.

    Raises:
        StartupRefused: the address does not contain `{token}` once, or is not protected by TLS.
    """
    try:
        parts = urlsplit(template)
        safe = bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(str(parts.hostname))))
    except ValueError:
        safe = False
    if not safe or template.count(TOKEN_PLACEHOLDER) != 1 or not template.isprintable() or " " in template:
        raise StartupRefused(
            f"GUERDON_RESET_URL must be an https address that contains {TOKEN_PLACEHOLDER} once, preferably after a #"
        )
    return template


class ResetMailer:
    """Sends the mails of password resets."""

    def __init__(self, resets: PasswordResets, outbox: Outbox, mailer: Mailer, link: str, log: FilteringBoundLogger) -> None:
        self._resets = resets
        self._outbox = outbox
        self._mailer = mailer
        self._link = check_link(link)
        self._log = log

    async def deliver(self) -> int:
        """Send the mails that are due, and return their number."""
        sent = 0
        for event in await self._outbox.take(TO_MAIL, BATCH):
            message = await self._resets.find_message(event)
            if message is None:
                await self._outbox.mark_delivered(event)
            elif await self._send(event, *message):
                await self._outbox.mark_delivered(event)
                sent += 1
        return sent

    async def _send(self, event: Event, email: str, token: str) -> bool:
        text = _TEXT.format(link=self._link.replace(TOKEN_PLACEHOLDER, token))
        try:
            await self._mailer.send(email, _SUBJECT, text, message_id=event.id)
        except (OSError, ValueError) as error:
            # The error's message is not logged, because mail servers repeat the address in it.
            pause_ms = await self._outbox.retry_later(event)
            code = getattr(error, "smtp_code", None)
            self._log.warning(
                "mail_failed", id=event.id, tries=event.row.tries, cause=type(error).__name__, smtp_code=code, again_in_ms=pause_ms
            )
            return False
        return True
