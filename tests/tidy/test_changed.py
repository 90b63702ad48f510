"""What `make fast` runs for a change."""

from tests.tidy.changed import files_for


def test_changed_controller_selects_the_tests_that_call_its_paths() -> None:
    tests, related = files_for({"src/guerdon/holds/controller.py"})
    assert (tests, related[0]) == ([], "tests/api/test_holds.py")
    assert "tests/api/test_approvals.py" not in related


def test_changed_module_selects_the_tests_that_import_it() -> None:
    _, related = files_for({"src/guerdon/logs.py"})
    assert "tests/api/test_security_events.py" in related


def test_changed_test_is_selected_unless_it_is_a_long_one() -> None:
    changed = {"tests/matrix/test_pagination.py", "tests/trust/test_kill.py", "tests/gone/test_gone.py", "README.md"}
    assert files_for(changed) == (["tests/matrix/test_pagination.py"], [])
