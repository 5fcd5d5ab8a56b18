"""Say how the mongod is set up."""

from __future__ import annotations

import sys
from pathlib import Path

from streamline.embedded import logfile
from streamline.embedded.replica import SET_NAME


def command_line(binary: Path, directory: Path, port: int) -> list[str]:
    """Return the command of a small, quiet, loopback-only replica set member.

    A cache of half of that would refuse documents of 16 MB. Small journal files keep an empty server at 50 MB of disk
    instead of 300.
    """
    options = {
        "dbpath": str(directory),
        "logpath": str(directory / logfile.NAME),
        "bind_ip": "127.0.0.1",
        "port": str(port),
        "replSet": SET_NAME,
        "oplogSize": "256",
        "wiredTigerCacheSizeGB": "0.5",
        "wiredTigerEngineConfigString": "log=(file_max=16MB)",
        "setParameter": "diagnosticDataCollectionEnabled=false",
    }
    flags = ["--quiet", "--logappend", *(["--nounixsocket"] if sys.platform != "win32" else [])]
    return [str(binary), *flags, *(part for name, value in options.items() for part in (f"--{name}", value))]
