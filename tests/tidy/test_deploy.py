"""CON-1: the rules for the examples in deploy/, which also hold where no container runtime, systemd or gateway is at hand to try them."""

import re
from pathlib import Path

import pytest
import yaml

from guerdon.cli.serve import HEAD_BYTES_MAX, HEADER_READ_TIMEOUT_MS, STOP_SECONDS
from guerdon.config import Settings
from guerdon.http.body import BODY_BYTES_MAX, BULK_BODY_BYTES_MAX

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ("guerdon.service", "guerdon-worker.service")
HARDENED = (
    "DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes",
    "ProtectKernelTunables=yes", "ProtectKernelModules=yes", "ProtectControlGroups=yes", "RestrictNamespaces=yes", "RestrictSUIDSGID=yes",
    "LockPersonality=yes", "MemoryDenyWriteExecute=yes", "CapabilityBoundingSet=", "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service", "UMask=0077", "Restart=always",
)  # fmt: skip


def text_of(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", UNITS)
def test_systemd_units_are_hardened(name: str) -> None:
    lines = text_of(name).splitlines()
    assert [wanted for wanted in HARDENED if wanted not in lines] == []
    assert "Environment=GUERDON_PROFILE=production" in text_of(name)
    assert not [line for line in lines if re.match(r"Environment=.*(PASSWORD|SECRET|KEY|URL)=", line)], (
        "secrets come as credentials"
    )
    given = {line.partition("=")[2].partition(":")[0] for line in lines if line.startswith("LoadCredential=")}
    assert given >= {"mongodb_url", "token_keys", "master_keys"}
    for credential in given:
        assert credential in Settings.model_fields
        assert f"Environment=GUERDON_{credential.upper()}_FILE=%d/{credential}" in lines
    stop = next(int(line.partition("=")[2]) for line in lines if line.startswith("TimeoutStopSec="))
    assert stop >= (STOP_SECONDS + 5 if name == "guerdon.service" else 12)


def test_image_runs_unprivileged_and_contains_no_secret() -> None:
    text = text_of("Containerfile")
    stages = text.split("\nFROM ")
    assert len(stages) == 3, "what builds does not stay"
    assert re.search(r"^USER 10001:10001$", stages[-1], re.MULTILINE)
    assert "--require-hashes -r requirements/runtime.txt" in text
    assert "HEALTHCHECK" in stages[-1]
    assert not re.search(r"^(ADD|COPY \.)|curl|wget|sudo|--privileged|ENV.*(SECRET|PASSWORD|_KEYS|_URL)", text, re.MULTILINE)
    assert not re.search(r"^(COPY|RUN).*(pip|requirements)", stages[-1], re.MULTILINE), "no installer's work in the last stage"


def test_containers_are_hardened() -> None:
    compose = yaml.safe_load(text_of("compose.yaml"))
    assert set(compose["services"]) == {"api", "worker", "mongo", "valkey"}
    for name, service in compose["services"].items():
        assert (service["read_only"], service["cap_drop"], service["pids_limit"]) == (True, ["ALL"], 256), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["mem_limit"]
        assert int(service["user"].partition(":")[0]) > 0
        assert "privileged" not in service
        assert "docker.sock" not in str(service)
        assert service.get("ports", []) == (["127.0.0.1:8001:8000"] if name == "api" else []), "one port, and on loopback only"
        for variable, value in service.get("environment", {}).items():
            assert not re.search(r"(PASSWORD|_KEYS|_KEY|MONGODB_URL)$", variable), "secrets come as files"
            if value.startswith("/run/secrets/"):
                secret = value.removeprefix("/run/secrets/")
                assert secret in service["secrets"]
                assert variable in {f"GUERDON_{secret.upper()}_FILE", "MONGO_INITDB_ROOT_PASSWORD_FILE"}
    assert compose["networks"]["inside"] == {"internal": True}
    assert {"mongodb_url", "token_keys", "master_keys", "checkpoint_key"} <= set(compose["secrets"]) & set(Settings.model_fields)


def test_gateway_limits_match_those_of_the_service() -> None:
    """Their figures fit ours: they answer before we would, for less than we take, and wait longer than we take to answer."""
    nginx, haproxy = text_of("nginx.conf"), text_of("haproxy.cfg")
    default = Settings.model_fields["ledger_deadline_ms"].default / 1000
    for rule in (
        "server_tokens off;",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "limit_conn connections 100;",
        "send_timeout 10s;",
        "hash $owner consistent;",
    ):
        assert rule in nginx
    assert "client_header_timeout 10s;" in nginx
    assert HEADER_READ_TIMEOUT_MS == 10_000
    assert f"client_max_body_size {BODY_BYTES_MAX // 1024}k;" in nginx
    assert f"client_max_body_size {BULK_BODY_BYTES_MAX // 1024 // 1024}m;" in nginx
    assert "large_client_header_buffers 4 8k;" in nginx
    assert HEAD_BYTES_MAX == 4 * 8 * 1024
    assert int(re.findall(r"proxy_read_timeout (\d+)s;", nginx)[0]) > default
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in nginx
    assert "proxy_add_x_forwarded_for" not in nginx
    for rule in (
        "option http-buffer-request",
        "timeout http-request 10s",
        "no-tls-tickets",
        "balance hash var(txn.owner)",
        "hash-type consistent",
        "tcp-request connection reject if { sc0_conn_cur gt 100 }",
    ):
        assert rule in haproxy
    assert f"req.body_size gt {BODY_BYTES_MAX}" in haproxy
    assert f"req.body_size gt {BULK_BODY_BYTES_MAX}" in haproxy
    assert int(re.findall(r"timeout server (\d+)s", haproxy)[0]) > default
    assert "http-request set-header X-Forwarded-For %[src]" in haproxy
    assert "option forwardfor" not in haproxy
    for text in (nginx, haproxy):
        assert not re.search(r"^\s*(listen|bind) \S*\b80\b", text, re.MULTILINE)
        assert "/metrics" in text
        assert "/health/" in text


def pages() -> list[Path]:
    return [
        path for path in (*DEPLOY.iterdir(), *DEPLOY.parent.glob("*.md"), *(DEPLOY.parent / "docs").rglob("*.md")) if path.is_file()
    ]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_variable_that_is_named_is_a_setting(path: Path) -> None:
    """Unknown variables are ignored at the start, so a name that is only almost right would go unnoticed."""
    known = {f"GUERDON_{field.upper()}" for field in Settings.model_fields} | {"GUERDON_X"}
    named = set(re.findall(r"GUERDON_[A-Z0-9_]*[A-Z0-9]", path.read_text(encoding="utf-8")))
    assert {name for name in named if name not in known and name.removesuffix("_FILE") not in known} == set()
