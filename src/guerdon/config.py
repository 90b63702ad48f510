"""Settings: from `GUERDON_*` variables, or from the file that `GUERDON_*_FILE` names; nothing secret has a default."""

import os
import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from guerdon.crypto.secret_checks import read_file, weakness_of_database, weakness_of_keys
from guerdon.errors import StartupRefused

_PREFIX = "GUERDON_"
_QUOTA = r"^[1-9][0-9]{0,8}/[1-9][0-9]{0,4}$"
_ORIGIN = re.compile(r"https?://[a-z0-9.-]{1,253}(:[1-9][0-9]{0,4})?\Z")


class Settings(BaseSettings):
    """Everything that may differ between two deployments. Units stand last in the names."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

    profile: Literal["development", "production"] = "development"
    """`production` refuses what is only fit for trying: an embedded database, missing or weak secrets."""
    data_dir: Path = Path(".guerdon")
    """Where `guerdon up` keeps the embedded database, its lock and the generated secrets."""
    mongodb_url: SecretStr | None = None
    """A replica set (or mongos). When it is unset, the embedded database of `data_dir` is used."""
    mongodb_insecure: bool = False
    """Production accepts a database without access control or TLS: nobody else is on the network between."""
    mongodb_database: str = Field(default="guerdon", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,37}$")
    mongodb_pool_max: int = Field(default=32, ge=4, le=500)
    token_keys: SecretStr | None = None
    """A JWK set with Ed25519 private keys: one signs access tokens, all of them verify."""
    token_keys_file: Path | None = None
    """Where `token_keys` came from, if from a file: processes that serve read it again when it has changed."""
    jwks_max_age_seconds: int = Field(default=300, ge=1, le=300)
    """So long others may keep our public keys. The default is the most, so that a rotation without our settings waits too long at worst."""
    master_keys: SecretStr | None = None
    """A JWK set with symmetric keys of 256 bits: the first seals personal data and other secrets at rest, all of them open."""
    token_issuer: str = Field(default="guerdon", max_length=200)
    token_audience: str = Field(default="guerdon", max_length=200)
    access_token_ttl_seconds: int = Field(default=900, ge=30, le=900)
    session_idle_hours: int = Field(default=336, ge=1, le=8_760)
    """So long a session lives without being used: two weeks."""
    session_absolute_hours: int = Field(default=2_160, ge=1, le=17_520)
    """So long a session lives at most: ninety days."""
    operator_second_factor: Literal["optional", "required"] | None = None
    """Whether those who work here may do so without one. Unless it is said: required in production."""
    smtp_url: SecretStr | None = None
    """Where letters are handed in: `smtp://user:password@host:port` (STARTTLS, except on loopback) or `smtps://…`."""
    mail_from: str | None = Field(default=None, max_length=320)
    reset_url: str | None = Field(default=None, max_length=1000)
    """The page of yours on which somebody sets a new password, with `{token}` where the token goes: best behind a `#`."""
    time_zone: str = "UTC"
    """The programme's, as an IANA name: spending limits and statements count its days and months."""
    campaign_approval: Literal["off", "required"] = "off"
    """`required`: a campaign's version decides when somebody else than who made it has approved it."""
    erased_external_id_days: int = Field(default=400, ge=1, le=3_650)
    """So long the keyed digest of an erased person's external id is kept, so that late events find the books they belong to."""
    checkpoint_key: SecretStr | None = None
    """A JWK set with Ed25519 keys: the first signs checkpoints of the books, all of them verify."""
    checkpoint_file: Path | None = None
    """Where checkpoints are kept outside of the database as well."""
    checkpoint_every_seconds: int = Field(default=3600, ge=10, le=86_400)
    rate_limit: Literal["on", "off"] = "on"
    """`off` is for trying and measuring; production refuses it."""
    rate_limit_store: SecretStr | None = None
    """valkey://…, redis://… or rediss://…: all processes count together there. Without it each process counts for itself."""
    rate_limit_without_store: Literal["local", "open", "closed"] = "local"
    """When the store is down, requests that change something are counted in each process, not counted, or refused."""
    rate_key: str = Field(default="600000/60", pattern=_QUOTA)
    """Requests/seconds of one service key."""
    rate_person: str = Field(default="1200/60", pattern=_QUOTA)
    """Of one member, or one of those who work here."""
    rate_stranger: str = Field(default="600/60", pattern=_QUOTA)
    """Of one address, on routes that need no credentials."""
    rate_entry: str = Field(default="30/60", pattern=_QUOTA)
    """Of one address, where people sign up or log in."""
    rate_invalid: str = Field(default="60/60", pattern=_QUOTA)
    """Credentials that prove nothing, from one address; then no unknown ones from there are looked at."""
    rate_guesses: str = Field(default="10/900", pattern=_QUOTA)
    """Failed log-ins to one account, from all unknown devices together and from each known one."""
    rate_failures: str = Field(default="500/900", pattern=_QUOTA)
    """Failed log-ins to all accounts from unknown devices; then no address has a second try."""
    rate_codes: str = Field(default="60/60", pattern=_QUOTA)
    """Codes that there are not, asked for by one member or key, and from one address; then none are looked up for them."""
    trusted_proxies: str = Field(default="", max_length=2000)
    """Networks (CIDR, with commas between) whose `X-Forwarded-For` is believed."""
    body_timeout_seconds: int = Field(default=10, ge=1, le=120)
    """So long a request's body may take to arrive, from its head on."""
    docs: Literal["on", "off"] | None = None
    """Whether `/docs` and `/openapi.json` are served; `on` in development and `off` in production unless told."""
    metrics: Literal["open", "key"] | None = None
    """Who may read `/metrics`: everybody, or holders of `metrics:read`; `open` in development and `key` in production unless told."""
    cors_origins: str = ""
    """Origins with commas between, such as `https://shop.example`: scripts of their pages may call the API."""
    behind_tls: bool = False
    """Clients reach this service by HTTPS alone, because a gateway in front ends TLS: browsers are told to keep to it."""
    access_log: bool = True
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    ledger_queue_max: int = Field(default=16_384, ge=16, le=100_000)
    """Commands that may wait for a commit; above it a request is answered 503 before any work."""
    ledger_batch_max: int = Field(default=500, ge=1, le=500)
    ledger_in_flight_max: int = Field(default=3, ge=1, le=16)
    ledger_deadline_ms: int = Field(default=20_000, ge=100, le=60_000)
    password_hash_threads: int = Field(default=2, ge=1, le=32)
    password_hash_queue_max: int = Field(default=64, ge=1, le=10_000)
    password_hash_memory_kib: int = Field(default=19_456, ge=19_456, le=1_048_576)
    """argon2id memory; the OWASP minimum with two passes is 19456 KiB."""

    _open_files: tuple[str, ...] = PrivateAttr(())

    @property
    def open_files(self) -> tuple[str, ...]:
        """A sentence for each secret's file that others can read or change."""
        return self._open_files

    def remember_open_files(self, sentences: tuple[str, ...]) -> None:
        self._open_files = sentences

    @property
    def serves_docs(self) -> bool:
        return (self.docs or ("off" if self.profile == "production" else "on")) == "on"

    @property
    def opens_metrics(self) -> bool:
        return (self.metrics or ("key" if self.profile == "production" else "open")) == "open"

    @property
    def origins(self) -> list[str]:
        return [origin for origin in self.cors_origins.split(",") if origin]

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, text: str) -> str:
        origins = [origin.strip() for origin in text.split(",") if origin.strip()]
        for origin in origins:
            if not _ORIGIN.match(origin):
                raise ValueError(
                    "name each origin as a browser does: scheme, host in lower case, a port if it is unusual; no *, no path"
                )
        return ",".join(origins)

    @field_validator("trusted_proxies")
    @classmethod
    def _known_networks(cls, text: str) -> str:
        networks_of(text)
        return text

    @property
    def second_factor_required(self) -> bool:
        return (self.operator_second_factor or ("required" if self.profile == "production" else "optional")) == "required"

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone; use an IANA name, for example Europe/London") from None


