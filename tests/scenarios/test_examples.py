"""Every example runs, as its docstring says."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TESTED = {
    "crawl.py",  # test_crawl_after_a_kill.py
    "expense_approval.py",
    "fastapi_app.py",
    "hello.py",
    "ledger_transfer.py",
    "newsletter.py",
    "nightly_report.py",
    "order_saga.py",
    "orders/fulfil.py",
    "orders/payments.py",
    "otp_agent.py",
    "rate_limited_api.py",
    "search_reindex.py",
    "user_lifecycle.py",
    "webhook/provider.py",
    "webhook/sender.py",
    "webhook/shop.py",
}
ENOUGH_HOURS = 0.5 / 3600


@pytest.fixture
def database_uri(mongo_uri: str, database_name: str, client: Any) -> str:
    """The server under test with the test's database, which `client` drops."""
    return urlunsplit(urlsplit(mongo_uri)._replace(path=f"/{database_name}"))


def run_example(name: str, uri: str | None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "MONGODB_URI"}
    if uri is not None:
        environment["MONGODB_URI"] = uri
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    return done.stdout


def test_no_example_is_left_out() -> None:
    assert {str(path.relative_to(EXAMPLES).as_posix()) for path in EXAMPLES.rglob("*.py")} == TESTED


def test_hello_on_a_private_server() -> None:
    assert run_example("hello.py", None) == "Hello, world!\n"


def test_hello_is_small() -> None:
    assert len((EXAMPLES / "hello.py").read_text(encoding="utf-8").splitlines()) < 40


def test_orders(database_uri: str) -> None:
    lines = run_example("orders/fulfil.py", database_uri).splitlines()
    assert [line for line in lines if "refused" in line] == [
        "line 4 refused: input.amount: Input should be greater than or equal to 1",
        "line 7 refused: input.currency: Input should be 'EUR', 'GBP' or 'USD'",
    ]
    assert sum("set aside for SO-10" in line for line in lines) == 10
    assert lines[-1].startswith("10 orders done, 10 charges, ")


def runs_of(database: Any) -> Any:
    return database["streamline.runs"]


async def test_a_saga_gives_back_what_it_took(database_uri: str, database: Any) -> None:
    lines = run_example("order_saga.py", database_uri).splitlines()
    assert lines == [
        "A-1 done: parcel to Norway, paid by booking-1",
        "A-2 compensated: no carrier goes to Atlantis",
        "bookings: [30, 50, -50], reserved: ['A-1']",
    ]
    stored = await runs_of(database).find_one({"_id": "A-2"})
    undone = {step["id"]: step.get("compensation", {}).get("status") for step in stored["steps"]}
    assert undone == {"reserve": "done", "charge": "done", "ship": None}
    order = [event["step"] for event in stored["events"] if event["type"] == "step.compensated"]
    assert order == ["charge", "reserve"]  # the last one first


async def test_an_approval_reminds_and_times_out(database_uri: str, database: Any) -> None:
    lines = run_example("expense_approval.py", database_uri).splitlines()
    mails = [line.removeprefix("mail to boss: ") for line in lines if line.startswith("mail")]
    for title in ("chair", "yacht"):
        asked, *reminders = (mail for mail in mails if title in mail)
        assert asked == f"please decide: {title}"
        assert reminders == [f"reminder {n}: {title}" for n in range(1, len(reminders) + 1)]
        assert 1 <= len(reminders) <= 2
    assert [line for line in lines if not line.startswith("mail")] == [
        "chair is paid, as boss says",
        "yacht is not paid: timed_out",
    ]
    assert await runs_of(database).count_documents({"status": "done"}) == 2
    assert await runs_of(database).count_documents({"waiting_since": {"$exists": True}}) == 0


async def test_a_webhook_pays_an_order_once(database_uri: str, database: Any) -> None:
    lines = run_example("webhook/shop.py", database_uri).splitlines()
    assert lines[0] == "payment of 42 begun"
    assert sorted(lines[1:]) == [
        "a stranger's guess is answered 404 hook.not_found",
        "shipped, 42 paid",
        "webhook answered 200 thanks",
        "webhook answered 404 hook.not_found",
    ]
    stored = await runs_of(database).find_one({})
    assert stored["steps"][0]["output"] == {"status": "paid", "amount": 42}


