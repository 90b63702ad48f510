"""The vulnerability gate: a package that was not audited is never reported as free of vulnerabilities."""

from tests.tidy.vulnerabilities import pinned, verdict

CLEAN = {"name": "Typing_Extensions", "version": "4.1", "vulns": []}
SKIPPED = {"name": "falcon", "skip_reason": "Dependency not found on PyPI and could not be audited: falcon (4.4)"}
VULNERABLE = {"name": "httpx", "version": "0.1", "vulns": [{"id": "CVE-2026-1", "fix_versions": ["0.2"]}]}


def test_the_names_of_all_pinned_packages_are_read() -> None:
    names = pinned()
    assert {"falcon", "pymongo", "pytest", "argon2-cffi", "granian"} <= names
    assert len(names) > 80


def test_audited_packages_without_a_finding_pass() -> None:
    assert verdict([CLEAN], {"typing-extensions"}) == (["pip-audit: packages without known vulnerabilities: 1"], 0)


def test_packages_that_were_skipped_are_named_as_not_checked() -> None:
    lines, status = verdict([SKIPPED], {"falcon"})
    assert (lines, status) == (["pip-audit: NOT CHECKED, 1 of 1 packages: falcon"], 0)


def test_packages_missing_from_the_answer_are_named_as_not_checked() -> None:
    lines, _ = verdict([CLEAN], {"falcon", "typing-extensions"})
    assert lines[0] == "pip-audit: NOT CHECKED, 1 of 2 packages: falcon"
    assert lines[1] == "pip-audit: packages without known vulnerabilities: 1"


def test_a_known_vulnerability_fails() -> None:
    lines, status = verdict([VULNERABLE, SKIPPED], {"httpx", "falcon"})
    assert status == 1
    assert lines[0] == "pip-audit: httpx 0.1 has CVE-2026-1, fixed in 0.2"
    assert "NOT CHECKED" in lines[1]
