"""Known vulnerabilities of the pinned packages, by pip-audit. A package that pip-audit could not look up is reported as NOT CHECKED."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ("dev.txt", "mongod.txt", "redis.txt")
SECONDS_MAX = 90


def main() -> int:
    """Return 1 when a pinned version has a known vulnerability. A service that cannot be reached is reported and is no failure."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--timeout", "10"]
    for name in REQUIREMENTS:
        command += ["--requirement", f"requirements/{name}"]
    try:
        run = subprocess.run(
            [*command, "--format", "json"], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"pip-audit: NOT CHECKED, no answer within {SECONDS_MAX} s: {', '.join(sorted(pinned()))}")
        return 0
    try:
        dependencies = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = next((line for line in reversed(run.stderr.splitlines()) if line.strip()), "no output")
        print(f"pip-audit: NOT CHECKED, it failed ({reason[:200]}): {', '.join(sorted(pinned()))}")
        return 0
    lines, status = verdict(dependencies, pinned())
    print("\n".join(lines))
    return status


def pinned() -> set[str]:
    """The names of the pinned packages."""
    texts = [(ROOT / "requirements" / name).read_text(encoding="utf-8") for name in REQUIREMENTS]
    return {name_of(line) for text in texts for line in text.splitlines() if "==" in line and line[:1].isalnum()}


def name_of(requirement: str) -> str:
    """The normalized name of a pinned requirement."""
    return requirement.partition("==")[0].partition("[")[0].strip().lower().replace("_", "-").replace(".", "-")


def verdict(dependencies: list[dict[str, Any]], expected: set[str]) -> tuple[list[str], int]:
    """Return the lines to print and the exit status for pip-audit's list of packages, of which `expected` should be in it."""
    audited = [each for each in dependencies if "skip_reason" not in each]
    vulnerable = [each for each in audited if each.get("vulns")]
    unchecked = sorted(expected - {name_of(each["name"]) for each in audited})
    lines = [
        f"pip-audit: {each['name']} {each['version']} has {vuln['id']}"
        + (f", fixed in {', '.join(vuln['fix_versions'])}" if vuln.get("fix_versions") else "")
        for each in vulnerable
        for vuln in each["vulns"]
    ]
    if unchecked:
        lines.append(f"pip-audit: NOT CHECKED, {len(unchecked)} of {len(expected)} packages: {', '.join(unchecked)}")
    if audited and not vulnerable:
        lines.append(f"pip-audit: packages without known vulnerabilities: {len(audited)}")
    return lines, 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
