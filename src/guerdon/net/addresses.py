"""Checks of URLs that callers supply: only public addresses over https are allowed, in every spelling of an address.

A host name is checked by the addresses to which it resolves, and an address by its destination: IPv6 can express an IPv4 address in several
forms (mapped, compatible, NAT64, 6to4, Teredo), and Python's `is_global` accepts some of them and all multicast addresses. A client must
connect to the address that was checked, follow no redirect, and check again before the next connection. Code that only displays a URL may
accept a name that does not resolve.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

URL_CHARACTERS_MAX = 2048
RESOLVE_SECONDS = 2.0
Address = IPv4Address | IPv6Address
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a host name, or an empty sequence."""

PORTS = frozenset({443, 8443})
"""Allowed ports."""
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)\Z")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_VISIBLE = re.compile(r"[!-~]+\Z")
_MAPPED_LIKE: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
"""IPv6 networks whose addresses contain an IPv4 address, and the number of bits to its right."""
_TEREDO = IPv6Network("2001::/32")
_REFUSED: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
)  # fmt: skip
"""Networks that are not public according to the registries of special-purpose addresses (RFC 6890), independent of Python's tables."""
_LOCAL_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "onion", "test", "invalid")


class UnsafeAddress(Exception):
    """A URL or an address that is not allowed. The message gives the reason and does not repeat the address."""


def parse_url(url: str) -> tuple[str, int]:
    """Check a URL without resolving its host. Return the host, in lower case and ASCII, and the port.

    Raises:
        UnsafeAddress: the URL is not allowed.
    """
    if len(url) > URL_CHARACTERS_MAX or not _VISIBLE.match(url) or "\\" in url:
        raise UnsafeAddress(
            f"a URL may have up to {URL_CHARACTERS_MAX} visible ASCII characters and no backslashes; "
            "write an international name as xn--…"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UnsafeAddress("not a valid URL") from None
    if parts.scheme != "https":
        raise UnsafeAddress("the URL must begin with https://")
    if "@" in parts.netloc:
        raise UnsafeAddress("the URL must not contain a user name")
    if not host:
        raise UnsafeAddress("the URL must contain a host")
    if port is not None and port not in PORTS:
        raise UnsafeAddress("the port must be 443 or 8443")
    return _checked_host(host, bracketed="[" in parts.netloc), 443 if port is None else port


async def require_public(url: str, resolve: Resolve | None = None) -> tuple[Address, ...]:
    """Check a URL and every address to which its host resolves. Return the addresses, or an empty tuple if the name does not resolve.

    Raises:
        UnsafeAddress: the URL or one of the addresses is not allowed.
    """
    host, _ = parse_url(url)
    literal = _literal(host)
    if literal is not None:
        return (literal,)
    found = tuple(ip_address(text.partition("%")[0]) for text in await (resolve or resolve_by_system)(host))
    for address in found:
        require_public_address(address)
    return found


def require_public_address(address: Address) -> None:
    """Check that an address, and the IPv4 address that it may contain, are public.

    Raises:
        UnsafeAddress: the address is not public.
    """
    inner = unwrapped(address)
    for each in (address, inner):
        if (
            each.is_multicast
            or (each is inner and not each.is_global)
            or any(each in net for net in _REFUSED if net.version == each.version)
        ):
            raise UnsafeAddress("the host has an address that is not public")


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address contains, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TEREDO:
        return IPv4Address(~int(address) & 0xFFFFFFFF)
    for network, shift in _MAPPED_LIKE:
        if address in network:
            return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


async def resolve_by_system(host: str) -> Sequence[str]:
    """Resolve a name by the operating system. A name that is not resolved within 2 s has no addresses."""
    with suppress(OSError, TimeoutError, UnicodeError):
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
        return sorted({str(info[4][0]) for info in found})
    return ()


def _checked_host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            require_public_address(IPv6Address(host))
        except ValueError:
            raise UnsafeAddress("not an IPv6 address") from None
        return host
    if host.endswith("."):
        raise UnsafeAddress("the host name must not end with a dot")
    labels = host.split(".")
    # Resolvers read a name that ends in a number as an address, in every spelling of C: `127.1`, `2130706433`, `0x7f.1`, `0177.0.0.1`.
    if _NUMBER.match(labels[-1]):
        try:
            require_public_address(IPv4Address(host))
        except ValueError:
            raise UnsafeAddress("an IPv4 address must have four decimal numbers") from None
        return host
    if len(host) > 253 or len(labels) < 2 or not all(map(_LABEL.match, labels)):
        raise UnsafeAddress("a host name must have two or more labels of letters, digits and hyphens")
    if labels[-1] in _LOCAL_NAMES:
        raise UnsafeAddress("the host name is not public")
    return host


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
