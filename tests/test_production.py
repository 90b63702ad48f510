"""AZ-5: the production profile as a process, with a database user of no more rights than it needs: what is off, refused, and told."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from guerdon.access.token_keys import TokenKeys
from guerdon.config import load, require_safe
from guerdon.crypto.sealing import MasterKeys
from guerdon.errors import StartupRefused
from tests.canaries import MARK, found_in

ROOT = Path(__file__).parents[1]
PASSWORD = f"{MARK}-tRx9-vQ2_kLm4.ZbW7"
SECONDS = 150
EXPECTED = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "server": "guerdon",
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
}
INSIDES = re.compile(r"Traceback|\.py\b|pymongo|granian|falcon|python/|mongodb://|File \"", re.IGNORECASE)


class Production(NamedTuple):
    """A process that serves, what it was given, and where its outputs go."""

    port: int
    environment: dict[str, str]
    output: Path


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "guerdon", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def production(mongodb_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    folder = tmp_path_factory.mktemp("production")
    with MongoClient(mongodb_url) as client:
        try:
            client.guerdon.command("createUser", "guerdon", pwd=PASSWORD, roles=[{"role": "readWrite", "db": "guerdon"}])
        except OperationFailure as error:
            if error.code != 51_003:  # It exists.
                raise
        host, port = client.primary or ("127.0.0.1", 0)
    secrets = {
        "MONGODB_URL": f"mongodb://guerdon:{PASSWORD}@{host}:{port}/?authSource=guerdon",
        "TOKEN_KEYS": TokenKeys.generate(),
        "MASTER_KEYS": MasterKeys.generate(),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GUERDON_")}
    environment = {**kept, "PYTHONPATH": str(ROOT / "src"), "GUERDON_PROFILE": "production", "GUERDON_BEHIND_TLS": "true"}
    environment |= {"GUERDON_LOG_LEVEL": "debug", "GUERDON_MONGODB_DATABASE": "guerdon"}
    for name, value in secrets.items():
        file = folder / name.lower()
        file.touch(mode=0o600)
        file.write_text(value)
        environment[f"GUERDON_{name}_FILE"] = str(file)
    free = free_port()
    output = folder / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "guerdon", "serve", "--port", str(free)], env=environment, stdout=sink, stderr=sink
        )
    try:
        deadline = time.monotonic() + SECONDS
        while b"ready http" not in output.read_bytes():
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.05)
        yield Production(free, environment, output)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0


def raw(port: int, request: bytes) -> bytes:
    """What comes back for these very bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while piece := connection.recv(65_536):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
        return answer


