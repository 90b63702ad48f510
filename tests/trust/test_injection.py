"""NOSQL-1 in full: every value of tests/matrix/test_texts.py in every place, where the everyday run gives each place a share."""

import pytest

from guerdon.database import Database
from tests.factories import Factory
from tests.matrix.conftest import Scene, scene, settings
from tests.matrix.test_texts import try_bodies, try_headers
from tests.trust.figures import record

pytestmark = pytest.mark.trust
__all__ = ["scene", "settings"]


async def test_every_hostile_text_in_every_field_is_harmless(scene: Scene, factory: Factory, database: Database) -> None:
    bodies = await try_bodies(scene, database, share=1)
    headers = await try_headers(scene, database, share=1)
    await factory.assert_books_balance()
    record("NOSQL-1 hostile texts that reached a query", f"0 of {bodies + headers}", 0)
    print(f"\n{bodies} bodies and {headers} headers: refused, or kept as text")
