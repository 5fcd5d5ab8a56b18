"""Answers from several processes at once, and from processes that are killed at the very write."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from streamline import Workflow
from tests.integration.test_answer_races import KINDS, Asking
from tests.waiting import status_of

PROCESSES = """
import asyncio, json, os, sys
from streamline import Streamline
from streamline.errors import StreamlineError
from tests.stress.saboteur import Saboteur, die

async def one(uri, database, order, *tenant):
    async with Streamline(uri, database=database, worker=False) as app:
        verbs = app.tenant(*tenant) if tenant else app
        if order["moment"]:
            Saboteur(app, order["moment"], 1, die)
        for call in order["calls"]:
            try:
                await getattr(verbs, call["verb"])(*call["arguments"], **call.get("options", {}))
            except StreamlineError as error:
                pass
            else:
                os.write(1, (json.dumps([order["name"], call["arguments"][0]]) + "\\n").encode())
        await asyncio.sleep(0.05)

uri, database, orders, *tenant = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), *sys.argv[4:]
for order in orders:
    if os.fork() == 0:
        asyncio.run(one(uri, database, order, *tenant))
        os._exit(0)
codes = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in orders)
os.write(1, (json.dumps({"codes": codes}) + "\\n").encode())
"""


async def processes(
    uri: str, database: str, tenant_id: str | None, orders: list[dict[str, Any]]
) -> tuple[list[list[str]], list[int]]:
    """Run one process for each order; return which calls succeeded, and how the processes ended."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROCESSES,
        uri,
        database,
        json.dumps(orders),
        *([] if tenant_id is None else [tenant_id]),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ,
        cwd=Path(__file__).parents[2],
    )
    said, _ = await asyncio.wait_for(started.communicate(), 90)
    *lines, last = [json.loads(line) for line in said.splitlines()]
    return lines, last["codes"]


@pytest.mark.slow
async def test_of_several_processes_one_wins_each_wait(
    make_app: Any, mongo_uri: str, database_name: str, tenant_id: str | None
) -> None:
    asking = Asking(timeout=None)
    async with make_app(asking.workflow) as app:
        handles = await app.start_many(asking.workflow, [None] * 15)
        await asyncio.gather(*(status_of(handle, "waiting") for handle in handles))
        ids = [handle.id for handle in handles]
        orders = [
            {
                "name": name,
                "moment": "",
                "calls": [{"verb": "resume", "arguments": [run_id, name]} for run_id in ids],
            }
            for name in ("p", "q", "r", "s")
        ]
        won, codes = await processes(mongo_uri, database_name, tenant_id, orders)
        outputs = await asyncio.gather(*(handle.result("20s") for handle in handles))
    assert codes == [0] * 4
    assert sorted(run_id for _, run_id in won) == sorted(ids), "each wait was won once"
    assert {run_id: name for name, run_id in won} == dict(zip(ids, outputs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "applied", "after"])
async def test_an_answer_whose_process_is_killed_at_its_write_is_given_or_not(
    make_app: Any, runs: Any, mongo_uri: str, database_name: str, tenant_id: str | None, moment: str
) -> None:
    flows = {kind: Asking(kind) for kind in KINDS}
    for kind, asking in flows.items():
        asking.workflow = asking_named(kind, asking)
    async with make_app(*(asking.workflow for asking in flows.values())) as app:
        ids = {kind: (await app.start(asking.workflow)).id for kind, asking in flows.items()}
        await asyncio.gather(*(status_of(app.handle(run_id), "waiting") for run_id in ids.values()))
        verbs = {"wait": "resume", "hook": "resume_hook", "question": "answer"}
        orders = []
        for kind, asking in flows.items():
            whom = asking.tokens[ids[kind]] if kind in ("hook", "approval by token") else ids[kind]
            call = {"verb": verbs.get(kind, "approve"), "arguments": [whom, "killed"]}
            orders.append({"name": kind, "moment": moment, "calls": [call]})
        _, codes = await processes(mongo_uri, database_name, tenant_id, orders)
        assert codes == [-9] * len(KINDS)
        for kind, asking in flows.items():
            assert await asking.answer(app, ids[kind], "second") is (moment == "before")
            expected = "second" if moment == "before" else "killed"
            assert await app.handle(ids[kind]).result("20s") == expected, kind
            events = (await runs.find_one({"_id": ids[kind]}))["events"]
            assert [event["type"] for event in events].count("wait.answered") == 1


def asking_named(kind: str, asking: Asking) -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow(kind.replace(" ", "-"))
    wf.step(id="work")(asking._ask)
    return wf
