"""Known vulnerabilities of what is pinned, by pip-audit; when its data cannot be reached that is said, loudly, and is no failure."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 90


def main() -> int:
    """Return 1 when a pinned version has a known vulnerability."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", "requirements/dev.txt", "--no-deps", "--disable-pip"]
    try:
        run = subprocess.run(
            [*command, "--progress-spinner", "off", "--timeout", "10"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"pip-audit: NOT CHECKED, its data did not answer within {SECONDS_MAX} s")
        return 0
    output = f"{run.stdout}\n{run.stderr}"
    if run.returncode == 0:
        print("pip-audit: no known vulnerabilities")
        return 0
    if "known vulnerabilit" in output:
        print(output)
        return 1
    reason = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    print(f"pip-audit: NOT CHECKED, its data cannot be reached from here ({reason[:200]})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
