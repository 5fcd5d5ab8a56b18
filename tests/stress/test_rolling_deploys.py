"""A rolling deploy with processes that are killed: v1, then v1 and v2, then v2 that carries over what is left."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest

from streamline import Streamline
from tests.stress import ledger as ledgers
from tests.stress.deploys import ANSWERED, BEHIND, KIN, KINDS, TIMED
from tests.stress.evidence import Evidence, Runs, gather
from tests.stress.fleet import Fleet
from tests.stress.ledger import Ledger
from tests.stress.reaper import Reaper
from tests.stress.target import Opening
from tests.waiting import eventually

GROWN = ("grown", "grown", "1.0.0")
OLD, NEW, CARRYING = (
    ("deployed", "deployed", "1.0.0"), ("deployed", "deployed", "2.0.0"), ("migrating", "deployed", "2.0.0"),
)  # fmt: skip
NOT_BEGUN = ("later", "paused", *BEHIND)
WORKER = {"lease": "800ms", "poll_interval": "200ms", "concurrency": 20, "max_recoveries": 1000}


class Deploy:
    """The processes of a deploy, and an app that starts runs and answers them."""

    def __init__(self, fleet: Fleet, runs: Runs, dice: random.Random, opening: Opening) -> None:
        self.fleet, self.runs, self.dice, self.opening = fleet, runs, dice, opening
        self.deaths = 0

    def opened(self, *flows: tuple[str, str, str]) -> Opening:
        return replace(self.opening, flows=(*flows, GROWN))

    def crew(self, flow: tuple[str, str, str], called: str, size: int) -> Reaper:
        how = asdict(replace(self.opened(flow), worker=WORKER))
        return Reaper(self.fleet, self.dice, {"opening": how}, size=size, called=called)

    async def start(self, flow: tuple[str, str, str], phase: str, size: int, seconds: float) -> None:
        ledger = Ledger(self.opening.ledger, f"starting-{phase}")
        async with self.opened(flow).app(ledger) as app:
            for i in range(size):
                for kind in KINDS:
                    run_id = f"{phase}-{kind}-{i}"
                    line = run_id.replace("-queued-", "-slot-")
                    value = {"kind": kind, "seconds": seconds, "line": line}
                    delay = seconds if kind == "later" else None
                    await app.start("deployed", value, run_id=run_id, delay=delay)
                    if kind == "paused":
                        await app.pause(run_id)
        ledger.close()

    def strike(self, *crews: Reaper, times: int) -> None:
        for _ in range(times):
            for crew in crews:
                crew.strike()
                self.deaths += 1
            time.sleep(self.dice.uniform(0.1, 0.3))

    def parked(self, phase: str, size: int) -> bool:
        """Whether all runs of a phase that wait for somebody do."""
        kinds = [kind for kind in (*ANSWERED, *KIN) if kind != "paused"]
        waiting = {"_id": {"$regex": f"^{phase}-({'|'.join(kinds)})-"}, "steps.1.waits.0": {"$exists": True}}
        return self.runs.count(**waiting) == size * len(kinds)

    async def done(self, phase: str, kinds: Sequence[str], size: int) -> None:
        """Wait until all runs of these kinds are done; fail with what is stuck."""
        these = {"workflow": "deployed", "_id": {"$regex": f"^{phase}-({'|'.join(kinds)})-"}}
        try:
            await eventually(lambda: self.runs.count(**these, status="done") == size * len(kinds), within=90)
        except AssertionError:
            stuck = list(self.runs.documents(**these, status={"$ne": "done"}).values())
            raise AssertionError(f"{len(stuck)} are not done: {stuck[:3]}") from None


async def answer(rolled: Deploy, app: Streamline, phase: str, numbers: Sequence[int]) -> None:
    """Answer what runs of a phase wait for."""
    found = ledgers.pick(ledgers.read(rolled.fleet.ledger_path), "token")
    tokens = {entry["run"]: entry["token"] for entry in found}
    for i in numbers:
        for kind in ("wait", "each", "slot"):
            await app.resume(f"{phase}-{kind}-{i}", 1)
        await app.send_event("go", run_id=f"{phase}-event-{i}")
        await app.resume_hook(tokens[f"{phase}-hook-{i}"], 1)
        await app.approve(f"{phase}-approval-{i}")
        await app.answer(f"{phase}-question-{i}", 1)
        await app.unpause(f"{phase}-paused-{i}")
        parents = [f"{phase}-child-{i}", f"{phase}-join-{i}"]
        children = rolled.runs.documents(**{"parent.run_id": {"$in": parents}})
        assert len(children) == 3
        for child in children:
            await app.resume(child, 1)
    for i in numbers:
        await eventually(lambda i=i: rolled.runs.count(_id=f"{phase}-paused-{i}", status="waiting"), within=60)  # type: ignore[misc]
        await app.resume(f"{phase}-paused-{i}", 1)


async def deploy(rolled: Deploy, *, size: int, strikes: int, long: float) -> Evidence:
    """Roll a deploy; return what is known of it afterwards."""
    fleet, runs = rolled.fleet, rolled.runs
    asking = Ledger(rolled.opening.ledger, "asking")
    early, late = range(size // 2), range(size // 2, size)
    # v1 alone.
    await rolled.start(OLD, "one", size, seconds=1.0)
    await rolled.start(OLD, "long", size, seconds=long)
    old = rolled.crew(OLD, "old", 2)
    rolled.strike(old, times=strikes)
    for phase in ("one", "long"):
        await eventually(lambda phase=phase: rolled.parked(phase, size), within=60)  # type: ignore[misc]
    # v1 and v2 side by side: each keeps to its own.
    new = rolled.crew(NEW, "new", 2)
    await rolled.start(NEW, "two", size, seconds=1.0)
    async with rolled.opened().app(asking) as app:
        rolled.strike(old, new, times=strikes)
        await answer(rolled, app, "one", early)
        rolled.strike(old, new, times=strikes)
        await eventually(lambda: rolled.parked("two", size), within=60)
        await answer(rolled, app, "two", range(size))
        await rolled.done("two", KINDS, size)
        await rolled.done("one", TIMED, size)
        # v2 alone, and it carries over; the last of v1 dies at work.
        for name in (*old.alive, *new.alive):
            fleet.kill(name)
        fleet.note("v1 has ended")
        carrying = rolled.crew(CARRYING, "carrying", 3)
        rolled.strike(carrying, times=strikes)
        await answer(rolled, app, "one", late)
        await answer(rolled, app, "long", range(size))
        rolled.strike(carrying, times=strikes)
        open_ = {"status": {"$nin": ["done"]}}
        await eventually(lambda: runs.count(**open_) == 0, within=180, every=0.2)
        versions = {(info.workflow, info.version): info.live for info in await app.versions()}
        assert versions["deployed", "1.0.0"] == 0
    asking.close()
    return gather(runs, fleet.ledger_path)


def check(evidence: Evidence, size: int) -> Counter[str]:
    """Each run was driven by its own version's code, until it was carried over, once; return how many were."""
    carried: Counter[str] = Counter()
    for run_id, run in evidence.documents.items():
        if run["workflow"] != "deployed":
            continue
        phase, kind, _ = run_id.split("-")
        born = "2.0.0" if phase == "two" else "1.0.0"
        entered = [entry["version"] for entry in evidence.of(run_id, "enter")]
        assert entered == sorted(entered), f"{run_id}: older code after newer: {entered}"
        told = [event["type"] for event in run["events"]].count("run.migrated")
        assert told == (run["version"] != born), run_id
        carried[kind] += told
        # What had not begun when it was carried over was begun by the newer code.
        begun = entered[0] if told and kind in NOT_BEGUN else born
        assert set(entered) == {begun, run["version"]}, run_id
        assert run["output"] == {"before": begun, "after": run["version"]}, run_id
        assert {entry["version"] for entry in evidence.of(run_id, "enter", step="before")} == {begun}, run_id
    for kind in (*ANSWERED, *KIN, *BEHIND):
        assert carried[kind] == size + len(range(size // 2, size)), kind
    return carried


@pytest.fixture
def rolled(fleet: Fleet, runs: Runs, dice: random.Random, mongo_uri: str, database_name: str) -> Deploy:
    return Deploy(fleet, runs, dice, Opening(mongo_uri, database_name, str(fleet.ledger_path)))


async def test_a_deploy_loses_nothing_and_mixes_nothing(rolled: Deploy) -> None:
    check(await deploy(rolled, size=2, strikes=1, long=5.0), 2)


@pytest.mark.stress
@pytest.mark.timeout(900)
async def test_a_deploy_of_many_runs_under_kills(rolled: Deploy) -> None:
    carried = check(await deploy(rolled, size=20, strikes=12, long=60.0), 20)
    assert rolled.deaths >= 60
    assert all(carried[kind] for kind in TIMED)
