"""Secrets that production refuses: files that others can read, keys and passwords that could be guessed, databases without a lock."""

import base64
import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from guerdon.access.token_keys import TokenKeys
from guerdon.config import load, require_safe
from guerdon.crypto.sealing import MasterKeys
from guerdon.crypto.secret_checks import SECRET_BYTES_MAX, _openness_of, read_file, weakness_of_database, weakness_of_keys
from guerdon.errors import StartupRefused

PASSWORD = "tRx9-vQ2_kLm4.ZbW7"
OURS = os.geteuid()
STRANGER = 65_533


def openness(mode: int, *, owner: int, monkeypatch: pytest.MonkeyPatch, us: int) -> str | None:
    monkeypatch.setattr(os, "geteuid", lambda: us)
    return _openness_of(cast(os.stat_result, SimpleNamespace(st_mode=stat.S_IFREG | mode, st_uid=owner)))


@pytest.mark.parametrize(
    ("mode", "owner", "us", "fine"),
    [
        (0o600, 1000, 1000, True),
        (0o400, 1000, 1000, True),
        (0o640, 1000, 1000, False),
        (0o604, 1000, 1000, False),
        (0o620, 1000, 1000, False),
        (0o666, 1000, 1000, False),
        (0o400, 0, 1000, True),
        (0o440, 0, 1000, True),  # Kubernetes with fsGroup; systemd, whose access list shows as the group's right
        (0o640, 0, 1000, True),
        (0o444, 0, 1000, False),  # Docker's default for secrets
        (0o644, 0, 1000, False),  # Kubernetes' default
        (0o660, 0, 1000, False),
        (0o600, STRANGER, 1000, False),
        (0o600, 0, 0, True),
        (0o640, 0, 0, False),
        (0o600, 1000, 0, False),
    ],
)
def test_secret_file_readable_by_others_is_reported(
    monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, us: int, *, fine: bool
) -> None:
    assert (openness(mode, owner=owner, monkeypatch=monkeypatch, us=us) is None) == fine


def test_permissions_of_the_link_target_are_checked(tmp_path: Path) -> None:
    """As Kubernetes lays secrets out: name -> ..data/name, ..data -> a folder with a date. A link's own mode is always 0777."""
    folder = tmp_path / "..2026_11_23"
    folder.mkdir()
    target = folder / "master"
    target.write_text("a secret\n")
    target.chmod(0o400)
    (tmp_path / "..data").symlink_to(folder.name)
    (tmp_path / "master").symlink_to("..data/master")
    assert read_file(tmp_path / "master") == ("a secret", None)
    target.chmod(0o444)
    assert "0444" in str(read_file(tmp_path / "master")[1])


def test_only_files_of_secrets_are_looked_at(tmp_path: Path) -> None:
    level, keys = tmp_path / "level", tmp_path / "keys"
    level.write_text("debug")
    keys.write_text(TokenKeys.generate())
    for file in (level, keys):
        file.chmod(0o644)
    doubts = require_safe(load({"GUERDON_LOG_LEVEL_FILE": str(level), "GUERDON_TOKEN_KEYS_FILE": str(keys)}))
    assert [doubt.partition(":")[0] for doubt in doubts] == ["GUERDON_TOKEN_KEYS_FILE"]
    keys.chmod(0o600)
    assert require_safe(load({"GUERDON_TOKEN_KEYS_FILE": str(keys)})) == []


