"""Writes every committed page that is printed from the code: `make docs`."""

from collections.abc import Callable
from pathlib import Path

from tests.tidy import access, award_types, commands, configuration, ladder, openapi, problems, scopes

PAGES: dict[Path, Callable[[], str]] = {
    each.PATH: each.current for each in (access, award_types, commands, configuration, ladder, openapi, problems, scopes)
}


def main() -> None:
    """Write the pages that have changed, and name them."""
    for path, current in PAGES.items():
        text = current()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main()
