"""A clock that stands still, and tokens signed with keys of this test process."""

import pytest

from guerdon.access.token_keys import TokenKeys
from guerdon.access.tokens import Tokens

NOW = 1_790_000_000
MEMBER = "mem_019a7f3c2d1e4b5a69788796a5b4c3d2"
SESSION = f"{MEMBER}:abcDEF123456"
MEMORY_KIB = 19_456


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = NOW * 1000

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    def pass_seconds(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


JWK_SET = TokenKeys.generate()


@pytest.fixture
def tokens(clock: HandClock) -> Tokens:
    return Tokens(TokenKeys(JWK_SET), clock, "guerdon", "guerdon", 900)
