"""Response headers of every response, and cross-origin access."""

from collections.abc import Sequence

from falcon.constants import COMBINED_METHODS

from guerdon.http.operation import Request, Response

HSTS_SECONDS = 31_536_000
API_CONTENT_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Content security policy of API responses, which are data. Routes that serve pages set their own policy."""
_ALWAYS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", API_CONTENT_POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()"),
    ("Referrer-Policy", "no-referrer"),
    # Without this header the server sends its own name.
    ("Server", "guerdon"),
    ("X-Content-Type-Options", "nosniff"),
)
EXPOSED = "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
"""Response headers that scripts of another origin may read in addition to those of the Fetch standard."""
ACCEPTED = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Seq-At-Least, Last-Event-ID, X-Request-Id"
"""Request headers that scripts of another origin may send."""
PREFLIGHT_SECONDS = 600


class Headers:
    """Sets the same headers on every response. Headers that a route has set take precedence."""

    def __init__(self, *, behind_tls: bool) -> None:
        fixed = dict(_ALWAYS)
        if behind_tls:
            fixed["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
        self._fixed = {name.lower(): value for name, value in fixed.items()}

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        # Merged in one step: setting each header with Falcon's methods would take five microseconds of every request.
        resp._headers = self._fixed | resp._headers  # pyright: ignore[reportPrivateUsage]


class CrossOrigin:
    """Allows pages of the listed origins to call the API (Fetch standard, 3.2). Credentials are bearer tokens, so cookies are not allowed.

    Falcon's own middleware is not used: its responses do not vary by origin, so that a cache could send the response for one origin to
    another, and it allows any header that a preflight requests.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origins)

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        resp.append_header("Vary", "Origin")
        origin = req.get_header("Origin")
        if origin is None or origin not in self._origins:
            return
        resp.set_header("Access-Control-Allow-Origin", origin)
        requested = req.get_header("Access-Control-Request-Method") if req.method == "OPTIONS" else None
        allowed = resp.get_header("Allow")
        if requested is None or allowed is None or requested not in COMBINED_METHODS:
            resp.set_header("Access-Control-Expose-Headers", EXPOSED)
            return
        resp.set_header("Access-Control-Allow-Methods", allowed)
        resp.set_header("Access-Control-Allow-Headers", ACCEPTED)
        resp.set_header("Access-Control-Max-Age", str(PREFLIGHT_SECONDS))
