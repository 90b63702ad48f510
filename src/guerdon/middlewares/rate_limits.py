"""Applies rate limits and sends their status to the caller (draft-ietf-httpapi-ratelimit-headers).

Anonymous callers are counted by address, others by their identity.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from guerdon.access.service import Access
from guerdon.errors import NotFound
from guerdon.http.operation import SAFE_METHODS, AnsweredError, Operation, Request, Response, in_time
from guerdon.rate_limits.rules import QuotaStatus, header_fields
from guerdon.rate_limits.service import RateLimiter, WithoutStore

FORWARDED_MAX = 20
"""Maximum number of hops that are examined, which is more than any chain of own proxies."""
NO_ADDRESS = "unknown"
IPV6_PREFIX = 64
"""Length of the IPv6 prefix that counts as one address: a household or a server usually has a whole /64 network."""


class Addresses:
    """Determines the network address of a caller. `X-Forwarded-For` is used only from configured proxies (ASVS 4.1.3)."""

    def __init__(self, trusted: Iterable[IPv4Network | IPv6Network]) -> None:
        self._trusted = tuple(trusted)

    def of(self, request: Request) -> str:
        """Return the address of the caller: an IPv4 address, or an IPv6 network of 64 bits."""
        client = request.scope.get("client")
        peer = _parsed(client[0]) if client else None
        if peer is None:
            return NO_ADDRESS
        if self._trusted and self._is_trusted(peer):
            peer = self._forwarded(request, peer)
        return str(peer) if isinstance(peer, IPv4Address) else str(IPv6Network((peer, IPV6_PREFIX), strict=False))

    def _forwarded(self, request: Request, peer: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
        """Return the last address of the list that is not a trusted proxy. Only the end of the list was written by trusted proxies."""
        forwarded = ",".join(value.decode("latin-1") for name, value in request.scope["headers"] if name == b"x-forwarded-for")
        for text in reversed(forwarded.split(",")[-FORWARDED_MAX:]):
            hop = _parsed(text.strip())
            if hop is None:
                break
            peer = hop
            if not self._is_trusted(peer):
                break
        return peer

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


_ANONYMOUS_QUOTAS: Mapping[str, tuple[str, WithoutStore]] = {"usual": ("stranger", "local"), "entry": ("entry", "closed")}
"""Quota, and behaviour without the store, by the `quota` of a route. Routes on which secrets could be guessed are then closed."""


class AnonymousLimit:
    """Limits requests without credentials, and requests with invalid credentials, by address. Runs before the authentication."""

    def __init__(
        self, limiter: RateLimiter, addresses: Addresses, access: Access, operations: Mapping[tuple[str, str], Operation]
    ) -> None:
        self._limiter = limiter
        self._addresses = addresses
        self._access = access
        self._operations = operations

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        declared = self._operations.get((req.uri_template or "", req.method))
        if declared is None or declared.quota == "none":
            return
        if not declared.policy.public and req.get_header("Authorization") is not None:
            return  # Credentials are checked by the authentication.
        req.context.address = self._addresses.of(req)
        name, without_store = _ANONYMOUS_QUOTAS[declared.quota]
        _set_headers(resp, await in_time(req, self._limiter.spend(name, req.context.address, without_store=without_store)))

    def require_credit(self, req: Request, authorization: str | None) -> None:
        """Refuse credentials from an address that has sent too many invalid ones, unless this process has accepted them before.

        Raises:
            TooManyRequests: the address has sent too many invalid credentials.
        """
        if authorization is not None:
            req.context.address = self._addresses.of(req)
            if not self._access.knows(authorization):
                self._limiter.require_credit_here("invalid", req.context.address)

    def count_invalid(self, req: Request) -> None:
        """Count invalid credentials of a request that `require_credit` has admitted."""
        self._limiter.count_here("invalid", req.context.address)


class CallerLimit:
    """Limits the requests of each authenticated caller. Runs after the authentication."""

    def __init__(self, limiter: RateLimiter, without_store: WithoutStore) -> None:
        """`without_store` applies to requests that change something. Requests that only read are then not counted."""
        self._limiter = limiter
        self._without_store: WithoutStore = without_store

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        actor = req.context.actor
        if actor.kind == "anonymous":
            return
        name = "key" if actor.kind == "service_key" else "person"
        if self._limiter.is_shared:
            without_store: WithoutStore = "open" if req.method in SAFE_METHODS else self._without_store
            _set_headers(resp, await in_time(req, self._limiter.spend(name, actor.id, without_store=without_store)))
        else:
            # Without a deadline, because counting in this process does not wait, and every debit comes here.
            _set_headers(resp, self._limiter.spend_here(name, actor.id))


class GuessLimit:
    """Limits the guessing of codes: a caller who has requested many codes that do not exist is refused. Runs after the other checks.

    A code that exists is not counted. One that does not exist is counted for the caller and for the address after the look-up. If concurrent
    requests exceed the quota there, the refusal replaces the result of the look-up. Without the shared store, each process counts for itself.
    """

    def __init__(self, limiter: RateLimiter, addresses: Addresses, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._limiter = limiter
        self._addresses = addresses
        self._routes = frozenset(route for route, declared in operations.items() if declared.guesses)

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        if (req.uri_template or "", req.method) in self._routes:
            await self._spend(req, 0)

    async def process_response(self, req: Request, resp: Response, resource: object, req_succeeded: bool) -> None:
        refusal: AnsweredError | None = req.context.refusal
        if refusal is not None and refusal.code == NotFound.code and (req.uri_template or "", req.method) in self._routes:
            await self._spend(req, 1)

    async def _spend(self, req: Request, cost: int) -> None:
        actor, address = req.context.actor, self._addresses.of(req)
        for key in (address,) if actor.kind == "anonymous" else (actor.id, address):
            await in_time(req, self._limiter.spend("code", key, cost=cost))


def _set_headers(resp: Response, status: QuotaStatus | None) -> None:
    if status is not None:
        resp.set_headers(header_fields(status))
