"""Prints docs/cli.md from the Typer application: `make docs`."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from guerdon.cli.main import EXIT_CODES, app

PATH = Path(__file__).parents[2] / "docs" / "cli.md"
_EXIT = re.compile(r"Exit code (\d+): (.+)")
_HEAD = """# Command line

`make docs` writes this page from the commands in `src/guerdon/cli`. `guerdon COMMAND --help` prints the same at a terminal.

A command that needs the database uses `GUERDON_MONGODB_URL` if it is set. Otherwise it finds the running `guerdon up` of `--data-dir` (or
`GUERDON_DATA_DIR`), or starts the embedded database for as long as it needs it. Only `up`, `serve`, `replay`, `keys create` and `admin create` create a
database that does not exist; every other command refuses and names the directory or the database that it looked for. Settings are listed in
[configuration.md](configuration.md).

"""


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(command, TyperGroup):
        yield path, command
        return
    for name, child in sorted(command.commands.items()):
        if not child.hidden:
            yield from _commands(child, (*path, name))


def _value(parameter: Any) -> str:
    """Return the values that a parameter takes, in words."""
    kind = parameter.type_descriptor.annotation
    if isinstance(parameter, TyperOption) and parameter.is_flag:
        return "flag"
    if kind is int and parameter.min is not None:
        return (
            f"integer, at least {parameter.min:,}" if parameter.max is None else f"integer, {parameter.min:,} to {parameter.max:,}"
        )
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{each.value}`" for each in kind)
    return {int: "integer", str: "text", Path: "path", list[str]: "text, any number of times"}[kind]


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    flag = isinstance(parameter, TyperOption) and parameter.is_flag
    if flag and parameter.secondary_opts:
        return f"`{(parameter.opts if parameter.default else parameter.secondary_opts)[0]}`"
    return "" if flag or parameter.default is None else f"`{parameter.default}`"


def _rows(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if not parameter.hidden:
            names = (
                [parameter.name.upper()] if isinstance(parameter, TyperArgument) else [*parameter.opts, *parameter.secondary_opts]
            )
            name = ", ".join(f"`{each}`" for each in names)
            yield f"| {name} | {_value(parameter)} | {_default(parameter)} | {parameter.help or ''} |\n"


def _usage(path: tuple[str, ...], command: Any) -> str:
    options = [each for each in command.params if isinstance(each, TyperOption) and not each.hidden]
    required = [f"{each.opts[0]} {each.name.upper()}" for each in options if each.required]
    arguments = [each.name.upper() for each in command.params if isinstance(each, TyperArgument)]
    optional = any(not each.required for each in options)
    return " ".join(["guerdon", *path, *required, *arguments, *(["[OPTIONS]"] if optional else [])])


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", (command.help or "").partition("\f")[0].strip())]


def _summary(command: Any) -> str:
    """Return the first sentence of the help."""
    return re.split(r"(?<=\.) ", _paragraphs(command)[0])[0]


def _section(path: tuple[str, ...], command: Any) -> str:
    """Return what one command does, its usage, its parameters and its exit codes.

    Raises:
        ValueError: the command or one of its options has no help.
    """
    told = [part for part in _paragraphs(command) if not _EXIT.fullmatch(part)]
    rows = list(_rows(command))
    if not told[0] or any(row.endswith("|  |\n") for row in rows):
        raise ValueError(f"guerdon {' '.join(path)}: the command and each of its parameters need a help text")
    lines = [f"## guerdon {' '.join(path)}\n\n", "\n\n".join(told), f"\n\n```text\n{_usage(path, command)}\n```\n\n"]
    if rows:
        lines += ["| parameter | value | default | meaning |\n|---|---|---|---|\n", *rows, "\n"]
    codes = [match.groups() for part in _paragraphs(command) if (match := _EXIT.fullmatch(part))]
    if codes:
        lines += [
            "| exit code | meaning |\n|---|---|\n",
            *(f"| {code} | {reason[0].upper()}{reason[1:]} |\n" for code, reason in codes),
            "\n",
        ]
    return "".join(lines)


def current() -> str:
    """Return the page as the code is now."""
    commands = list(_commands(typer.main.get_command(app), ()))
    links = [f"| [`guerdon {' '.join(path)}`](#guerdon-{'-'.join(path)}) | {_summary(command)} |\n" for path, command in commands]
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    page = [
        _HEAD,
        "| command | meaning |\n|---|---|\n",
        *links,
        "\n## Exit codes\n\nThese codes apply to every command. The section of a command states what 1 and 3 mean for it.\n\n| exit code | meaning |\n|---|---|\n",
        codes,
        "\n",
        *(_section(path, command) for path, command in commands),
    ]
    return "".join(page).rstrip("\n") + "\n"


if __name__ == "__main__":
    PATH.write_text(current(), encoding="utf-8")
