"""Settings, read from `GUERDON_*` variables or from the files that `GUERDON_*_FILE` variables name. Secrets have no defaults."""

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
    """All settings of a deployment. The name of a quantity ends with its unit.

    `make docs` prints this class as docs/configuration.md: a comment with three dashes begins a section, and the text below a field
    is its meaning.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

    # --- General
    profile: Literal["development", "production"] = "development"
    """`production` refuses to start with the embedded database, or with secrets that are missing, weak or readable by others."""
    data_dir: Path = Path(".guerdon")
    """Directory in which `guerdon up` keeps the embedded database, its lock and the generated secrets."""
    time_zone: str = "UTC"
    """IANA name of the programme's time zone. Spending limits, caps, tiers and statements use its days and months."""
    access_log: bool = True
    """Write one log line for each request."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level of log lines that are written."""

    # --- Database
    mongodb_url: SecretStr | None = None
    """URL of a MongoDB replica set or `mongos`. If it is not set, commands use the embedded database of `GUERDON_DATA_DIR`."""
    mongodb_insecure: bool = False
    """Accept a database without access control or TLS in production, on a network that no one else can reach."""
    mongodb_database: str = Field(default="guerdon", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,37}$")
    """Name of the database: a letter, then letters, digits, `_` and `-`, at most 38 characters."""
    mongodb_pool_max: int = Field(default=32, ge=4, le=500)
    """Maximum number of connections of one process."""

    clock_skew_max_ms: int = Field(default=2_000, ge=100, le=60_000)
    """Maximum difference between the clock of the machine and that of the database. Above it `/health/ready` answers 503. Requests are
    always decided by the time of the database."""

    # --- Keys and tokens
    master_keys: SecretStr | None = None
    """JWK set with symmetric keys of 256 bits. The first one seals personal data and secrets at rest; all of them open what they sealed.
    `guerdon up` creates one; `guerdon keys new-master-keys` prints one."""
    token_keys: SecretStr | None = None
    """JWK set with Ed25519 private keys. One signs access tokens; all of them verify. If it is given as a file, running processes read it
    again when it changes. `guerdon up` creates one; `guerdon keys new-token-keys` prints one."""
    token_keys_file: Path | None = None
    """File from which `token_keys` was read, if any."""
    jwks_max_age_seconds: int = Field(default=300, ge=1, le=300)
    """Time for which clients may cache the public keys of `/.well-known/jwks.json`. The default is the maximum, so that a key rotation that does
    not know this setting waits too long rather than too short."""
    token_issuer: str = Field(default="guerdon", max_length=200)
    """Issuer (`iss`) of access tokens."""
    token_audience: str = Field(default="guerdon", max_length=200)
    """Audience (`aud`) of access tokens."""
    access_token_ttl_seconds: int = Field(default=900, ge=30, le=900)
    """Lifetime of an access token."""

    # --- Sessions and passwords
    session_idle_hours: int = Field(default=336, ge=1, le=8_760)
    """Lifetime of a session that is not refreshed. The default is two weeks."""
    session_absolute_hours: int = Field(default=2_160, ge=1, le=17_520)
    """Maximum lifetime of a session. The default is ninety days."""
    operator_second_factor: Literal["optional", "required"] | None = None
    """`required`: a staff session that began without a second factor reaches only `/v1/me`. If it is not set: `required` in production,
    `optional` in development."""
    password_hash_threads: int = Field(default=2, ge=1, le=32)
    """Number of threads that hash passwords."""
    password_hash_queue_max: int = Field(default=64, ge=1, le=10_000)
    """Maximum number of callers that wait for these threads. Above it the answer is `503 overloaded`."""
    password_hash_memory_kib: int = Field(default=19_456, ge=19_456, le=1_048_576)
    """Memory of one argon2id hash. The minimum is that of OWASP for two passes."""

    # --- E-mail
    smtp_url: SecretStr | None = None
    """Mail server: `smtp://user:password@host:port` (STARTTLS is required, except on loopback) or `smtps://…`."""
    mail_from: str | None = Field(default=None, max_length=320)
    """Sender address of e-mails, with or without a display name."""
    reset_url: str | None = Field(default=None, max_length=1000)
    """Address of your page on which a member sets a new password. It contains `{token}` once, preferably after a `#`, because browsers do
    not send that part to servers."""

    # --- Events
    event_ahead_hours_max: int = Field(default=24, ge=0, le=8_760)
    """Maximum time by which `occurred_at` of an event may be ahead of the clock, for tills whose clocks or time zones are wrong. An event that
    is further ahead is refused."""

    # --- Segments
    segments_currency: str | None = Field(default=None, pattern=r"^[A-Z]{3}$")
    """Currency of the purchases whose amounts count as money in segments, such as GBP. By default the currency of the most purchases."""

    # --- Privacy and approval
    erased_external_id_days: int = Field(default=400, ge=1, le=3_650)
    """Days for which the keyed digest of an erased member's external id is kept, so that late events still reach the right wallets."""
    campaign_approval: Literal["off", "required"] = "off"
    """`required`: a version of a campaign takes effect only after a second person has approved it."""

    # --- Reports and exports
    reports_read_preference: Literal["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"] = "primary"
    """Members of the replica set that the lists of exports are read from. Members that are more than 120 s behind the primary are not
    used. `secondary` needs a secondary: without one, exports fail. Reports are read from the primary."""
    export_hours: int = Field(default=24, ge=1, le=720)
    """Hours for which the file of an export is kept."""
    export_rows_max: int = Field(default=5_000_000, ge=1, le=100_000_000)
    """Maximum number of rows of an export."""
    export_mib_max: int = Field(default=2_048, ge=1, le=1_048_576)
    """Space for the files of all exports in the database, in MiB. An export that does not find room fails, and says so."""

    # --- Checkpoints
    checkpoint_key: SecretStr | None = None
    """JWK set with Ed25519 keys. The first one signs checkpoints of the ledger; all of them verify. `guerdon up` creates one."""
    checkpoint_file: Path | None = None
    """File outside of the database to which checkpoints are also written. `guerdon up` uses `checkpoints.jsonl` in the data directory."""
    checkpoint_every_seconds: int = Field(default=3600, ge=10, le=86_400)
    """Interval at which the worker signs a checkpoint."""

    # --- Rate limits
    rate_limit: Literal["on", "off"] = "on"
    """`off` disables rate limits, for load tests. Production refuses it."""
    rate_limit_store: SecretStr | None = None
    """`valkey://…`, `redis://…` or `rediss://…` (TLS): a store in which all processes count together. If it is not set, each process counts
    for itself."""
    rate_limit_without_store: Literal["local", "open", "closed"] = "local"
    """Treatment of requests that change data while the store is down: count them per process (`local`), do not count them (`open`), or
    refuse them (`closed`)."""
    rate_key: str = Field(default="600000/60", pattern=_QUOTA)
    """Requests of one service key."""
    rate_person: str = Field(default="1200/60", pattern=_QUOTA)
    """Requests of one member or staff person."""
    rate_stranger: str = Field(default="600/60", pattern=_QUOTA)
    """Requests of one address without credentials."""
    rate_entry: str = Field(default="30/60", pattern=_QUOTA)
    """Log-ins and registrations of one address."""
    rate_invalid: str = Field(default="60/60", pattern=_QUOTA)
    """Requests with invalid credentials from one address. Above it, credentials from that address that are not known yet are refused
    unchecked."""
    rate_guesses: str = Field(default="10/900", pattern=_QUOTA)
    """Failed log-ins to one account: from all unknown devices together, and from each known device."""
    rate_failures: str = Field(default="500/900", pattern=_QUOTA)
    """Failed log-ins from unknown devices to all accounts. Above it, each address can fail only once per window."""
    rate_codes: str = Field(default="60/60", pattern=_QUOTA)
    """Look-ups of codes that do not exist, per member or key and per address. Above it, codes are no longer looked up for them."""
    trusted_proxies: str = Field(default="", max_length=2000)
    """Comma-separated networks (CIDR) of proxies whose `X-Forwarded-For` is trusted."""

    # --- Read cache
    cache: SecretStr | None = None
    """`valkey://user:password@host:port/db`, `redis://…`, or with TLS `valkeys://…` or `rediss://…`: a store that keeps copies of wallets for
    reads. No command reads a copy. Set it for every process that commits, workers too. If it is not set, every read goes to the database."""

    # --- HTTP
    docs: Literal["on", "off"] | None = None
    """Serve `/docs` and `/openapi.json`. If it is not set: `on` in development, `off` in production."""
    metrics: Literal["open", "key"] | None = None
    """Access to `/metrics`: everyone (`open`), or holders of the scope `metrics:read` (`key`). If it is not set: `open` in development,
    `key` in production."""
    cors_origins: str = ""
    """Comma-separated origins, such as `https://shop.example`, whose pages may call the API from a browser. `*` is refused."""
    behind_tls: bool = False
    """A gateway in front of the service terminates TLS. Answers then tell browsers to use HTTPS only."""
    body_timeout_seconds: int = Field(default=10, ge=1, le=120)
    """Time within which the body of a request must arrive, counted from its headers."""

    # --- Ledger
    ledger_queue_max: int = Field(default=16_384, ge=16, le=100_000)
    """Maximum number of commands that wait for a commit in one process. Above it the answer is `503 overloaded`, and nothing is done."""
    ledger_batch_max: int = Field(default=500, ge=1, le=500)
    """Maximum number of commands in one commit."""
    ledger_in_flight_max: int = Field(default=3, ge=1, le=16)
    """Maximum number of commits of one process that run at the same time."""
    ledger_deadline_ms: int = Field(default=20_000, ge=100, le=60_000)
    """Time after which a caller whose command is not committed gets a `503`."""

    _open_files: tuple[str, ...] = PrivateAttr(())

    @property
    def open_files(self) -> tuple[str, ...]:
        """Findings about files of secrets that other users can read or change."""
        return self._open_files

    def remember_open_files(self, sentences: tuple[str, ...]) -> None:
        """Set `open_files`."""
        self._open_files = sentences

    @property
    def serves_docs(self) -> bool:
        """True if `/docs` and `/openapi.json` are served."""
        return (self.docs or ("off" if self.profile == "production" else "on")) == "on"

    @property
    def opens_metrics(self) -> bool:
        """True if `/metrics` needs no credentials."""
        return (self.metrics or ("key" if self.profile == "production" else "open")) == "open"

    @property
    def origins(self) -> list[str]:
        """Origins of `cors_origins`."""
        return [origin for origin in self.cors_origins.split(",") if origin]

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, text: str) -> str:
        origins = [origin.strip() for origin in text.split(",") if origin.strip()]
        for origin in origins:
            if not _ORIGIN.match(origin):
                raise ValueError(
                    "write each origin as a browser does: scheme, host in lower case, and a port unless it is the default; no * and no path"
                )
        return ",".join(origins)

    @field_validator("trusted_proxies")
    @classmethod
    def _known_networks(cls, text: str) -> str:
        networks_of(text)
        return text

    @property
    def second_factor_required(self) -> bool:
        """True if staff need a session that began with a second factor."""
        return (self.operator_second_factor or ("required" if self.profile == "production" else "optional")) == "required"

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone; use an IANA name, for example Europe/London") from None


