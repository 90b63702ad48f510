"""`guerdon` commands run inside this process, which saves the second that a new interpreter needs to import everything.

Each command is also run once as a real process, by `tests.invariants.retail.guerdon`.
"""

import asyncio
import contextlib
import io
import os
import sys
import threading
from unittest import mock

from guerdon.cli.main import main
from tests.invariants.retail import Run, environment

_ALONE = threading.Lock()
"""Arguments, environment and outputs belong to the whole process."""


def run_here(*arguments: str, **more: str) -> Run:
    """Run a command to its end; `more` are environment variables. Not from within a running event loop."""
    out, err = io.StringIO(), io.StringIO()
    with (
        _ALONE,
        mock.patch.dict(os.environ, environment(**more), clear=True),
        mock.patch.object(sys, "argv", ["guerdon", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return Run(status, out.getvalue(), err.getvalue())


async def guerdon_here(*arguments: str, **more: str) -> Run:
    """Run a command in a thread with an event loop of its own."""
    return await asyncio.to_thread(run_here, *arguments, **more)
