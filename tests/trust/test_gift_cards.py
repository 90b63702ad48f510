"""Five hundred lives of a gift card against the model. GUERDON_TEST_SEQUENCES sets another number."""

import os

import pytest

from guerdon.config import Settings
from tests.invariants.test_gift_card_machine import Cards, run_cards
from tests.trust.figures import record

pytestmark = [pytest.mark.trust, pytest.mark.timeout(1800)]


@pytest.mark.usefixtures("database")
def test_five_hundred_gift_card_histories_agree_with_the_model(settings: Settings) -> None:
    lives = int(os.environ.get("GUERDON_TEST_SEQUENCES", "500"))
    run_cards(settings, lives)
    steps = ("reserve", "use", "release", "unuse", "cancel")
    assert lives < 500 or set(Cards.seen) == {f"{step} {how}" for step in steps for how in ("done", "refused")}, Cards.seen
    record("gift card histories that differ from the model", f"0 of {lives}", 0)
    print(f"\n{lives} lives of a card; " + ", ".join(f"{what} {n}" for what, n in sorted(Cards.seen.items())))
