"""Prints docs/api/problems.md, the table of problem codes, from the classes of `guerdon.errors`: `make docs`."""

from pathlib import Path

from guerdon.errors import BusinessError, CallerError, GuerdonError, OperationsError, StartupRefused, registry

PATH = Path(__file__).parents[2] / "docs" / "api" / "problems.md"
_HEAD = """# Problem codes

`make docs` writes this page from `src/guerdon/errors/`. A running service shows the same texts under `/problems/{code}`. The form of a
problem document is described in [Conventions](README.md#errors).
"""
_FAMILIES: tuple[tuple[type[GuerdonError], str, str], ...] = (
    (CallerError, "The request is wrong", "Nothing was written. Change the request."),
    (
        BusinessError,
        "The ledger refuses the request",
        "The request is valid, but balances, limits or states do not allow it. The answer is definite.",
    ),
    (OperationsError, "The service cannot do it now", "Retry later, with the same idempotency key where value moves."),
)
_TERMINAL = "## At a terminal\n\nThese codes are shown by commands and are not answers of the API.\n"


def _table(found: dict[str, type[GuerdonError]]) -> str:
    rows = (f"| `{code}` | {found[code].status} | {found[code].title} | {found[code].page} |\n" for code in sorted(found))
    return "| code | status | title | meaning |\n|---|---|---|---|\n" + "".join(rows)


def current() -> str:
    """Return the page as the code is now.

    Raises:
        ValueError: a class belongs to no family.
    """
    known, page, shown = registry(), [_HEAD], set[str]()
    for family, title, text in _FAMILIES:
        found = {code: each for code, each in known.items() if issubclass(each, family) and not issubclass(each, StartupRefused)}
        page.append(f"\n## {title}\n\n{text}\n\n{_table(found)}")
        shown |= set(found)
    terminal = {code: each for code, each in known.items() if issubclass(each, StartupRefused)}
    page.append(f"\n{_TERMINAL}\n{_table(terminal)}")
    if shown | set(terminal) != set(known):
        raise ValueError(f"no family for {sorted(set(known) - shown - set(terminal))}")
    return "".join(page)


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
