"""The database is killed with SIGKILL under load and comes back: what was acknowledged is there, and work goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from streamline.embedded import EmbeddedServer
from tests.stress import checker
from tests.stress.deadline import until
from tests.stress.evidence import Runs, gather, runs_of
from tests.stress.fleet import Fleet
from tests.stress.starter_process import asking
from tests.stress.target import Opening

WORKER = {"lease": "2s", "concurrency": 20, "poll_interval": "500ms", "max_recoveries": 1000}
AWAKE = 6.0  # seconds within which idle workers must have noticed that the database is back


class Server:
    """An embedded server of the test's own, driven without an event loop."""

    def __init__(self, path: Path) -> None:
        self._server = EmbeddedServer(path)
        self.uri = asyncio.run(self._server.start())

    def kill(self) -> None:
        asyncio.run(self._server.kill())

    def start(self) -> None:
        asyncio.run(self._server.start())

    def stop(self) -> None:
        asyncio.run(self._server.stop())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def runs(server: Server) -> Iterator[Runs]:
    with runs_of(server.uri, "killed") as found:
        yield found


@pytest.fixture
def opening(server: Server, fleet: Fleet) -> Opening:
    return Opening(server.uri, "killed", str(fleet.ledger_path), settings={"patience": "4s"})


def load(fleet: Fleet, opening: Opening, *, n: int, over: float) -> None:
    """Begin two workers, and two starters for `n` runs over so many seconds, of which one works as well."""
    work = {**asdict(opening), "worker": WORKER}
    fleet.spawn("worker1", opening=work)
    fleet.spawn("worker2", opening=work)
    numbers = [{"n": i, "pace": 0.05} for i in range(n)]
    for name, mine, how in (("queueing", numbers[::2], asdict(opening)), ("claiming", numbers[1::2], work)):
        fleet.spawn(role="starter", **asking(how, name, mine, every=over / len(mine)))
    until(lambda: len(gather_starts(fleet)) >= 4, within=20, what="the load")


def gather_starts(fleet: Fleet) -> list[dict[str, Any]]:
    from tests.stress.ledger import pick, read

    return list(pick(read(fleet.ledger_path), "started"))


def end(fleet: Fleet, runs: Runs) -> None:
    """Wait until every start is answered and every run has ended, and check all of it."""
    assert fleet.wait("queueing", within=60) == 0
    assert fleet.wait("claiming", within=60) == 0
    runs.until_ended(len(runs.documents()), within=60)
    evidence = gather(runs, fleet.ledger_path)
    assert not checker.violations(evidence)
    refused = evidence.all("refused")
    assert {entry["error"] for entry in refused} <= {"StoreUnavailable"}
    assert len(evidence.documents) >= len(evidence.all("asking")) - len(refused)


def acknowledged_since(fleet: Fleet, instant: float) -> bool:
    """Return whether a worker has completed a step since a monotonic instant."""
    from tests.stress.ledger import pick, read

    told = pick(read(fleet.ledger_path), "acknowledged", type="step.done")
    return any(entry["at"] / 1e9 > instant for entry in told)


def crash(server: Server, fleet: Fleet, *, down: float) -> None:
    """Kill the server, start it again after a while, and see that workers notice."""
    fleet.note("server killed")
    server.kill()
    time.sleep(down)  # what is tested is an outage of this length
    server.start()
    back = time.monotonic()
    fleet.note("server back")
    until(lambda: acknowledged_since(fleet, back), within=AWAKE, what="a step completed after the outage")


@pytest.mark.slow
def test_the_server_is_killed_under_load(server: Server, fleet: Fleet, runs: Runs, opening: Opening) -> None:
    load(fleet, opening, n=80, over=5.0)
    for _ in range(2):
        crash(server, fleet, down=0.0)
    end(fleet, runs)


@pytest.mark.slow
def test_workers_resume_after_an_outage(server: Server, fleet: Fleet, runs: Runs, opening: Opening) -> None:
    load(fleet, opening, n=30, over=12.0)
    crash(server, fleet, down=8.0)
    end(fleet, runs)
    (refused,) = {entry["error"] for entry in gather(runs, fleet.ledger_path).all("refused")}
    assert refused == "StoreUnavailable"


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_workers_resume_after_a_minute(server: Server, fleet: Fleet, runs: Runs, opening: Opening) -> None:
    load(fleet, opening, n=160, over=80.0)
    crash(server, fleet, down=60.0)
    end(fleet, runs)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_the_server_is_killed_many_times(server: Server, fleet: Fleet, runs: Runs, opening: Opening, dice: Any) -> None:
    load(fleet, opening, n=600, over=60.0)
    for _ in range(20):
        crash(server, fleet, down=dice.uniform(0.0, 1.0))
    end(fleet, runs)
