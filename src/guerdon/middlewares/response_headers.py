"""What every answer tells a browser, and which pages of other origins may read the answers."""

from collections.abc import Sequence

from falcon.constants import COMBINED_METHODS

from guerdon.http.operation import Request, Response

HSTS_SECONDS = 31_536_000
NOT_A_PAGE = "default-src 'none'; frame-ancestors 'none'"
"""An answer of the API is data. Routes that are pages set a policy of their own."""
_ALWAYS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", NOT_A_PAGE),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()"),
    ("Referrer-Policy", "no-referrer"),
    # Without a name here, the server puts its own.
    ("Server", "guerdon"),
    ("X-Content-Type-Options", "nosniff"),
)
EXPOSED = "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
"""What a script of another origin may read besides what the Fetch standard lets it."""
ACCEPTED = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-Id"
PREFLIGHT_SECONDS = 600


class Headers:
    """Puts the same headers on every answer. What a route has set itself stays."""

    def __init__(self, *, behind_tls: bool) -> None:
        fixed = dict(_ALWAYS)
        if behind_tls:
            fixed["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
        self._fixed = {name.lower(): value for name, value in fixed.items()}

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        # All at once: one by one, through Falcon's methods, they would cost five microseconds of every request.
        resp._headers = self._fixed | resp._headers  # pyright: ignore[reportPrivateUsage]


class CrossOrigin:
    """Lets pages of the listed origins call the API (Fetch standard, 3.2). Credentials are bearer tokens, so cookies are never allowed.

    Falcon has a middleware for this, but its answers do not vary by origin, so that a cache could hand one origin's answer to another, and it
    repeats whatever headers a preflight asks for.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        resp.append_header("Vary", "Origin")
        origin = req.get_header("Origin")
        if origin is None or origin not in self._origins:
            return
        resp.set_header("Access-Control-Allow-Origin", origin)
        wanted = req.get_header("Access-Control-Request-Method") if req.method == "OPTIONS" else None
        allowed = resp.get_header("Allow")
        if wanted is None or allowed is None or wanted not in COMBINED_METHODS:
            resp.set_header("Access-Control-Expose-Headers", EXPOSED)
            return
        resp.set_header("Access-Control-Allow-Methods", allowed)
        resp.set_header("Access-Control-Allow-Headers", ACCEPTED)
        resp.set_header("Access-Control-Max-Age", str(PREFLIGHT_SECONDS))
