"""The file of the token keys: how a running process follows it, and how the commands change it."""

import asyncio
import grp
import json
import os
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from guerdon.access.key_file import KeyFile
from guerdon.access.token_keys import TokenKeys, decode_set, new_signing_key
from guerdon.cli import token_keys as commands
from guerdon.cli.key_files import write_private
from guerdon.errors import NotFound, StartupRefused, Validation
from guerdon.logs import make_logger
from tests.access.conftest import JWK_SET, HandClock
from tests.clients import Log

ROTATORS = 6


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, configured as an operator would."""
    path = tmp_path / "token_keys.json"
    write_private(path, JWK_SET + "\n")
    for name in [name for name in os.environ if name.startswith("GUERDON_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GUERDON_TOKEN_KEYS_FILE", str(path))
    return path


def put(path: Path, text: str | None) -> None:
    """Write it as somebody would who knows of no rename; None takes the file away."""
    if text is None:
        path.unlink()
    else:
        path.write_bytes(text.encode("latin-1"))


def kids(path: Path) -> list[str]:
    return [key.kid for key in decode_set(path.read_text())]


# --- following ----------------------------------------------------------------------------------------------------------


async def test_changed_key_file_is_loaded_and_logged_once(path: Path, clock: HandClock, log: Log) -> None:
    keys = TokenKeys(JWK_SET)
    file = KeyFile(path, keys, clock, make_logger(clock, "info", log))
    await file.check()
    assert log.getvalue() == "", "the file holds what the process began with"
    put(path, TokenKeys.generate())
    await file.check()
    await file.check()
    assert [key.kid for key in keys.described()] == kids(path)
    assert await lines(log, 1) == [("info", "token_keys_changed")]
    assert not any(key.d in log.getvalue() for key in keys.described())


async def test_change_before_the_first_check_is_loaded(path: Path, clock: HandClock, log: Log) -> None:
    keys = TokenKeys(JWK_SET)
    write_private(path, TokenKeys.generate())
    await KeyFile(path, keys, clock, make_logger(clock, "info", log)).check()
    assert [key.kid for key in keys.described()] == kids(path)


async def test_broken_key_file_is_ignored_and_logged_once_per_change(path: Path, clock: HandClock, log: Log) -> None:
    keys, text = TokenKeys(JWK_SET), JWK_SET
    file = KeyFile(path, keys, clock, make_logger(clock, "info", log))
    await file.check()
    states = [text[:-9], "", "\x80\xff", '{"keys":[]}', None, text.replace('"d":"', '"d":"AA'), text]
    for state in states:
        put(path, state)
        for _ in range(3):
            await file.check()
        assert [key.kid for key in keys.described()] == kids_of(text), state
    assert await lines(log, 6) == [("error", "token_keys_unusable")] * 6
    assert decode_set(text)[0].d not in log.getvalue()
    put(path, TokenKeys.generate())
    await file.check()
    assert [key.kid for key in keys.described()] == kids(path), "it goes on following"


def kids_of(text: str) -> list[str]:
    return [key.kid for key in decode_set(text)]


async def lines(log: Log, count: int) -> list[tuple[str, str]]:
    """What was logged, once so many lines are there: lines leave together, some time later."""
    for _ in range(500):
        if len(log.lines) >= count:
            break
        await asyncio.sleep(0.01)
    return [(line["level"], line["event"]) for line in log.lines]


# --- changing -----------------------------------------------------------------------------------------------------------


def test_commands_rotate_revoke_and_list_signing_keys(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [old] = kids(path)
    commands.rotate()
    [same, new] = kids(path)
    assert same == old
    told = capsys.readouterr()
    assert [line.split()[:2] for line in told.out.splitlines()] == [[old, "signing"], [new, "next"]]
    event = json.loads(told.err)
    assert (event["name"], event["actor"], event["object"]) == ("signing_key_rotated", "terminal", {"kid": new})
    commands.revoke_signing(old)
    assert kids(path) == [new]
    told = capsys.readouterr()
    assert [line.split()[:2] for line in told.out.splitlines()] == [[new, "signing"]]
    event = json.loads(told.err)
    assert (event["name"], event["object"]) == ("signing_key_revoked", {"kid": old})
    commands.list_signing()
    listed = capsys.readouterr().out
    assert listed.startswith(f"{new}  signing    signs from 20")
    assert decode_set(path.read_text())[0].d not in listed
    before = path.read_text()
    with pytest.raises(NotFound):
        commands.revoke_signing(old)
    assert path.read_text() == before


def test_rotation_wait_shorter_than_the_cache_lifetime_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Validation, match="305 seconds"):
        commands.rotate(wait_seconds=304)
    assert len(kids(path)) == 1
    monkeypatch.setenv("GUERDON_JWKS_MAX_AGE_SECONDS", "1")
    commands.rotate(wait_seconds=6)
    assert len(kids(path)) == 2


def test_rotations_at_once_lose_no_key(path: Path) -> None:
    crowd = [threading.Thread(target=commands.rotate) for _ in range(ROTATORS)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    assert len(set(kids(path))) == 1 + ROTATORS


def test_rotation_keeps_the_group_of_the_file_and_closes_it_to_others(path: Path) -> None:
    path.chmod(0o644)
    commands.rotate()
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    others = [group for group in os.getgroups() if group != os.getegid()]
    if os.geteuid() == 0:
        others.append(grp.getgrall()[-1].gr_gid)
    for group in others[:1]:
        os.chown(path, -1, group)
        commands.rotate()
        assert (path.stat().st_mode & 0o777, path.stat().st_gid) == (0o600, group)
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".token_keys.json.lock", "token_keys.json"], "no draft is left"


def test_unusable_key_set_is_not_written(path: Path) -> None:
    before, other = path.read_text(), new_signing_key()
    for change in (lambda keys: [], lambda keys: [replace(keys[0], d=other.d)], lambda keys: [replace(keys[0], verifies_until=1)]):
        with pytest.raises(StartupRefused):
            commands._change(path, change)
    assert path.read_text() == before


def test_rotation_follows_a_symbolic_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = path.with_name("current.json")
    link.symlink_to(path)
    monkeypatch.setenv("GUERDON_TOKEN_KEYS_FILE", str(link))
    commands.rotate()
    assert link.is_symlink()
    assert len(kids(path)) == 2


def test_unwritable_key_file_is_reported() -> None:
    # /proc is the one folder in which not even root can make a file.
    with pytest.raises(StartupRefused, match=r"/proc/token_keys\.json cannot be written"):
        commands._change(Path("/proc/token_keys.json"), lambda keys: keys)


def test_keys_in_the_environment_cannot_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_TOKEN_KEYS", JWK_SET)
    with pytest.raises(StartupRefused, match="GUERDON_TOKEN_KEYS_FILE"):
        commands.rotate(data_dir=tmp_path)
    monkeypatch.delenv("GUERDON_TOKEN_KEYS")
    with pytest.raises(StartupRefused, match="--data-dir"):
        commands.list_signing(data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