def test_a_file_that_is_too_large_is_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_text("x" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(StartupRefused, match="GUERDON_MASTER_KEYS_FILE"):
        load({"GUERDON_MASTER_KEYS_FILE": str(file)})


def jwk_set(raw: bytes, member: str = "d") -> str:
    return json.dumps({"keys": [{"kty": "OKP", member: base64.urlsafe_b64encode(raw).decode().rstrip("=")}]})


@pytest.mark.parametrize(
    "text",
    [
        jwk_set(bytes(32)),
        jwk_set(b"0123456789abcdef"[:15]),
        jwk_set(b"guerdon guerdon guerdon guerdon ", "k"),
        jwk_set(b"\x01\x02" * 16, "k"),
        jwk_set(b"", "k"),
        '{"keys":[{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]}',
    ],
)
def test_guessable_keys_are_reported(text: str) -> None:
    assert weakness_of_keys(text) is not None


def test_random_keys_are_never_called_weak() -> None:
    for _ in range(300):
        assert weakness_of_keys(TokenKeys.generate()) is None
        assert weakness_of_keys(MasterKeys.generate()) is None
    for text in ("", "{}", "[]", "null", '{"keys":1}', "no json"):
        assert weakness_of_keys(text) is None, "what is no key set is its reader's business"


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb://guerdon:{PASSWORD}@db1.internal,db2.internal:27018/guerdon?tls=true",
        f"mongodb://guerdon:{PASSWORD}@db.internal?ssl=true",
        f"mongodb+srv://guerdon:{PASSWORD}@cluster.internal/",
        f"mongodb://guerdon:{PASSWORD}@127.0.0.1:27017/",
        f"mongodb://guerdon:{PASSWORD}@localhost/?replicaSet=rs",
        f"mongodb://guerdon:{PASSWORD}@[::1]:27017/",
        f"mongodb://guerdon:{PASSWORD}@%2Frun%2Fmongodb%2Fmongodb-27017.sock/",
        "mongodb://db.internal/?tls=true&authMechanism=MONGODB-X509&tlsCertificateKeyFile=/c",
        f"mongodb://guerdon:{PASSWORD.replace('-', '%2D')}@db.internal/?TLS=true",
    ],
)
def test_protected_database_url_is_accepted(url: str) -> None:
    assert weakness_of_database(url, open_network=False) is None


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("mongodb://db.internal/?tls=true", "has no user"),
        ("mongodb://127.0.0.1/", "has no user"),
        ("mongodb://guerdon@db.internal/?tls=true", "has no user"),
        (f"mongodb://guerdon:{PASSWORD}@db.internal/", "unencrypted"),
        (f"mongodb://guerdon:{PASSWORD}@127.0.0.1,db.internal/", "unencrypted"),
        (f"mongodb://guerdon:{PASSWORD}@127.0.0.1.evil.example/", "unencrypted"),
        (f"mongodb+srv://guerdon:{PASSWORD}@cluster.internal/?tls=false", "unencrypted"),
        (f"mongodb://guerdon:{PASSWORD}@db.internal/?tls=true&tlsAllowInvalidCertificates=true", "verify the server"),
        (f"mongodb://guerdon:{PASSWORD}@db.internal/?tls=true&tlsInsecure=true", "verify the server"),
    ],
)
def test_unprotected_database_url_is_reported_unless_allowed(url: str, what: str) -> None:
    assert what in str(weakness_of_database(url, open_network=False))
    assert weakness_of_database(url, open_network=True) is None


@pytest.mark.parametrize(
    "password", ["hunter2", "t1ny", "aaaaaaaaaaaaaaaaaaaa", "MyPassword-9f8a7b6c5d", "guerdon-guerdon-guerdon", "1234567890123456"]
)
@pytest.mark.parametrize("open_network", [False, True])
def test_a_weak_password_is_weak_everywhere(password: str, *, open_network: bool) -> None:
    url = f"mongodb://guerdon:{password}@127.0.0.1/?tls=true"
    told = weakness_of_database(url, open_network=open_network)
    assert told is not None
    assert "can be guessed" in told
    assert password not in told


def test_refusal_names_the_setting_that_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {
        "GUERDON_PROFILE": "production",
        "GUERDON_MONGODB_URL": "mongodb://db.internal/",
        "GUERDON_TOKEN_KEYS": TokenKeys.generate(),
        "GUERDON_MASTER_KEYS": MasterKeys.generate(),
    }
    with pytest.raises(StartupRefused, match="GUERDON_MONGODB_INSECURE=true"):
        require_safe(load(given))
    assert require_safe(load({**given, "GUERDON_MONGODB_INSECURE": "true"})) == []
