"""Checks for secrets that are unfit for production: a file that others may read, or a value that can be guessed.

No message repeats a secret.
"""

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
"""Minimum number of different values among the 32 bytes of a key. Fewer than one random key in 10^9 has less."""
_PUBLISHED = {"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}
"""Keys that are printed in a specification: RFC 8037, appendix A."""
_OBVIOUS = re.compile(r"password|passw0rd|changeme|change-me|secret|example|guerdon|mongodb|letmein|qwert|12345", re.IGNORECASE)
_WITHOUT_PASSWORD = {"MONGODB-X509", "MONGODB-AWS", "MONGODB-OIDC", "GSSAPI"}
_LOCAL_HOST = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\]|%2f[^:]*\.sock)(:[0-9]+)?\Z", re.IGNORECASE)


def read_file(path: Path) -> tuple[str, str | None]:
    """Return the content of a secret's file, and the fault of its permissions or None. Links are followed to the file itself.

    A file that belongs to this user must not be accessible to any other user. A file that belongs to root may also be readable by its group,
    which is how secrets reach a process that is not root: Kubernetes sets a group, and systemd an access list that shows as group rights.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read, or is larger than 64 KiB.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        raw = file.read(SECRET_BYTES_MAX + 1)
    if len(raw) > SECRET_BYTES_MAX:
        raise OSError(f"larger than {SECRET_BYTES_MAX // 1024} KiB")
    return raw.decode("utf-8").strip(), _openness_of(status)


def _openness_of(status: os.stat_result) -> str | None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == os.geteuid():
        forbidden = 0o077
    elif status.st_uid == 0:
        forbidden = 0o027
    else:
        return f"the file belongs to user {status.st_uid}, not to root or to the user of this process: chown it"
    if mode & forbidden:
        return f"the file has mode {mode:04o}, so others can read or change it: chmod 0600 it"
    return None


def weakness_of_keys(text: str) -> str | None:
    """Return the weakness of a JWK set of secret keys, or None. Text that is not a JWK set has none: its reader rejects it."""
    for raw in _keys_in(text):
        if raw in (_raw_of(published) for published in _PUBLISHED):
            return "contains a key that is printed in a specification: generate a new key"
        if len(set(raw)) < KEY_BYTE_VALUES_MIN:
            return "contains a key that is short or not random: generate a new key"
    return None


# Not the classes of `crypto.jwk`: a key that its reader rejects is examined too, and this module is imported before any cryptography.
class _AnyJwk(Struct):
    d: str | None = None
    k: str | None = None


class _AnyJwkSet(Struct):
    keys: list[_AnyJwk]


def _keys_in(text: str) -> list[bytes]:
    try:
        keys = msgspec.json.decode(text.encode(), type=_AnyJwkSet).keys
    except (msgspec.MsgspecError, UnicodeError):
        return []
    return [_raw_of(value) for jwk in keys if (value := jwk.d or jwk.k) is not None]


def _raw_of(value: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        return b""


def weakness_of_database(url: str, *, open_network: bool) -> str | None:
    """Return the weakness of the connection to a MongoDB, or None. With `open_network` the network is trusted, so only a weak password counts."""
    scheme, _, rest = url.partition("://")
    location, _, query = rest.partition("?")
    user, at, hosts = location.partition("/")[0].rpartition("@")
    options = {name.lower(): values[-1] for name, values in parse_qs(query).items()}
    name, _, password = user.partition(":")
    if password:
        decoded = unquote(password)
        if len(decoded) < PASSWORD_LENGTH_MIN or len(set(decoded)) < PASSWORD_LETTERS_MIN or _OBVIOUS.search(decoded):
            return f"has a password that is short or can be guessed: use at least {PASSWORD_LENGTH_MIN} random characters"
    if open_network:
        return None
    mechanism = options.get("authmechanism", "").upper()
    if mechanism not in _WITHOUT_PASSWORD and not (at and name and password):
        return "has no user and password: enable access control in the database"
    tls = options.get("tls", options.get("ssl", "true" if scheme == "mongodb+srv" else "false")).lower() == "true"
    if not tls and not all(_LOCAL_HOST.match(host) for host in hosts.split(",")):
        return "sends data over the network unencrypted: add tls=true"
    insecure = ("tlsinsecure", "tlsallowinvalidcertificates", "tlsallowinvalidhostnames", "ssl_cert_reqs")
    if tls and any(options.get(option, "false").lower() not in ("false", "cert_required") for option in insecure):
        return "does not verify the server's certificate: remove tlsInsecure and tlsAllowInvalid…"
    return None
