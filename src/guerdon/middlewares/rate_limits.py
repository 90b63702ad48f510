"""Holds callers to their quotas and tells them how they stand (draft-ietf-httpapi-ratelimit-headers).

Whoever has not proven anything is counted by address, everybody else by who they are.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from guerdon.access.service import Access
from guerdon.errors import NotFound
from guerdon.http.deadline import in_time
from guerdon.http.operation import SAFE_METHODS, AnsweredError, Operation, Request, Response
from guerdon.rate_limits.rules import QuotaStatus, fields
from guerdon.rate_limits.service import RateLimiter, WithoutStore

FORWARDED_MAX = 20
"""Hops that are looked at: nobody has so many proxies of their own."""
NO_ADDRESS = "unknown"
IPV6_PREFIX = 64
"""A household or a server has so many bits of an IPv6 address to itself; one caller is to be one address."""


class Addresses:
    """Tells where a request came from. Only a configured proxy is believed when it says for whom it asks (ASVS 4.1.3)."""

    def __init__(self, trusted: Iterable[IPv4Network | IPv6Network]) -> None:
        self._trusted = tuple(trusted)

    def of(self, request: Request) -> str:
        client = request.scope.get("client")
        peer = _parsed(client[0]) if client else None
        if peer is None:
            return NO_ADDRESS
        if self._trusted and self._is_trusted(peer):
            peer = self._forwarded(request, peer)
        return str(peer) if isinstance(peer, IPv4Address) else str(IPv6Network((peer, IPV6_PREFIX), strict=False))

    def _forwarded(self, request: Request, peer: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
        """Walk the list from its end, which our own proxies have written, to the first address that is not one of them."""
        given = ",".join(value.decode("latin-1") for name, value in request.scope["headers"] if name == b"x-forwarded-for")
        for text in reversed(given.split(",")[-FORWARDED_MAX:]):
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


_OF_STRANGERS: Mapping[str, tuple[str, WithoutStore]] = {"usual": ("stranger", "local"), "entry": ("entry", "closed")}
"""By what a route declares: the quota, and what happens when nobody counts. Where secrets could be guessed, nobody is let in then."""


class AnonymousLimit:
    """Stands before the authentication: counts who shows nothing, and who has shown too much that proves nothing."""

    def __init__(
        self, throttle: RateLimiter, addresses: Addresses, access: Access, operations: Mapping[tuple[str, str], Operation]
    ) -> None:
        self._throttle = throttle
        self._addresses = addresses
        self._access = access
        self._operations = operations

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        declared = self._operations.get((req.uri_template or "", req.method))
        if declared is None or declared.quota == "none":
            return
        if not declared.policy.public and req.get_header("Authorization") is not None:
            return  # Whoever shows something is the authentication's business.
        req.context.address = self._addresses.of(req)
        name, without_store = _OF_STRANGERS[declared.quota]
        _tell(resp, await in_time(req, self._throttle.spend(name, req.context.address, without_store=without_store)))

    def require_credit(self, req: Request, authorization: str | None) -> None:
        """Hold back credentials from where many came that proved nothing, unless these have proven something before.

        Raises:
            TooManyRequests: they are not to be looked at.
        """
        if authorization is not None:
            req.context.address = self._addresses.of(req)
            if not self._access.knows(authorization):
                self._throttle.require_credit_here("invalid", req.context.address)

    def count_invalid(self, req: Request) -> None:
        """Count credentials that `require_credit` has let pass and that have proven nothing."""
        self._throttle.count_here("invalid", req.context.address)


class CallerLimit:
    """Stands behind the authentication: counts everybody by who they are."""

    def __init__(self, throttle: RateLimiter, without_store: WithoutStore) -> None:
        """`without_store` is for what changes something; reading goes on uncounted."""
        self._throttle = throttle
        self._without_store: WithoutStore = without_store

    async def process_resource(self, req: Request, resp: Response, resource: object, params: dict[str, Any]) -> None:
        actor = req.context.actor
        if actor.kind == "anonymous":
            return
        name = "key" if actor.kind == "service_key" else "person"
        if self._throttle.is_shared:
            without_store: WithoutStore = "open" if req.method in SAFE_METHODS else self._without_store
            _tell(resp, await in_time(req, self._throttle.spend(name, actor.id, without_store=without_store)))
        else:
            # Every debit comes here: what needs no waiting is not to pay for a deadline.
            _tell(resp, self._throttle.spend_here(name, actor.id))


class GuessLimit:
    """Stands behind all that may refuse a request: whoever has asked for many codes that there are not is not to go on.

    A code that is found costs nothing. One that is not is counted for who asks and for the address, after it was looked up; of many that are
    under way together the quota hides how those above it went. While nobody counts for all processes, each counts for itself.
    """

    def __init__(self, throttle: RateLimiter, addresses: Addresses, operations: Mapping[tuple[str, str], Operation]) -> None:
        self._throttle = throttle
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
        for who in (address,) if actor.kind == "anonymous" else (actor.id, address):
            await in_time(req, self._throttle.spend("code", who, cost=cost))


def _tell(resp: Response, standing: QuotaStatus | None) -> None:
    if standing is not None:
        resp.set_headers(fields(standing))
