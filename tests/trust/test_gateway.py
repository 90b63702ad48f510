"""The example of HAProxy as the gateway, run with a real HAProxy in front of the application: it closes internal routes in every spelling."""

import asyncio
import os
import re
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from falcon.asgi import App
from granian.server.embed import Server as EmbeddedServer

from guerdon.config import Settings
from guerdon.logs import make_logger
from guerdon.wiring.routes import with_limits
from tests.clients import Caller, Log, ManualClock
from tests.factories import Factory
from tests.test_production import free_port

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
HAPROXY = os.environ.get("HAPROXY") or shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
MISSING = "\nHAPROXY IS NOT INSTALLED: deploy/haproxy.cfg was not tried. Install it, or name the program in HAPROXY.\n"
INTERNAL = (
    "/metrics", "//metrics", "///metrics", "/%6detrics", "/%6Detrics", "/metrics/", "/metrics%2F", "/./metrics", "/x/../metrics", "/metrics?x",
    "/metrics;x", "/METRICS", "/health/live", "//health/live", "/health//live", "/%68ealth/live", "/health%2Flive", "/health/%6cive",
    "/health/ready", "https://localhost/metrics", "https://localhost//metrics",
)  # fmt: skip

pytestmark = pytest.mark.trust


def certificate() -> bytes:
    """A certificate of our own with its key, as HAProxy reads them."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


async def ask(port: int, request: str) -> str:
    """The answer of the gateway to a request as it stands here."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    writer.write(request.encode())
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    return answer


async def test_gateway_closes_internal_routes_in_every_spelling(
    app: App[Any, Any],
    settings: Settings,
    clock: ManualClock,
    service: Caller,
    factory: Factory,
    *,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if HAPROXY is None:
        with capsys.disabled():
            print(MISSING)
        return
    behind, front = free_port(), free_port()
    whole = with_limits(app, settings, clock, make_logger(clock, "info", Log()))
    server = EmbeddedServer(whole, address="127.0.0.1", port=behind, interface="asginl", log_enabled=False)
    serving = asyncio.create_task(server.serve())
    pem = tmp_path / "wallets.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(certificate())
    text = CONFIGURATION.read_text(encoding="utf-8").replace("bind :443", f"bind 127.0.0.1:{front}")
    text = text.replace("/etc/haproxy/tls/wallets.pem", str(pem)).replace("127.0.0.1:8001", f"127.0.0.1:{behind}")
    text = re.sub(r"^ *server api2 .*$", "", text, flags=re.MULTILINE)
    (tmp_path / "haproxy.cfg").write_text(text, encoding="utf-8")
    quiet = asyncio.subprocess.DEVNULL
    gateway = await asyncio.create_subprocess_exec(HAPROXY, "-db", "-f", str(tmp_path / "haproxy.cfg"), stdout=quiet)
    try:
        await _check(front, service, await factory.wallet(10))
    finally:
        gateway.terminate()
        await gateway.wait()
        server.stop()
        await serving
    await factory.assert_books_balance()


async def _check(front: int, service: Caller, wallet: str) -> None:
    end = f"Host: localhost\r\nAuthorization: Bearer {service.token}\r\nConnection: close\r\n\r\n"
    for _ in range(100):
        try:
            answer = await ask(front, f"GET /v1/wallets/{wallet} HTTP/1.1\r\n{end}")
        except OSError:
            answer = ""
        if " 200 " in answer:
            break
        await asyncio.sleep(0.1)
    assert '"balance":10' in answer, answer
    for path in INTERNAL:
        answer = await ask(front, f"GET {path} HTTP/1.1\r\n{end}")
        assert answer.startswith(("HTTP/1.1 404 ", "HTTP/1.1 400 ")), (path, answer)
        assert "guerdon_" not in answer, path
        assert '"ok"' not in answer, path
    for head in ("GET /v1/offers HTTP/1.1\r\nConnection: close\r\n\r\n", f"GET /v1/offers HTTP/1.1\r\nHost: other\r\n{end}"):
        assert (await ask(front, head)).startswith("HTTP/1.1 400 "), head
