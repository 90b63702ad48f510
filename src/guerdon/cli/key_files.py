"""Keys and checkpoint file of a deployment: the configured ones, or files in the data directory of the embedded database."""

import os
from pathlib import Path
from typing import TypedDict

from guerdon.access.token_keys import TokenKeys
from guerdon.config import Settings
from guerdon.crypto.sealing import MasterKeys


class TokenKeySettings(TypedDict, total=False):
    """Settings that name the token keys of a data directory."""

    token_keys: str
    token_keys_file: Path


def own_token_keys(settings: Settings) -> TokenKeySettings:
    """Return settings for the token keys of the data directory, or no settings if token keys are configured.

    The file is created at the first use; only its owner can read it.
    """
    if settings.token_keys is not None:
        return {}
    path = token_keys_path(settings.data_dir)
    if not path.exists():
        write_private(path, TokenKeys.generate())
    return {"token_keys": path.read_text(encoding="utf-8"), "token_keys_file": path}


def token_keys_path(data_dir: Path) -> Path:
    return data_dir.resolve() / "secrets" / "token_keys.json"


def master_keys(settings: Settings) -> str | None:
    """Return the configured master keys or, with the embedded database, those of the data directory.

    The file is created at the first use. With an external database, return None if no keys are configured: its content is sealed under keys
    that only the operator has.
    """
    if settings.master_keys is not None:
        return settings.master_keys.get_secret_value()
    if settings.mongodb_url is not None:
        return None
    path = settings.data_dir / "secrets" / "master_keys.json"
    if not path.exists():
        write_private(path, MasterKeys.generate())
    return path.read_text(encoding="utf-8")


def checkpoint_key(settings: Settings, *, make: bool) -> str | None:
    """Return the configured checkpoint keys (a JWK set) or, with the embedded database, those of the data directory.

    If the file is missing, create it when `make` is true; otherwise return None.
    """
    if settings.checkpoint_key is not None:
        return settings.checkpoint_key.get_secret_value()
    if settings.mongodb_url is not None:
        return None
    path = settings.data_dir / "secrets" / "checkpoint_key.json"
    if not path.exists():
        if not make:
            return None
        write_private(path, TokenKeys.generate())
    return path.read_text(encoding="utf-8")


def checkpoint_file(settings: Settings) -> Path | None:
    """Return the path of the checkpoint file outside of the database, or None if there is no such file."""
    if settings.checkpoint_file is not None or settings.mongodb_url is not None:
        return settings.checkpoint_file
    return settings.data_dir / "checkpoints.jsonl"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, completely or not at all.

    A replaced file keeps its owner and the read permission of its group: the service may run as another user than the command.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                before = path.stat()
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, 0o600 | before.st_mode & 0o040)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
