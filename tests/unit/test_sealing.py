"""What is sealed opens with its key and in its place, and not otherwise."""

import json

import pytest

from guerdon.crypto.sealing import MasterKeys, SealingKey
from guerdon.errors import Internal, StartupRefused


def joined(*sets: str) -> str:
    return json.dumps({"keys": [key for one in sets for key in json.loads(one)["keys"]]})


def test_sealed_value_opens_in_its_own_context_only() -> None:
    keys = MasterKeys(MasterKeys.generate())
    sealed = keys.seal(b"ada@example.com", "member mem_1")
    assert b"ada" not in sealed
    assert keys.open(sealed, "member mem_1") == b"ada@example.com"
    for wrong in (lambda: keys.open(sealed, "member mem_2"), lambda: keys.open(sealed[:-1] + b"\0\0", "member mem_1")):
        with pytest.raises(Internal):
            wrong()
    assert keys.seal(b"ada@example.com", "member mem_1") != sealed


def test_a_rotation_seals_with_the_new_key_and_opens_with_both() -> None:
    old, new = MasterKeys.generate(), MasterKeys.generate()
    sealed = MasterKeys(old).seal(b"x", "c")
    both = MasterKeys(joined(new, old))
    assert both.open(sealed, "c") == b"x"
    assert not both.is_current(sealed)
    assert both.is_current(both.seal(b"x", "c"))
    with pytest.raises(Internal):
        MasterKeys(new).open(sealed, "c")


@pytest.mark.parametrize(
    "text", ["", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "\ud800", '{"keys": [{"kty": "OKP"}]}']
)
def test_invalid_master_key_set_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(StartupRefused) as refused:
        MasterKeys(text)
    assert "c2VjcmV0" not in refused.value.detail


def test_repeated_master_key_is_refused() -> None:
    keys = MasterKeys.generate()
    with pytest.raises(StartupRefused, match="twice"):
        MasterKeys(joined(keys, keys))


def test_a_key_has_256_bits() -> None:
    with pytest.raises(ValueError, match="32"):
        SealingKey(bytes(16))


def test_generated_master_key_is_added_after_the_existing_ones() -> None:
    old = MasterKeys.generate()
    both = MasterKeys.generate(beside=old)
    assert MasterKeys(both).current == MasterKeys(old).current
    assert MasterKeys(both).open(MasterKeys(old).seal(b"text", "context"), "context") == b"text"
    with pytest.raises(StartupRefused, match="not a JWK set"):
        MasterKeys.generate(beside="{}")
