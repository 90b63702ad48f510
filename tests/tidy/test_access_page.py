"""Who may do what changes in sight of a reviewer."""

from tests.tidy.access import PATH, current


def test_the_committed_table_is_what_the_routes_declare() -> None:
    assert PATH.exists(), "run `make docs`"
    assert PATH.read_text(encoding="utf-8") == current()