def test_development_features_are_off_and_responses_disclose_little(production: Production) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{production.port}") as client:
        answers = {
            path: client.get(path) for path in ("/docs", "/docs/start.js", "/openapi.json", "/metrics", "/v1/members", "/nothing")
        }
        assert [answer.status_code for answer in answers.values()] == [404, 404, 404, 401, 401, 404]
        answers |= {
            method: client.request(method, "/v1/members", headers={"x-secret": "echo me"})
            for method in ("TRACE", "FROB", "OPTIONS")
        }
        answers["preflight"] = client.options(
            "/v1/members", headers={"origin": "https://evil.example", "access-control-request-method": "GET"}
        )
        for answer in answers.values():
            assert {name: answer.headers.get(name) for name in EXPECTED} == EXPECTED
            assert not [name for name in answer.headers if name.startswith("access-control") or name == "x-powered-by"]
            assert not INSIDES.search(answer.text)
            assert "echo me" not in answer.text
            assert answer.status_code < 400 or answer.json()["status"] == answer.status_code
        assert [answers[name].status_code for name in ("TRACE", "FROB", "preflight")] == [405, 405, 200]
        assert client.get("/health/ready").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("request_bytes", "first"),
    [
        (b"hello\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", b"HTTP/1.1 431"),
        (b"GET /health/live HTTP/1.0\r\n\r\n", b"HTTP/1.0 200"),
        (b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"HTTP/1.1 400"),
        (b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b"HTTP/1.1 400"),
        (b"CONNECT other.example:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"HTTP/1.1 404"),
        (b"WEBSOCKET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"HTTP/1.1 405"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
    ],
    ids=["not http", "huge head", "http/1.0", "bad chunk", "two lengths", "connect", "websocket", "http/2"],
)
def test_malformed_request_discloses_nothing(production: Production, request_bytes: bytes, first: bytes) -> None:
    answer = raw(production.port, request_bytes)
    assert answer.startswith(first)
    assert not INSIDES.search(answer.decode("latin-1"))


def test_conflicting_lengths_smuggle_no_request(production: Production) -> None:
    head = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(production.port, head + b"2\r\n{}\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1, "the second request would have been answered as well"


def test_each_unsafe_setting_is_refused(production: Production, tmp_path: Path) -> None:
    """The same environment with one thing changed: it is refused, and told which; tests/test_startup.py has the processes."""
    assert require_safe(load(production.environment)) == []
    loose = tmp_path / "loose"
    loose.write_text(TokenKeys.generate())
    loose.chmod(0o644)
    url = "mongodb://db.internal/"
    for change, named in (
        ({"GUERDON_MONGODB_URL_FILE": None, "GUERDON_MONGODB_URL": url}, "GUERDON_MONGODB_URL has no user"),
        ({"GUERDON_TOKEN_KEYS_FILE": str(loose)}, "GUERDON_TOKEN_KEYS_FILE: the file has mode 0644"),
        ({"GUERDON_MASTER_KEYS_FILE": None}, "GUERDON_MASTER_KEYS_FILE is needed"),
        ({"GUERDON_RATE_LIMIT": "off"}, "GUERDON_RATE_LIMIT=off"),
        ({"GUERDON_CORS_ORIGINS": "*"}, "GUERDON_CORS_ORIGINS"),
    ):
        changed = {name: value for name, value in {**production.environment, **change}.items() if value is not None}
        with pytest.raises(StartupRefused) as refused:
            require_safe(load(changed))
        assert named in refused.value.detail
        assert found_in(refused.value.detail, set()) == []


def test_no_secret_is_in_the_output_or_the_command_line(production: Production) -> None:
    """LOG-1, the half that needs a process: at DEBUG, where a driver would tell each command."""
    secrets = {
        json.loads(Path(production.environment[f"GUERDON_{name}_FILE"]).read_text())["keys"][0][part]
        for name, part in (("TOKEN_KEYS", "d"), ("MASTER_KEYS", "k"))
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{production.port}", timeout=20) as client:
        person = {"email": f"{MARK}42@example.com", "password": f"{MARK} password 42"}
        registered = client.post("/v1/auth/register", json=person)
        assert registered.status_code in (201, 409), registered.text
        begun = client.post("/v1/auth/login", json=person).json()
        secrets |= {begun["access_token"], begun["refresh_token"]}
        me = client.get("/v1/me", headers={"authorization": f"Bearer {begun['access_token']}", "user-agent": f"{MARK}agent"})
        assert me.json()["email"] == person["email"]
        client.get(f"/v1/{MARK}path", headers={"authorization": f"Bearer {MARK}token"})
    wrong = {
        **production.environment,
        "GUERDON_MONGODB_URL": Path(production.environment["GUERDON_MONGODB_URL_FILE"]).read_text().replace("ZbW7", "ZbW8"),
    }
    del wrong["GUERDON_MONGODB_URL_FILE"]
    refused = run(wrong, "serve", "--port", str(free_port()))
    assert refused.returncode == 2
    assert "Authentication failed" in refused.stderr
    deadline = time.monotonic() + SECONDS
    while production.output.read_text().count('"event":"request"') <= 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    said = production.output.read_text() + refused.stdout + refused.stderr
    assert said.count('"event":"request"') > 3
    assert found_in(said, secrets) == []
    for line in production.output.read_text().splitlines():
        assert line.startswith("ready ") or json.loads(line)["event"], "one JSON object a line"
    ours = [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if b"guerdon" in _read(entry)]
    assert ours
    assert not [entry for entry in ours if found_in(_read(entry).decode(errors="replace"), secrets)]


def _read(entry: Path) -> bytes:
    try:
        return entry.read_bytes()
    except OSError:
        return b""