def networks_of(text: str) -> list[IPv4Network | IPv6Network]:
    """
    Raises:
        ValueError: one of them is no network.
    """
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def load(environment: dict[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings; `overrides` win over the environment (command-line options).

    Raises:
        StartupRefused: a value is not acceptable, a file cannot be read, or a secret is set twice.
    """
    source = dict(os.environ if environment is None else environment)
    values, open_files = _from_environment(source)
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        lines = [f"{_PREFIX}{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors(include_input=False)]
        raise StartupRefused("the settings are not acceptable:\n  " + "\n  ".join(lines)) from None
    settings.remember_open_files(open_files)
    return settings


def _from_environment(source: dict[str, str]) -> tuple[dict[str, object], tuple[str, ...]]:
    values: dict[str, object] = {}
    open_files: list[str] = []
    for field, described in Settings.model_fields.items():
        name = _PREFIX + field.upper()
        file_name = source.get(name + "_FILE")
        if file_name is not None and name in source:
            raise StartupRefused(f"both {name} and {name}_FILE are set; keep one")
        if file_name is not None:
            try:
                values[field], openness = read_file(Path(file_name))
            except (OSError, UnicodeDecodeError) as error:
                raise StartupRefused(f"{name}_FILE cannot be read: {type(error).__name__}") from None
            if openness is not None and described.annotation == SecretStr | None:
                open_files.append(f"{name}_FILE: {openness}")
        elif name in source:
            values[field] = source[name]
    return values, tuple(open_files)


def environment_of(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Return the variables from which another process loads the same values. Keys from a file go on as that file, which may change."""
    variables: dict[str, str] = {}
    for name in names:
        value = getattr(settings, name)
        if value is not None and (name != "token_keys" or settings.token_keys_file is None):
            variables[_PREFIX + name.upper()] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return variables


def require_safe(settings: Settings) -> list[str]:
    """Hold a process that serves to its profile; commands at a terminal issue no tokens and need no keys.

    Return what production would refuse about the secrets that are there.

    Raises:
        StartupRefused: the production profile brings its own database and its own keys, and nobody else can read or guess them.
    """
    doubts = _doubts_about(settings)
    if settings.profile != "production":
        return doubts
    wanting = [
        f"{_PREFIX}{field.upper()}{suffix} is needed: {what}" for field, suffix, what in _NEEDED if getattr(settings, field) is None
    ]
    if settings.mongodb_url is not None:
        weakness = weakness_of_database(settings.mongodb_url.get_secret_value(), open_network=settings.mongodb_insecure)
        if weakness is not None:
            wanting.append(f"GUERDON_MONGODB_URL {weakness}{'' if settings.mongodb_insecure else _OR_INSECURE}")
    if settings.rate_limit == "off":
        wanting.append("GUERDON_RATE_LIMIT=off is for measuring: remove it")
    if wanting or doubts:
        raise StartupRefused("profile production refuses this:\n  " + "\n  ".join([*wanting, *doubts]))
    return []


_NEEDED = (
    ("mongodb_url", "", "the embedded database is for trying and testing"),
    ("token_keys", "_FILE", "make one with `guerdon keys new-token-keys`"),
    ("master_keys", "_FILE", "make one with `guerdon keys new-master-keys`"),
)
_OR_INSECURE = ", or say GUERDON_MONGODB_INSECURE=true if nobody else is on that network"


def _doubts_about(settings: Settings) -> list[str]:
    doubts = list(settings.open_files)
    for field in ("token_keys", "master_keys", "checkpoint_key"):
        secret: SecretStr | None = getattr(settings, field)
        weakness = None if secret is None else weakness_of_keys(secret.get_secret_value())
        if weakness is not None:
            doubts.append(f"{_PREFIX}{field.upper()} {weakness}")
    return doubts
