"""E-mail by SMTP (RFC 5321) over TLS: implicit (`smtps`) or by STARTTLS (RFC 3207), which is required except on loopback."""

import asyncio
import ipaddress
import smtplib
import ssl
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Literal
from urllib.parse import unquote, urlsplit

from email_validator import validate_email
from msgspec import Struct

from guerdon.clock import Clock, to_datetime
from guerdon.errors import StartupRefused

TIMEOUT_SECONDS = 5.0
"""Timeout of each reply of the server."""
_PORTS = {"smtp": 587, "smtps": 465}


class MailServer(Struct, frozen=True):
    """SMTP server that accepts outgoing messages."""

    host: str
    port: int
    protection: Literal["tls", "starttls", "none"]
    user: str | None = None
    password: str | None = None


def parse_smtp_url(url: str) -> MailServer:
    """Parse `smtp://user:password@host:port` or `smtps://…`.

    Raises:
        StartupRefused: The URL has another form. The message does not quote it, because it may contain a password.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    if parts is None or not host or parts.scheme not in _PORTS or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise StartupRefused(
            "GUERDON_SMTP_URL is not of the form smtp://user:password@host:port or smtps://user:password@host:port"
        )
    if (parts.username is None) != (parts.password is None):
        raise StartupRefused("GUERDON_SMTP_URL names a user without a password, or a password without a user")
    protection = "tls" if parts.scheme == "smtps" else "none" if is_loopback(host) else "starttls"
    user, password = (None if text is None else unquote(text) for text in (parts.username, parts.password))
    return MailServer(host, port or _PORTS[parts.scheme], protection, user, password)


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_sender(text: str) -> Address:
    """Parse the sender's address, with or without a display name.

    Raises:
        StartupRefused: The text is not exactly one address.
    """
    message = EmailMessage()
    try:
        message["From"] = text
        addresses, faults = message["From"].addresses, message["From"].defects
    except (ValueError, IndexError, MessageError):
        addresses, faults = (), ()
    if len(addresses) != 1 or faults or not addresses[0].username or not addresses[0].domain:
        raise StartupRefused("GUERDON_MAIL_FROM must be one e-mail address, with or without a name before it")
    return addresses[0]


def recipient_of(address: str) -> Address:
    """Return the address of a recipient with its domain in ASCII form (RFC 5891), which every server accepts."""
    local, _, _ = address.rpartition("@")
    domain = validate_email(address, check_deliverability=False, test_environment=True).ascii_domain
    return Address(username=local, domain=domain)


class Mailer:
    """Sender of messages, with one connection each, because they are few."""

    def __init__(self, server: MailServer, sender: Address, clock: Clock) -> None:
        self._server = server
        self._sender = sender
        self._clock = clock
        self._tls = ssl.create_default_context()

    async def send(self, to: str, subject: str, text: str, *, message_id: str) -> None:
        """Send a message; on return the server has accepted it. Use the same `letter_id` when a message is sent again.

        Raises:
            OSError: The server is unreachable, offers no TLS, or refused the message (`smtplib.SMTPException` is a subclass).
        """
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = recipient_of(to)
        message["Subject"] = subject
        message["Date"] = format_datetime(to_datetime(self._clock.now_ms()))
        message["Message-ID"] = f"<{message_id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        await asyncio.to_thread(self._deliver, message)

    def _deliver(self, message: EmailMessage) -> None:
        server = self._server
        # Without a name, smtplib looks up the host name, which is slow where no name server answers.
        name = self._sender.domain
        if server.protection == "tls":
            connection = smtplib.SMTP_SSL(server.host, server.port, name, timeout=TIMEOUT_SECONDS, context=self._tls)
        else:
            connection = smtplib.SMTP(server.host, server.port, name, timeout=TIMEOUT_SECONDS)
        with connection:
            if server.protection == "starttls":
                connection.starttls(context=self._tls)
            if server.user is not None and server.password is not None:
                connection.login(server.user, server.password)
            connection.send_message(message)
