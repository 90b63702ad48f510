"""What `make fast` runs for a change."""

from tests.tidy.changed import files_for


def test_a_changed_controller_brings_the_tests_that_call_its_paths() -> None:
    tests, related = files_for({"src/guerdon/holds/controller.py"})
    assert (tests, related[0]) == ([], "tests/api/test_holds.py")
    assert "tests/api/test_approvals.py" not in related


def test_a_changed_module_brings_the_tests_that_import_it() -> None:
    _, related = files_for({"src/guerdon/logs.py"})
    assert "tests/api/test_security_events.py" in related


def test_a_changed_test_is_run_and_a_long_one_is_not() -> None:
    changed = {"tests/matrix/test_pages.py", "tests/trust/test_kill.py", "tests/gone/test_gone.py", "README.md"}
    assert files_for(changed) == (["tests/matrix/test_pages.py"], [])
