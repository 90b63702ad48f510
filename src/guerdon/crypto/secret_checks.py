"""What makes a secret unfit for production: who else may read its file, or that it could be guessed. Nothing here repeats a secret."""

import base64
import binascii
import os
import re
import stat
from pathlib import Path
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct

SECRET_BYTES_MAX = 64 * 1024
PASSWORD_LENGTH_MIN = 16
PASSWORD_LETTERS_MIN = 8
KEY_BYTE_VALUES_MIN = 16
"""Different values among the 32 bytes of a key. Of random keys, fewer than one in 10^9 has so few."""
_PRINTED = {"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}
"""Keys that stand in a specification: RFC 8037, appendix A."""
_OBVIOUS = re.compile(r"password|passw0rd|changeme|change-me|secret|example|guerdon|mongodb|letmein|qwert|12345", re.IGNORECASE)
_WITHOUT_PASSWORD = {"MONGODB-X509", "MONGODB-AWS", "MONGODB-OIDC", "GSSAPI"}
_HERE = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\]|%2f[^:]*\.sock)(:[0-9]+)?\Z", re.IGNORECASE)


def read_file(path: Path) -> tuple[str, str | None]:
    """Return what a secret's file holds, and what is wrong with who may read it. Links are followed: the file they lead to counts.

    A file of ours is ours alone. One of root's may also be read by a group, since that is how secrets are handed to a process that is not
    root: Kubernetes gives them to a group, and systemd to an access list that shows as a group's right.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read, or is larger than 64 KiB.
    """
    with path.open("rb") as file:
        facts = os.fstat(file.fileno())
        raw = file.read(SECRET_BYTES_MAX + 1)
    if len(raw) > SECRET_BYTES_MAX:
        raise OSError("larger than any secret")
    return raw.decode("utf-8").strip(), _openness_of(facts)


def _openness_of(facts: os.stat_result) -> str | None:
    mode = stat.S_IMODE(facts.st_mode)
    if facts.st_uid == os.geteuid():
        others = 0o077
    elif facts.st_uid == 0:
        others = 0o027
    else:
        return f"its file belongs to user {facts.st_uid}, neither to root nor to whoever runs this: chown it"
    if mode & others:
        return f"its file has mode {mode:04o}, so that others may read or change it: chmod 0600 it"
    return None


def weakness_of_keys(text: str) -> str | None:
    """Say what is weak about a JWK set of secret keys. Whether it is one at all, its reader says."""
    for raw in _keys_in(text):
        if raw in (_raw_of(printed) for printed in _PRINTED):
            return "holds a key that is printed in a specification: make one"
        if len(set(raw)) < KEY_BYTE_VALUES_MIN:
            return "holds a key that is short or not random: make one"
    return None


class _Jwk(Struct):
    d: str | None = None
    k: str | None = None


class _JwkSet(Struct):
    keys: list[_Jwk]


def _keys_in(text: str) -> list[bytes]:
    try:
        keys = msgspec.json.decode(text.encode(), type=_JwkSet).keys
    except (msgspec.MsgspecError, UnicodeError):
        return []
    return [_raw_of(value) for jwk in keys if (value := jwk.d or jwk.k) is not None]


def _raw_of(value: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        return b""


def weakness_of_database(url: str, *, open_network: bool) -> str | None:
    """Say what is weak about the way to a MongoDB. With `open_network` nobody else is on the network, so only a weak password counts."""
    scheme, _, rest = url.partition("://")
    place, _, asked = rest.partition("?")
    user, at, hosts = place.partition("/")[0].rpartition("@")
    options = {name.lower(): values[-1] for name, values in parse_qs(asked).items()}
    name, _, password = user.partition(":")
    if password:
        weak = unquote(password)
        if len(weak) < PASSWORD_LENGTH_MIN or len(set(weak)) < PASSWORD_LETTERS_MIN or _OBVIOUS.search(weak):
            return f"has a password that is short or could be guessed: take at least {PASSWORD_LENGTH_MIN} random characters"
    if open_network:
        return None
    mechanism = options.get("authmechanism", "").upper()
    if mechanism not in _WITHOUT_PASSWORD and not (at and name and password):
        return "names no user and password: give the database access control"
    tls = options.get("tls", options.get("ssl", "true" if scheme == "mongodb+srv" else "false")).lower() == "true"
    if not tls and not all(_HERE.match(host) for host in hosts.split(",")):
        return "goes over the network in clear: add tls=true"
    doubts = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "ssl_cert_reqs")
    if tls and any(options.get(doubt, "false").lower() not in ("false", "cert_required") for doubt in doubts):
        return "does not check whose certificate it is shown: remove tlsInsecure and tlsAllowInvalid…"
    return None
