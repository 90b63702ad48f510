"""Letters, handed in to a real SMTP server."""

import smtplib
import ssl
from email.headerregistry import Address
from pathlib import Path

import pytest

from guerdon.clock import SystemClock
from guerdon.errors import StartupRefused
from guerdon.mail import Mailer, MailServer, parse_sender, parse_smtp_url, recipient_of
from tests.smtp_server import PASSWORD, USER, certificate, post_office

SENDER = Address("Guerdon", "no-reply", "shop.test")
LETTER = ("ada@example.com", "Set a new password", "Open https://shop.test/#token\n")


def mailer(server: MailServer) -> Mailer:
    return Mailer(server, SENDER, SystemClock())


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.test", MailServer("mail.test", 587, "starttls")),
        ("smtp://u:p%40%3A@mail.test:2525", MailServer("mail.test", 2525, "starttls", "u", "p@:")),
        ("smtps://u:p@mail.test/", MailServer("mail.test", 465, "tls", "u", "p")),
        ("smtp://127.0.0.9:25", MailServer("127.0.0.9", 25, "none")),
        ("smtp://[::1]:25", MailServer("::1", 25, "none")),
        ("smtp://localhost", MailServer("localhost", 587, "none")),
        ("smtps://localhost", MailServer("localhost", 465, "tls")),
        ("smtp://localhost.attacker.test", MailServer("localhost.attacker.test", 587, "starttls")),
    ],
)
def test_a_mail_server_is_read_from_its_url(url: str, server: MailServer) -> None:
    assert parse_smtp_url(url) == server


@pytest.mark.parametrize(
    "url",
    ["", "mail.test", "http://mail.test", "smtp://", "smtp://u@mail.test", "smtp://:hunter2hunter2@", "smtp://mail.test:99999",
     "smtp://mail.test/x", "smtp://mail.test?tls=no", "smtp://u:hunter2hunter2@[mail.test"],
)  # fmt: skip
def test_invalid_mail_server_url_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(StartupRefused) as refused:
        parse_smtp_url(url)
    assert "hunter2" not in refused.value.detail


def test_the_sender_is_one_address() -> None:
    assert parse_sender("Guerdon <no-reply@shop.test>") == SENDER
    assert parse_sender("no-reply@shop.test").addr_spec == "no-reply@shop.test"
    for wrong in (
        "",
        "shop.test",
        "a@b.test, c@d.test",
        "a@b.test\nBcc: eve@evil.test",
        "=?utf-8?q?a=0ABcc:?= <a@b.test>",
        "<>",
        "x <>",
    ):
        with pytest.raises(StartupRefused):
            parse_sender(wrong)


async def test_a_letter_arrives_as_it_was_written() -> None:
    async with post_office() as office:
        await mailer(MailServer("127.0.0.1", office.port, "none")).send(*LETTER, message_id="evt_1")
    [envelope], [letter] = office.envelopes, office.letters
    assert (envelope.mail_from, envelope.rcpt_tos) == ("no-reply@shop.test", ["ada@example.com"])
    assert letter["From"] == "Guerdon <no-reply@shop.test>"
    assert (letter["To"], letter["Subject"], letter["Message-ID"]) == (LETTER[0], LETTER[1], "<evt_1@shop.test>")
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter.get_content().strip() == LETTER[2].strip()
    assert sorted(set(letter.keys())) == sorted(letter.keys())


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("jörg@example.com", "jörg@example.com"),
        ("o'neill+a=b@example.com", "o'neill+a=b@example.com"),
        ("x" * 64 + "@" + "a" * 60 + ".example.com", "x" * 64 + "@" + "a" * 60 + ".example.com"),
    ],
)
async def test_unusual_addresses_are_reached(address: str, recipient: str) -> None:
    assert recipient_of(address).addr_spec == recipient
    async with post_office() as office:
        await mailer(MailServer("127.0.0.1", office.port, "none")).send(address, *LETTER[1:], message_id="evt_1")
    assert office.envelopes[0].rcpt_tos == [recipient]


@pytest.mark.parametrize(
    "address",
    ["ada@example.com\r\nBcc: eve@evil.test", "ada@example.com\nBcc: eve@evil.test", "ada@example.com, eve@evil.test", "ada", "",
     "Ada <ada@example.com>", "ada@example.com\0"],
)  # fmt: skip
async def test_mail_headers_cannot_be_injected(address: str) -> None:
    async with post_office() as office:
        with pytest.raises(ValueError):
            await mailer(MailServer("127.0.0.1", office.port, "none")).send(address, *LETTER[1:], message_id="evt_1")
        with pytest.raises(ValueError):
            await mailer(MailServer("127.0.0.1", office.port, "none")).send(
                LETTER[0], "a\nBcc: eve@evil.test", "x", message_id="evt_1"
            )
    assert office.envelopes == []


async def test_mail_is_not_sent_without_starttls() -> None:
    """What stands for every server that is not on loopback."""
    async with post_office() as office:
        with pytest.raises(smtplib.SMTPNotSupportedError):
            await mailer(MailServer("127.0.0.1", office.port, "starttls", USER, PASSWORD)).send(*LETTER, message_id="evt_1")
    assert (office.envelopes, office.users) == ([], [])


@pytest.mark.parametrize("protection", ["starttls", "tls"])
async def test_protected_mail_connection_requires_a_trusted_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protection: str
) -> None:
    context, trusted = certificate(tmp_path)
    async with post_office(**{protection: context, "log_in": protection == "starttls"}) as office:
        url = f"{'smtps' if protection == 'tls' else 'smtp'}://{USER}:p%40ss%3Aword%2F1@localhost:{office.port}"
        parsed = parse_smtp_url(url)
        server = MailServer(parsed.host, parsed.port, protection, parsed.user, parsed.password)
        with pytest.raises(ssl.SSLCertVerificationError):
            await mailer(server).send(*LETTER, message_id="evt_1")
        assert (office.envelopes, office.users) == ([], [])
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        await mailer(server).send(*LETTER, message_id="evt_1")
        assert office.users == [USER.encode()]
        other = MailServer("127.0.0.1", server.port, server.protection, USER, PASSWORD)
        with pytest.raises(ssl.SSLCertVerificationError):
            await mailer(other).send(*LETTER, message_id="evt_1")
    assert len(office.envelopes) == 1


async def test_a_wrong_password_of_the_mail_server_is_an_error() -> None:
    async with post_office() as office:
        with pytest.raises(smtplib.SMTPException):
            await mailer(MailServer("127.0.0.1", office.port, "none", USER, "wrong")).send(*LETTER, message_id="evt_1")
    assert office.envelopes == []
