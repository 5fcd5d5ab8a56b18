"""``python -m benchmarks``: measure, print, write, and fail under a floor."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.sizes import FULL, SMOKE
from benchmarks.stage import Stage, open_stage
from benchmarks.table import render, summary, write
from benchmarks.workloads import WORKLOADS

BROKEN = "MALFUNCTION"
_FLOOR_MISSED, _BROKEN = 1, 2


def main() -> int:
    """Measure what the command line asks for and return the exit code."""
    options = _options()
    began, load = time.monotonic(), os.getloadavg()
    rows, server = asyncio.run(_measure(options))
    if options.smoke:
        rows = [replace(row, goal=None) for row in rows]
    print(f"\n{render(rows)}\n\n{summary(rows)}; {time.monotonic() - began:.0f} s, server {server}")
    circumstances = {"smoke": options.smoke, "rounds": options.rounds, "server": server}
    write(options.json, rows, **circumstances, load_before=load, load_after=os.getloadavg())
    verdicts = {row.verdict for row in rows}
    return _BROKEN if BROKEN in verdicts else _FLOOR_MISSED if "FLOOR MISSED" in verdicts else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="everything once, small, without goals")
    parser.add_argument("--only", type=_names, default=list(WORKLOADS), help="such as W1,W5", metavar="NAMES")
    parser.add_argument("--rounds", type=int, help="how often everything is repeated; medians count (default 3)")
    parser.add_argument("--uri", help="a replica set to measure on, instead of an embedded server")
    parser.add_argument("--million", action="store_true", help="W8, W9 and W12 with a million runs, too")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_name("results.json"), metavar="FILE")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.smoke else 3)
    return options


def _names(text: str) -> list[str]:
    known = {name.lower(): name for name in WORKLOADS}
    names = [name.strip().lower() for name in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(WORKLOADS)}")
    return [known[name] for name in names]


async def _measure(options: argparse.Namespace) -> tuple[list[Row], str]:
    sizes = SMOKE if options.smoke else FULL
    async with open_stage(options.uri, sizes, options.rounds, millions=options.million) as stage:
        version = (await stage.client.server_info())["version"]
        return await _measure_all(stage, options.only), version


async def _measure_all(stage: Stage, names: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            async with asyncio.timeout(stage.sizes.patience):
                rows += await WORKLOADS[name](stage)
        except Exception as error:  # noqa: BLE001 - the other workloads are still worth measuring
            traceback.print_exc()
            rows.append(Row(name, f"{type(error).__name__}: {error}"[:100], "-", note=BROKEN))
    return rows


if __name__ == "__main__":
    sys.exit(main())
