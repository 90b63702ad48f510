"""SSRF-1: which addresses may be named, in all spellings that lead to one that may not. SSRF-2: what a name resolves to is judged as well."""

from collections.abc import Awaitable, Callable, Sequence

import pytest

from guerdon.net.addresses import UnsafeAddress, parse_url, require_public

REFUSED = [
    # Not public, as they are usually written.
    "https://127.0.0.1/", "https://127.8.9.1/", "https://0.0.0.0/", "https://0.1.2.3/", "https://10.0.0.1/", "https://10.255.255.255/",
    "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/", "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/", "https://100.127.255.255/", "https://192.0.0.8/", "https://192.0.2.1/", "https://192.88.99.1/",
    "https://198.18.0.1/", "https://198.51.100.7/", "https://203.0.113.7/", "https://224.0.0.1/", "https://239.255.255.250/",
    "https://240.0.0.1/", "https://255.255.255.255/",
    # IPv4 as only resolvers read it.
    "https://127.1/", "https://127.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://0177.0.0.1/",
    "https://017700000001/", "https://0/", "https://127.0.0.0x1/", "https://127.0.0.01/", "https://1.1.1.1.1/", "https://1.1.1.256/",
    "https://127\u30020\u30020\u30021/", "https://\u0661\u0662\u0667.0.0.1/",
    # IPv6, and IPv4 inside of it.
    "https://[::1]/", "https://[::]/", "https://[::127.0.0.1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/",
    "https://[::ffff:0:127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::7f00:1]/", "https://[64:ff9b::a9fe:a9fe]/",
    "https://[2002:7f00:1::]/", "https://[2002:a00:1::]/", "https://[2001:0:7f00:1:0:0:80ff:fffe]/", "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/", "https://[fc00::1]/", "https://[fd12:3456::1]/", "https://[fec0::1]/", "https://[ff02::1]/",
    "https://[2001:db8::1]/", "https://[100::1]/", "https://[3fff::1]/", "https://[::ffff:1.1.1.1/", "https://[nonsense]/",
    # Names.
    "https://localhost/", "https://LOCALHOST/", "https://api.localhost/", "https://printer.local/", "https://db.internal/",
    "https://example.com./", "https://localhost./", "https://intranet/", "https://-a.example/", "https://a..example/", "https://b\u00fccher.example/",
    "https://1.0.0.127.in-addr.arpa/", "https://metadata.google.internal/",
    # Schemes, ports, users, and what two parsers read in two ways.
    "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:alert(1)", "data:text/html,x",
    "//example.com/", "example.com", "", "https://", "https:///a", "https://example.com:22/", "https://example.com:25/",
    "https://example.com:27017/", "https://example.com:80/", "https://example.com:0/", "https://example.com:99999/",
    "https://example.com:x/", "https://user@example.com/", "https://user:secret@example.com/", "https://example.com@127.0.0.1/",
    "https://127.0.0.1#@example.com/", "https://127.0.0.1\\@example.com/", "https://example.com\\.evil.example/", "https://exa mple.com/",
    "https://example.com\n/", "https://example.com\r\nHost: 127.0.0.1/", "https://example.com\t/", "https://example.com\x00.evil/",
    "https://example.com/" + "a" * 2048,
]  # fmt: skip
PUBLIC = [
    "https://example.com/cup.png", "https://EXAMPLE.com/", "https://example.com:443/a?b=c#d", "https://example.com:8443/",
    "https://xn--bcher-kva.example/", "https://a-b.example.co.uk/", "https://1.1.1.1/", "https://[2606:4700:4700::1111]/",
    "https://[::ffff:1.1.1.1]/", "https://[64:ff9b::101:101]/", "https://3com.example/",
]  # fmt: skip


def answering(*addresses: str) -> Callable[[str], Awaitable[Sequence[str]]]:
    async def resolve(_host: str) -> Sequence[str]:
        return addresses

    return resolve


@pytest.mark.parametrize("url", REFUSED)
async def test_non_public_address_is_refused(url: str) -> None:
    assert len(REFUSED) > 60
    with pytest.raises(UnsafeAddress) as refused:
        await require_public(url, answering("1.1.1.1"))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", PUBLIC)
async def test_public_address_is_accepted(url: str) -> None:
    assert await require_public(url, answering("1.1.1.1"))


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("1.1.1.1", "10.0.0.1"),
        ("::1",),
        ("1.1.1.1", "::ffff:169.254.169.254"),
        ("64:ff9b::7f00:1",),
        ("fe80::1%eth0",),
    ],
)
async def test_host_with_any_non_public_address_is_refused(addresses: tuple[str, ...]) -> None:
    with pytest.raises(UnsafeAddress, match="not public"):
        await require_public("https://example.com/", answering(*addresses))


async def test_unknown_host_has_no_addresses() -> None:
    assert await require_public("https://example.com/", answering()) == ()


def test_parsed_url_has_a_normalised_host_and_port() -> None:
    assert parse_url("https://EXAMPLE.com:8443/a") == ("example.com", 8443)
    assert parse_url("https://example.com") == ("example.com", 443)
