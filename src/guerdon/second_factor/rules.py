"""Pure rules of codes: the codes of an authenticator (TOTP, RFC 6238), and recovery codes."""

import base64
import hmac
import re

from pyotp.totp import TOTP

from guerdon.ids import digest, random_bytes

STEP_MS = 30_000
DRIFT_STEPS = 1
"""Number of steps by which the clock of an authenticator may be behind or ahead."""
SECRET_BYTES = 20
"""The length that RFC 4226 recommends, which every authenticator accepts."""
CODES, CODE_BYTES, CODE_GROUP = 10, 15, 4
TRIES_MAX, TRIES_MS = 5, 900_000
"""Number of wrong codes after a right password, and the time in which they are counted."""
_TOTP = re.compile(r"[0-9]{6}\Z")
_RECOVERY = re.compile(r"[a-z2-7]{24}\Z")


def new_secret() -> str:
    return base64.b32encode(random_bytes(SECRET_BYTES)).decode()


def uri_of(secret: str, issuer: str, account: str) -> str:
    """Return the `otpauth` address of a secret, which the QR code contains."""
    return TOTP(secret, name=account, issuer=issuer).provisioning_uri()


def step_of(secret: str, code: str, now_ms: int) -> int | None:
    """Return the newest time step within the drift that has this code, or None."""
    totp, current = TOTP(secret), now_ms // STEP_MS
    steps = range(max(current - DRIFT_STEPS, 0), current + DRIFT_STEPS + 1)
    return max((step for step in steps if hmac.compare_digest(totp.generate_otp(step), code)), default=None)


def new_codes() -> list[str]:
    """Return new recovery codes in their readable form, with hyphens between groups."""
    texts = [base64.b32encode(random_bytes(CODE_BYTES)).decode().lower() for _ in range(CODES)]
    return ["-".join(text[start : start + CODE_GROUP] for start in range(0, len(text), CODE_GROUP)) for text in texts]


def code_sha256(member_id: str, code: str) -> bytes:
    """Return the digest under which a recovery code of a member is stored."""
    return digest("recovery code", member_id, normalized(code))


def normalized(code: str) -> str:
    """Return a code in lower case, without spaces and hyphens."""
    return code.replace("-", "").replace(" ", "").lower()


def is_totp(code: str) -> bool:
    return _TOTP.match(normalized(code)) is not None


def is_recovery_code(code: str) -> bool:
    return _RECOVERY.match(normalized(code)) is not None