async def test_webhooks_tell_a_customer_of_an_order(database_uri: str, database: Any) -> None:
    lines = run_example("webhook/sender.py", database_uri).splitlines()
    assert lines == ["customer is told: order.paid", "customer is told: run.done", "failures since the last success: 0"]
    assert await database["streamline.subscribers"].count_documents({}) == 0


async def test_an_agent_asks_for_a_code_three_turns_in_a_row(database_uri: str, database: Any) -> None:
    lines = run_example("otp_agent.py", database_uri).splitlines()
    assert lines == [
        "bank sends a code",
        "Code of bank? That was too short.",
        "mail sends a code",
        "Code of mail? That was too short.",
        "tax sends a code",
        "Code of tax? That was too short.",
        "{'bank': 10, 'mail': 20, 'tax': 30}",
    ]
    stored = await runs_of(database).find_one({})
    assert (stored["status"], stored["output"]) == ("done", {"bank": 10, "mail": 20, "tax": 30})


async def test_a_parent_waits_for_50_children(database_uri: str, database: Any) -> None:
    lines = run_example("newsletter.py", database_uri).splitlines()
    assert lines[0] == "sent=49 bounced=['reader-13']"
    parent = await runs_of(database).find_one({"workflow": "newsletter"})
    children = await runs_of(database).find({"parent.run_id": parent["_id"]}).to_list(None)
    assert len(children) == 50
    assert len({child["input"]["to"] for child in children}) == 50
    assert sum(child["status"] == "done" for child in children) == 49
    # Parked while they were at work: it was entered again once they had ended, not once for each.
    assert sum(event["type"] == "step.resumed" for event in parent["events"]) <= 5


async def test_a_report_is_written_each_night(database_uri: str, database: Any) -> None:
    lines = run_example("nightly_report.py", database_uri).splitlines()
    assert lines[:3] == [
        "Sat 27 Mar 02:30 is 01:30 UTC ",
        "Sun 28 Mar 02:30 is 01:30 UTC gap",
        "Mon 29 Mar 02:30 is 00:30 UTC ",
    ]
    assert lines[3:] == ["sales", *["quick-report"] * 3]
    found = await runs_of(database).find({"schedule_id": "quick-report"}).sort("scheduled_at").to_list(None)
    assert [(later["scheduled_at"] - run["scheduled_at"]).total_seconds() for run, later in pairwise(found)] == [1, 1]


async def test_a_transfer_is_all_or_nothing(database_uri: str, database: Any) -> None:
    lines = run_example("ledger_transfer.py", database_uri).splitlines()
    assert lines == [
        "ann -> bob: 30, confirmed",
        "bob -> cat: 50, confirmed",
        "refused: cat has not got 500",
        "refused: there is no dan",
        "cat -> ann: 20, confirmed",
        "{'ann': 90, 'bob': 80, 'cat': 130} sum 300 entries 3",
    ]
    retried = await runs_of(database).find_one({"input.target": "cat"})
    assert retried["steps"][0]["attempt"] == 2
    done = {run["_id"] async for run in runs_of(database).find({"status": "done"})}
    assert {entry["run"] async for entry in database["ledger"].find()} == done


async def test_an_api_is_called_within_its_limits(database_uri: str, database: Any) -> None:
    lines = run_example("rate_limited_api.py", database_uri).splitlines()
    assert lines[-2:] == [
        "hello ann: 10, hello ben: 4, hello cid: 4",
        "at most 2 at once for a customer, 0 refused",
    ]
    stored = await runs_of(database).find({}).to_list(None)
    assert all(run["steps"][0]["attempt"] == 1 and "slot" not in run for run in stored)
    begun = sorted(run["started_at"] for run in stored)
    windows = [sixth - first for first, sixth in zip(begun, begun[5:], strict=False)]
    assert min(windows) >= timedelta(seconds=1)


