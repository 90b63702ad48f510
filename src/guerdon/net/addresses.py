"""Which addresses on the network may be named by whoever uses the service: public ones over https, however they are spelled.

A name is judged by what it resolves to, and an address by what it leads to: IPv6 has many ways to write an address of IPv4 (mapped, compatible,
NAT64, 6to4, Teredo), and Python's `is_global` calls some of them global, and all multicast. Whoever connects must connect to the very address
that was judged, follow no redirect, and judge again the next time; whoever only shows an address to others accepts a name that resolves to
nothing.
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
"""Returns the addresses of a name, and none when it has none."""

PORTS = frozenset({443, 8443})
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]*|[0-9]+)\Z")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")
_PRINTED = re.compile(r"[!-~]+\Z")
_MAPPED_LIKE: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
"""Forms of IPv6 that lead to an address of IPv4, and by how many bits that is shifted in them."""
_TEREDO = IPv6Network("2001::/32")
_REFUSED: tuple[IPv4Network | IPv6Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
)  # fmt: skip
"""What is not the public network, by the registries of special addresses (RFC 6890), whatever the library thinks of it."""
_LOCAL_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa", "onion", "test", "invalid")


class UnsafeAddress(Exception):
    """An address that must not be used; the message says why, without repeating it."""


def parse_url(url: str) -> tuple[str, int]:
    """Return the host, in lower case and ASCII, and the port of an address that may be used as far as it can be told without a resolver.

    Raises:
        UnsafeAddress: it may not.
    """
    if len(url) > URL_CHARACTERS_MAX or not _PRINTED.match(url) or "\\" in url:
        raise UnsafeAddress(
            "an address has visible ASCII characters only, without backslashes; write an international name as xn--…"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UnsafeAddress("this is not an address") from None
    if parts.scheme != "https":
        raise UnsafeAddress("an address begins with https://")
    if "@" in parts.netloc:
        raise UnsafeAddress("an address names no user")
    if not host:
        raise UnsafeAddress("an address names a host")
    if port is not None and port not in PORTS:
        raise UnsafeAddress("the port is 443 or 8443")
    return _checked_host(host, bracketed="[" in parts.netloc), 443 if port is None else port


async def require_public(url: str, resolve: Resolve | None = None) -> tuple[Address, ...]:
    """Judge an address, and all that its name resolves to; return those addresses. There are none for a name that nobody knows.

    Raises:
        UnsafeAddress: it, or one of them, must not be used.
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
    """
    Raises:
        UnsafeAddress: it is not on the public network.
    """
    inner = unwrapped(address)
    for each in (address, inner):
        if (
            each.is_multicast
            or (each is inner and not each.is_global)
            or any(each in net for net in _REFUSED if net.version == each.version)
        ):
            raise UnsafeAddress("it leads to an address that is not public")


def unwrapped(address: Address) -> Address:
    """Return the address that one leads to: that of IPv4 inside of one of IPv6, or itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TEREDO:
        return IPv4Address(~int(address) & 0xFFFFFFFF)
    for network, shift in _MAPPED_LIKE:
        if address in network:
            return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    return address


async def resolve_by_system(host: str) -> Sequence[str]:
    """Ask the machine's resolver; what does not answer in time has no address."""
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
            raise UnsafeAddress("this is not an address of IPv6") from None
        return host
    if host.endswith("."):
        raise UnsafeAddress("a name ends without a dot")
    labels = host.split(".")
    # What ends in a number is an address to a resolver, in every spelling that C knows: `127.1`, `2130706433`, `0x7f.1`, `0177.0.0.1`.
    if _NUMBER.match(labels[-1]):
        try:
            require_public_address(IPv4Address(host))
        except ValueError:
            raise UnsafeAddress("an address of IPv4 has four decimal numbers") from None
        return host
    if len(host) > 253 or len(labels) < 2 or not all(map(_LABEL.match, labels)):
        raise UnsafeAddress("a name has two labels or more, of letters, digits and hyphens")
    if labels[-1] in _LOCAL_NAMES:
        raise UnsafeAddress("this name is not a public one")
    return host


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
