"""The processes of the kill tests of durable calls: workers, whoever starts runs, and whoever answers them;
and the worker beside many parked runs.

``python -m tests.stress.primitive_process <pid of the test>`` is a nursery that knows these roles and workflows.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

from streamline import Streamline, Wait
from streamline.errors import AlreadyFinished, HookNotFound, NotWaiting, RunNotFound
from tests.stress.flows import FLOWS
from tests.stress.ledger import Ledger
from tests.stress.nursery import ROLES, main
from tests.stress.primitive_evidence import unit_of
from tests.stress.primitive_flows import childhood, nonce_of
from tests.stress.primitive_sagas import PRIMITIVES
from tests.stress.sleepers import dormitory
from tests.stress.target import Opening, tell_log
from tests.stress.write_crasher import live_until_a_write

_PAUSE = 0.05
_ACTIVE = ["draft", "running", "waiting", "compensating"]


def launch(options: dict[str, Any]) -> None:
    """Start runs, ``[workflow, n]`` each, one every so many seconds; the id of a run is ``<workflow>-<n>``."""
    asyncio.run(_launch(options))


def answer(options: dict[str, Any]) -> None:
    """Answer everything that runs ask, until killed; several may, and then race."""
    asyncio.run(_answer(options))


def meddle(options: dict[str, Any]) -> None:
    """Pause runs, and let them go on soon after, until killed."""
    asyncio.run(_meddle(options))


async def _launch(options: dict[str, Any]) -> None:
    opening = Opening(**options["opening"])
    ledger = Ledger(opening.ledger, options["name"])
    tell_log(ledger)
    async with opening.app(ledger) as app:
        for workflow, n in options["wanted"]:
            # Of quick runs many a write is in flight at any instant, of slow ones many a call.
            pace = options["pace"] * (0.1 if n % 2 else 1.0)
            handle = await app.start(workflow, {"n": n, "pace": pace}, run_id=f"{workflow}-{n}")
            ledger.write("started", run=handle.id, workflow=workflow)
            await asyncio.sleep(options["every"])
    ledger.write("finished")


async def _answer(options: dict[str, Any]) -> None:
    opening = Opening(**options["opening"])
    ledger = Ledger(opening.ledger, options["name"])
    tell_log(ledger)
    tokens = Tokens(Path(opening.ledger))
    async with opening.app(ledger) as app:
        while True:
            for wait in await app.pending_waits(limit=1000):
                if not (wait.reason or "").startswith("nobody"):
                    await _answer_wait(app, ledger, wait)
            for run_id, key, token in tokens.news():
                nonce = nonce_of(run_id, f"answer/{key}")
                await _try(ledger, nonce, app.resume_hook(token, {"nonce": nonce}))
            await asyncio.sleep(_PAUSE)


async def _meddle(options: dict[str, Any]) -> None:
    opening = Opening(**options["opening"])
    ledger = Ledger(opening.ledger, options["name"])
    tell_log(ledger)
    async with opening.app(ledger) as app:
        while True:
            found = [run.id for run in (await app.runs(status=_ACTIVE, limit=100)).items]
            for run_id in random.sample(found, min(3, len(found))):
                await _hold(app, ledger, run_id)
            await asyncio.sleep(_PAUSE)


async def _hold(app: Streamline, ledger: Ledger, run_id: str) -> None:
    ledger.write("pausing", run=run_id)
    with suppress(AlreadyFinished):
        await app.pause(run_id, by="meddler")
        await asyncio.sleep(random.uniform(0.0, 0.2))
        await app.unpause(run_id)


async def _answer_wait(app: Streamline, ledger: Ledger, wait: Wait) -> None:
    nonce = nonce_of(wait.run_id, f"answer/{wait.step}/{wait.key}")
    data = {"nonce": nonce}
    match wait.kind:
        case "wait":
            await _try(ledger, nonce, app.resume(wait.run_id, data, key=wait.key))
        case "question":
            await _try(ledger, nonce, app.answer(wait.run_id, data, key=wait.key))
        case "approval":
            await _try(ledger, nonce, app.approve(wait.run_id, data, by="boss", key=wait.key))
        case "event":
            ledger.write("did", run=wait.run_id, nonce=nonce, event=True)
            await _try(ledger, nonce, app.send_event(str(wait.name), data, run_id=wait.run_id), "sent")


async def _try(ledger: Ledger, nonce: str, answering: Awaitable[Any], what: str = "answered") -> None:
    run_id = unit_of(nonce)[0]
    ledger.write("answering", run=run_id, nonce=nonce)
    try:
        await answering
    except (NotWaiting, HookNotFound, RunNotFound) as error:
        ledger.write("beaten", run=run_id, nonce=nonce, error=type(error).__name__)
    else:
        ledger.write(what, run=run_id, nonce=nonce)


class Tokens:
    """The tokens that handlers gave away, read from the ledger as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: set[str] = set()
        self._read = 0

    def news(self) -> list[tuple[str, str, str]]:
        """Return run, key and token of what is new."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        fresh = []
        for entry in map(json.loads, whole.splitlines()):
            if entry["what"] == "token" and entry["token"] not in self._seen:
                self._seen.add(entry["token"])
                fresh.append((entry["run"], entry["key"], entry["token"]))
        return fresh


if __name__ == "__main__":
    FLOWS.update({**PRIMITIVES, "childhood": childhood, "dormitory": dormitory})
    ROLES.update({"launcher": launch, "answerer": answer, "meddler": meddle, "victim": live_until_a_write})
    main(int(sys.argv[1]))
