"""Codes: those of an authenticator (TOTP, RFC 6238), and recovery codes."""

import base64
import hmac
import re

from pyotp.totp import TOTP

from guerdon.ids import digest, random_bytes

STEP_MS = 30_000
DRIFT_STEPS = 1
"""So many steps an authenticator's clock may be behind or ahead."""
SECRET_BYTES = 20
"""What RFC 4226 recommends, and what every authenticator takes."""
CODES, CODE_BYTES, CODE_GROUP = 10, 15, 4
TRIES_MAX, TRIES_MS = 5, 900_000
"""Wrong codes behind a right password, before only waiting helps."""
_TOTP = re.compile(r"[0-9]{6}\Z")
_RECOVERY = re.compile(r"[a-z2-7]{24}\Z")


def new_secret() -> str:
    return base64.b32encode(random_bytes(SECRET_BYTES)).decode()


def uri_of(secret: str, issuer: str, account: str) -> str:
    """Return what an authenticator reads from the picture."""
    return TOTP(secret, name=account, issuer=issuer).provisioning_uri()


def step_of(secret: str, code: str, now_ms: int) -> int | None:
    """Return the newest time step within the drift that has this code."""
    totp, current = TOTP(secret), now_ms // STEP_MS
    steps = range(max(current - DRIFT_STEPS, 0), current + DRIFT_STEPS + 1)
    return max((step for step in steps if hmac.compare_digest(totp.generate_otp(step), code)), default=None)


def new_codes() -> list[str]:
    """Return new recovery codes, as they are shown."""
    texts = [base64.b32encode(random_bytes(CODE_BYTES)).decode().lower() for _ in range(CODES)]
    return ["-".join(text[at : at + CODE_GROUP] for at in range(0, len(text), CODE_GROUP)) for text in texts]


def code_sha256(member_id: str, code: str) -> bytes:
    return digest("recovery code", member_id, plain(code))


def plain(code: str) -> str:
    """Return a code without what people put between its letters."""
    return code.replace("-", "").replace(" ", "").lower()


def is_totp(code: str) -> bool:
    return _TOTP.match(plain(code)) is not None


def is_recovery_code(code: str) -> bool:
    return _RECOVERY.match(plain(code)) is not None
