"""Letters by SMTP (RFC 5321), over TLS: from the first byte (`smtps`) or by STARTTLS (RFC 3207), which is required except on loopback."""

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
"""For each answer of the server."""
_PORTS = {"smtp": 587, "smtps": 465}


class MailServer(Struct, frozen=True):
    """Where letters are handed in."""

    host: str
    port: int
    protection: Literal["tls", "starttls", "none"]
    user: str | None = None
    password: str | None = None


def parse_smtp_url(url: str) -> MailServer:
    """Read `smtp://user:password@host:port`, or `smtps://…`.

    Raises:
        StartupRefused: it is not like that. The sentence does not repeat it, since it may hold a password.
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
    """Read the address, with or without a name, that letters come from.

    Raises:
        StartupRefused: it is not exactly one address.
    """
    message = EmailMessage()
    try:
        message["From"] = text
        addresses, faults = message["From"].addresses, message["From"].defects
    except (ValueError, IndexError, MessageError):
        addresses, faults = (), ()
    if len(addresses) != 1 or faults or not addresses[0].username or not addresses[0].domain:
        raise StartupRefused("GUERDON_MAIL_FROM is not one e-mail address, with or without a name before it")
    return addresses[0]


def recipient_of(address: str) -> Address:
    """Return a valid address as it goes into a letter: with the domain in its ASCII form (RFC 5891), which every server knows."""
    local, _, _ = address.rpartition("@")
    domain = validate_email(address, check_deliverability=False, test_environment=True).ascii_domain
    return Address(username=local, domain=domain)


class Mailer:
    """Hands letters in, one connection each: there are few."""

    def __init__(self, server: MailServer, sender: Address, clock: Clock) -> None:
        self._server = server
        self._sender = sender
        self._clock = clock
        self._tls = ssl.create_default_context()

    async def send(self, to: str, subject: str, text: str, *, letter_id: str) -> None:
        """Hand a letter in; when this returns the server has taken it over. `letter_id` is the same when it is sent again.

        Raises:
            OSError: the server could not be reached, does not protect the connection, or has refused the letter (`smtplib.SMTPException`).
        """
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = recipient_of(to)
        message["Subject"] = subject
        message["Date"] = format_datetime(to_datetime(self._clock.now_ms()))
        message["Message-ID"] = f"<{letter_id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        await asyncio.to_thread(self._hand_in, message)

    def _hand_in(self, message: EmailMessage) -> None:
        server = self._server
        # Its own name would be looked up otherwise, and where nobody answers that takes long.
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
