"""The look of codes: what is drawn, what the check character catches, and what is too short to be secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guerdon.errors import Validation
from guerdon.ids import random_text
from guerdon.offers.code_patterns import (
    ALPHABET,
    DEFAULT_PATTERN,
    SECRET_BITS_MIN,
    capitals,
    normalise,
    parse_pattern,
    require_secret,
    with_check,
)

_TEXT = st.text(ALPHABET, min_size=1, max_size=40)
_PATTERNS = st.lists(st.text("AZ09S#", min_size=1, max_size=8), min_size=1, max_size=6).map("-".join)
_TYPED = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


@given(st.data())
def test_check_character_catches_wrong_and_swapped_characters(data: st.DataObject) -> None:
    pattern = parse_pattern(data.draw(_PATTERNS.filter(lambda text: text.count("#") >= 2)))
    [code] = pattern.draw(1)
    assert pattern.accepts(code)
    assert normalise(pattern.shown(code)) == code
    assert normalise(f" {pattern.shown(code).lower()} ") == code
    at = data.draw(st.integers(0, len(code) - 1))
    wrong = [code[:at] + other + code[at + 1 :] for other in _TYPED if other != code[at]]
    swapped = [
        code[:place] + code[place + 1] + code[place] + code[place + 2 :]
        for place in range(len(code) - 1)
        if code[place] != code[place + 1]
    ]
    assert not any(pattern.accepts(other) for other in [*wrong, *swapped, code[:-1], code + code[-1]])


@given(_TEXT)
def test_check_character_follows_iso_7064(drawn: str) -> None:
    whole = with_check(drawn)
    # The definition: weights are powers of two from the right, the check's is 1, and the sum is 1.
    assert sum(ALPHABET.index(character) * 2**power for power, character in enumerate(reversed(whole))) % 29 == 1
    assert whole[:-1] == drawn


def test_code_alphabet_has_no_ambiguous_characters() -> None:
    assert len(ALPHABET) == len(set(ALPHABET)) == 29
    assert set("0O1ILUS").isdisjoint(ALPHABET)


def test_secret_pattern_requires_enough_random_bits() -> None:
    assert parse_pattern(DEFAULT_PATTERN).bits >= SECRET_BITS_MIN > parse_pattern("#" * 14).bits
    require_secret(parse_pattern("SUMMER-" + "#" * 15))
    with pytest.raises(Validation) as refused:
        require_secret(parse_pattern("SUMMER-####-####"))
    [error] = refused.value.members["errors"]
    assert error["pointer"] == "/pattern"
    assert error["detail"] == (
        "a secret code needs 64 random bits, which is 15 # with the check character; this pattern has 8 # and 34 bits"
    )


@pytest.mark.parametrize("text", ["", "#", "A-#", "##-", "-##", "##--##", "##_##", "## ##", "##\n", "É##", "#" * 65])
def test_invalid_code_pattern_is_refused(text: str) -> None:
    with pytest.raises(Validation):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["", " - ", "A\n", "A\tB", "A\u0085", "A\u200bB", "A\ud800", "A" * 65, "A" + " " * 128, "ﬃ" * 22])
def test_text_that_cannot_be_a_code_normalises_to_nothing(text: str) -> None:
    assert normalise(text) == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Summer-10", "SUMMER10"), ("e\u0301te\u0301 26", "\u00e9T\u00e926"), ("STRA\u00dfE", "STRASSE"), ("10%\u2010off\u00a0!", "10%OFF!"), ("\uff21", "\uff41"),
        ("\u0130", "I\u0307"), ("\u0131", "\u0131"),
    ],
)  # fmt: skip
def test_code_is_folded_and_composed(text: str, code: str) -> None:
    assert normalise(text) == code
    assert normalise(code) == code, "stored codes are found by themselves"
    assert normalise(capitals(text)) == code


def test_characters_of_codes_are_equally_likely() -> None:
    # 290,000 characters: a share of 10,000 each, with a standard deviation of 98. Ten of them is never.
    drawn = random_text(ALPHABET, 290_000)
    assert len(drawn) == 290_000
    assert all(abs(drawn.count(character) - 10_000) < 1_000 for character in ALPHABET)


def test_drawn_codes_are_distinct() -> None:
    pattern = parse_pattern(DEFAULT_PATTERN)
    assert len(set(pattern.draw(1000)) | {pattern.draw(1)[0] for _ in range(1000)}) == 2000
    assert pattern.shown(pattern.draw(1)[0]).count("-") == 2