async def test_an_index_follows_edits_without_a_run_for_each(database_uri: str, database: Any) -> None:
    wiki, news, end = run_example("search_reindex.py", database_uri).splitlines()
    assert wiki == "wiki: 1 runs, up to revision 4"
    assert re.fullmatch(r"news: [2-9] runs, up to revision 59", news)
    assert end == "the index is up to date"
    stored = await runs_of(database).find({}).to_list(None)
    assert {run["status"] for run in stored} == {"done"}
    for collection, revision in (("wiki", 4), ("news", 59)):
        inputs = [run["input"]["revision"] for run in stored if run["input"]["collection"] == collection]
        assert max(inputs) == revision


@pytest.fixture
async def orders_api(database_uri: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    monkeypatch.setenv("MONGODB_URI", database_uri)
    spec = importlib.util.spec_from_file_location("fastapi_app", EXAMPLES / "fastapi_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fastapi_app", module)  # annotations are looked up there
    spec.loader.exec_module(module)
    transport = httpx.ASGITransport(module.api)
    async with (
        module.api.router.lifespan_context(module.api),
        httpx.AsyncClient(transport=transport, base_url="http://api") as http,
    ):
        yield http


async def test_fastapi_from_start_to_end(orders_api: httpx.AsyncClient) -> None:
    order = {"order_id": "7", "amount": 5, "delivery_hours": ENOUGH_HOURS}
    started = await orders_api.post("/orders", json=order)
    again = await orders_api.post("/orders", json=order)
    assert (started.status_code, started.json()["created"]) == (202, True)
    assert again.json() == {**started.json(), "created": False}
    path = f"/orders/{started.json()['run_id']}"
    streamed = await orders_api.get(f"{path}/events")  # ends when the run does
    assert streamed.headers["content-type"].startswith("text/event-stream")
    kinds = [line.removeprefix("event: ") for line in streamed.text.splitlines() if line.startswith("event: ")]
    assert kinds[-1] == "run.done"
    assert kinds.count("step.done") == 2
    run = (await orders_api.get(path)).json()
    assert (run["status"], run["output"]) == ("done", "delivered reservation-7")
    assert run["steps"] == {"reserve": "done", "deliver": "done"}
    rest = await orders_api.get(f"{path}/events", headers={"Last-Event-ID": str(len(kinds) - 1)})
    assert rest.text == f"id: {len(kinds)}\nevent: run.done\ndata: \n\n"


async def test_fastapi_is_probed(orders_api: httpx.AsyncClient) -> None:
    ready, live = await orders_api.get("/readyz"), await orders_api.get("/livez")
    assert (ready.status_code, live.status_code) == (200, 200)
    assert ready.json()["checks"]["database"]["status"] == "ok"
    assert live.json() == {"alive": True}


async def test_fastapi_cancels(orders_api: httpx.AsyncClient) -> None:
    started = await orders_api.post("/orders", json={"order_id": "8", "amount": 5, "delivery_hours": 1})
    path = f"/orders/{started.json()['run_id']}"
    cancelled = await orders_api.post(f"{path}/cancel", params={"reason": "changed my mind"})
    assert cancelled.status_code == 202
    assert cancelled.json()["status"] == "cancelled"
    assert (await orders_api.get(path)).json()["status"] == "cancelled"


async def test_fastapi_explains_what_is_wrong(orders_api: httpx.AsyncClient) -> None:
    assert (await orders_api.post("/orders", json={"order_id": "9", "amount": 0})).status_code == 422
    for method, path in (("GET", "/orders/none"), ("GET", "/orders/none/events"), ("POST", "/orders/none/cancel")):
        missing = await orders_api.request(method, path)
        assert missing.status_code == 404
        assert missing.json()["code"] == "run.not_found"


async def test_a_user_signs_up_is_onboarded_and_leaves(database_uri: str, database: Any) -> None:
    lines = run_example("user_lifecycle.py", database_uri).splitlines()
    assert lines[:2] == ["ann: 1 onboarding started", "bob: 1 onboarding started"]
    # The survey may be asked before or after the other user has left.
    assert sorted(lines[2:4]) == [
        "bob leaves: 1 onboarding cancelled",
        "to ann@example.org: how do you like Garden, Ann?",
    ]
    assert lines[4:] == ["{'cancelled': 1, 'done': 1}"]
    survey = await runs_of(database).find_one({"workflow": "survey"})
    assert (survey["input"]["project"], survey["chain"]) == ("Garden", 2)
