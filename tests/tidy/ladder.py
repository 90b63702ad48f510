"""Prints the import ladder into its marked section of CONTRIBUTING.md from `[tool.importlinter]`: `make docs`."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATH = ROOT / "CONTRIBUTING.md"
_BEGIN, _END = "<!-- ladder:begin -->\n", "<!-- ladder:end -->\n"


def _ladder() -> str:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    blocks = [
        f"**{contract['name']}** ({', '.join(f'`{container}`' for container in contract.get('containers', ()))}):\n\n"
        f"```text\n{chr(10).join(contract['layers'])}\n```\n"
        for contract in contracts
        if contract["type"] == "layers"
    ]
    return "\n" + "\n".join(blocks) + "\n"


def current() -> str:
    """Return CONTRIBUTING.md with the ladder as pyproject.toml states it now.

    Raises:
        ValueError: the page does not have exactly one marked section.
    """
    page = PATH.read_text(encoding="utf-8")
    if page.count(_BEGIN) != 1 or page.count(_END) != 1:
        raise ValueError(f"{PATH.name} needs one section between {_BEGIN.strip()} and {_END.strip()}")
    before, rest = page.split(_BEGIN)
    return f"{before}{_BEGIN}{_ladder()}{_END}{rest.split(_END)[1]}"


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
