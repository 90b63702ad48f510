"""What `make fast` runs for a change."""

import pytest

from tests.tidy.changed import FILES_MAX, files_for


def closest(*changed: str) -> list[str]:
    """The related test files that `make fast` runs."""
    return files_for(changed)[1][:FILES_MAX]


def test_changed_controller_selects_the_tests_that_call_its_paths() -> None:
    tests, related = files_for({"src/guerdon/holds/controller.py"})
    assert (tests, related[0]) == ([], "tests/api/test_holds.py")
    assert "tests/api/test_approvals.py" not in related[:FILES_MAX]


def test_path_with_a_parameter_is_not_taken_for_the_path_before_it() -> None:
    assert "tests/api/test_members.py" not in closest("src/guerdon/tiers/service.py")


def test_changed_module_selects_the_tests_that_import_it() -> None:
    assert "tests/api/test_security_events.py" in closest("src/guerdon/logs.py")
    assert closest("src/guerdon/embedded/host.py")[0] == "tests/test_embedded.py"


@pytest.mark.parametrize("name", ["decide", "models", "store", "lots"])
def test_changed_ledger_selects_the_stored_entries_and_the_independent_model(name: str) -> None:
    """Most of these tests use the ledger by helper modules only."""
    assert {"tests/tidy/test_hashed_fields.py", "tests/invariants/test_ledger_machine.py"} <= set(
        closest(f"src/guerdon/ledger/{name}.py")
    )


def test_changed_helper_module_selects_the_tests_that_use_it() -> None:
    assert "tests/invariants/test_verify.py" in closest("tests/invariants/full_ledger.py")
    assert len(closest("tests/factories.py")) == FILES_MAX


def test_removed_module_selects_the_tests_that_still_import_it() -> None:
    """The old name of a renamed module is one; here a package stands for it, which has no such file."""
    assert "tests/jobs/test_runner.py" in closest("src/guerdon/workers.py")


def test_changed_test_is_selected_unless_it_is_a_long_one() -> None:
    changed = {"tests/matrix/test_pagination.py", "tests/trust/test_kill.py", "tests/gone/test_gone.py", "README.md"}
    assert files_for(changed) == (["tests/matrix/test_pagination.py"], [])
