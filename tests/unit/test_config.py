"""Settings: read from the environment or from files, and never weak in production."""

from pathlib import Path

import pytest

from guerdon.access.token_keys import TokenKeys
from guerdon.config import environment_of, load, require_safe
from guerdon.crypto.sealing import MasterKeys
from guerdon.errors import StartupRefused


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("mongodb://db.example/?replicaSet=rs\n")
    settings = load({"GUERDON_MONGODB_URL_FILE": str(file)})
    assert settings.mongodb_url is not None
    assert settings.mongodb_url.get_secret_value() == "mongodb://db.example/?replicaSet=rs"
    assert "db.example" not in repr(settings)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"GUERDON_MONGODB_URL": "a", "GUERDON_MONGODB_URL_FILE": "b"}, "GUERDON_MONGODB_URL_FILE"),
        ({"GUERDON_TOKEN_KEYS_FILE": "/nowhere/at/all"}, "GUERDON_TOKEN_KEYS_FILE"),
        ({"GUERDON_ACCESS_TOKEN_TTL_SECONDS": "901"}, "GUERDON_ACCESS_TOKEN_TTL_SECONDS"),
        ({"GUERDON_PASSWORD_HASH_MEMORY_KIB": "1024"}, "GUERDON_PASSWORD_HASH_MEMORY_KIB"),
        ({"GUERDON_PROFILE": "staging"}, "GUERDON_PROFILE"),
        ({"GUERDON_LEDGER_BATCH_MAX": "many"}, "GUERDON_LEDGER_BATCH_MAX"),
    ],
)
def test_invalid_setting_is_named(environment: dict[str, str], named: str) -> None:
    with pytest.raises(StartupRefused, match=named):
        load(environment)


def test_settings_are_passed_to_another_process_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first\n")
    names = ("mongodb_url", "token_keys", "token_keys_file", "master_keys")
    given = {"GUERDON_MONGODB_URL": "mongodb://db", "GUERDON_TOKEN_KEYS_FILE": str(file)}
    settings = load(given)
    assert environment_of(settings, names) == given, "a file goes on as a file, not as what it held"
    assert environment_of(settings, settings.model_fields_set) == given
    file.write_text("second")
    assert str(load(environment_of(settings, names)).token_keys_file) == str(file)
    in_place = {"GUERDON_TOKEN_KEYS": "keys", "GUERDON_MASTER_KEYS": "more"}
    assert environment_of(load(in_place), names) == in_place


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(StartupRefused) as refused:
        load({"GUERDON_MONGODB_DATABASE": "s3cret/with/slashes"})
    assert "s3cret" not in refused.value.detail


PRODUCTION = {
    "GUERDON_PROFILE": "production",
    "GUERDON_MONGODB_URL": "mongodb://guerdon:tRx9-vQ2_kLm4.ZbW7@db.internal/?tls=true",
    "GUERDON_TOKEN_KEYS": TokenKeys.generate(),
    "GUERDON_MASTER_KEYS": MasterKeys.generate(),
}


def test_production_lists_all_missing_settings() -> None:
    assert require_safe(load(PRODUCTION)) == []
    assert require_safe(load({})) == []
    with pytest.raises(StartupRefused) as refused:
        require_safe(load({"GUERDON_PROFILE": "production", "GUERDON_RATE_LIMIT": "off"}))
    for named in ("GUERDON_MONGODB_URL", "GUERDON_TOKEN_KEYS_FILE", "GUERDON_MASTER_KEYS_FILE", "GUERDON_RATE_LIMIT=off"):
        assert named in refused.value.detail


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (f"GUERDON_RATE_{name}", value)
            for name in ("KEY", "ENTRY", "CODES")
            for value in ("0/60", "5", "5/0", "5/60/7", "-1/60", "5/60 ")
        ),
        *(("GUERDON_TRUSTED_PROXIES", value) for value in ("somewhere", "10.0.0.1/8", "10.0.0.0/33", "*")),
        ("GUERDON_RATE_LIMIT", "maybe"),
        ("GUERDON_RATE_LIMIT_WITHOUT_STORE", "pray"),
    ],
)
def test_quotas_and_networks_are_checked_at_the_start(name: str, value: str) -> None:
    with pytest.raises(StartupRefused, match=name):
        load({name: value})


def test_networks_may_have_blanks_between_them() -> None:
    assert load({"GUERDON_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::/32"}).trusted_proxies
