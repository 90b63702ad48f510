"""Who may do what changes in sight of a reviewer."""

from tests.tidy.access import PATH, current


def test_committed_access_table_matches_the_routes() -> None:
    assert PATH.exists(), "run `make docs`"
    assert PATH.read_text(encoding="utf-8") == current()