def networks_of(text: str) -> list[IPv4Network | IPv6Network]:
    """Return the networks of a comma-separated list.

    Raises:
        ValueError: an item is not a network.
    """
    return [ip_network(part.strip()) for part in text.split(",") if part.strip()]


def load(environment: dict[str, str] | None = None, **overrides: object) -> Settings:
    """Return the settings. `overrides` (options of the command line) take precedence over the environment.

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
    """Return the variables from which another process loads the same values. Token keys that come from a file are passed as that file."""
    variables: dict[str, str] = {}
    for name in names:
        value = getattr(settings, name)
        if value is not None and (name != "token_keys" or settings.token_keys_file is None):
            variables[_PREFIX + name.upper()] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return variables


def require_safe(settings: Settings) -> list[str]:
    """Check the settings of a process that serves against its profile.

    In development, return the violations that production would refuse.

    Raises:
        StartupRefused: the profile is production, and a database or key is missing, weak, or readable by other users.
    """
    violations = _secret_violations(settings)
    if settings.profile != "production":
        return violations
    missing = [
        f"{_PREFIX}{field.upper()}{suffix} is needed: {what}" for field, suffix, what in _NEEDED if getattr(settings, field) is None
    ]
    if settings.mongodb_url is not None:
        weakness = weakness_of_database(settings.mongodb_url.get_secret_value(), open_network=settings.mongodb_insecure)
        if weakness is not None:
            missing.append(f"GUERDON_MONGODB_URL {weakness}{'' if settings.mongodb_insecure else _OR_INSECURE}")
    if settings.rate_limit == "off":
        missing.append("GUERDON_RATE_LIMIT=off is for load tests: remove it")
    if missing or violations:
        raise StartupRefused("profile production refuses this:\n  " + "\n  ".join([*missing, *violations]))
    return []


_NEEDED = (
    ("mongodb_url", "", "the embedded database is for trials and tests"),
    ("token_keys", "_FILE", "create one with `guerdon keys new-token-keys`"),
    ("master_keys", "_FILE", "create one with `guerdon keys new-master-keys`"),
)
_OR_INSECURE = ", or set GUERDON_MONGODB_INSECURE=true if no one else can reach that network"


def _secret_violations(settings: Settings) -> list[str]:
    violations = list(settings.open_files)
    for field in ("token_keys", "master_keys", "checkpoint_key"):
        secret: SecretStr | None = getattr(settings, field)
        weakness = None if secret is None else weakness_of_keys(secret.get_secret_value())
        if weakness is not None:
            violations.append(f"{_PREFIX}{field.upper()} {weakness}")
    return violations
