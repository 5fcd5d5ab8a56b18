"""Webhook endpoints, from the run that has something to tell to a server that takes it, or does not."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import pytest

from streamline import Context, RetryPolicy, Settings, Workflow
from streamline.errors import SignatureInvalid, WebhookNotFound
from tests.integration.receiver import Answer, Received, Receiver, receiving
from tests.waiting import eventually

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
LOCAL = {"webhook_networks": ("127.0.0.0/8",), "webhook_timeout": "5s"}
FAST = RetryPolicy(max_attempts=50, delay="20ms", backoff="fixed", jitter=0)


def settings(**options: Any) -> Settings:
    return Settings(**{**LOCAL, "webhook_retry": FAST, "subscriber_lease": "1s", **options})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def flow() -> Workflow[Any, Any, Any]:
    wf: Workflow[Any, Any, Any] = Workflow("flow", input=int)

    @wf.step
    async def tell(ctx: Context[int]) -> int:
        for i in range(ctx.input):
            await ctx.emit("told", {"i": i})
        return ctx.input

    return wf


async def done(app: Any, *inputs: int, workflow: str = "flow") -> list[str]:
    """Runs that have ended."""
    handles = await app.start_many(workflow, inputs)
    for handle in handles:
        await handle.result(timeout=20)
    return [handle.id for handle in handles]


async def received(receiver: Receiver, count: int) -> list[Received]:
    await eventually(lambda: len(receiver.received) >= count)
    return list(receiver.received)


def unlike(answers: dict[str, int], default: int = 200) -> Any:
    """Answer what is told of a run as the test says."""
    return lambda webhook: answers.get(webhook.json["run_id"], default)


async def test_what_happens_is_told_signed_and_in_order(
    make_app: Any, flow: Any, receiver: Receiver, tenant_id: str | None
) -> None:
    async with make_app(flow, settings=settings()) as app:
        endpoint = await app.webhooks.create("crm", receiver.url, on=["run.*", "told"], headers={"X-Shop": "one"})
        (run_id,) = await done(app, 3)
        await eventually(lambda: receiver.received[-1:] and receiver.received[-1].json["type"] == "run.done")
        events = [event async for event in app.handle(run_id).events()]
    wanted = [event for event in events if event.type == "told" or event.type.startswith("run.")]
    assert [each.json["seq"] for each in receiver.received] == [event.seq for event in wanted]
    for each, event in zip(receiver.received, wanted, strict=True):
        assert each.verified(endpoint.secret) == f"{run_id}:{event.seq}"
        assert each.headers["x-shop"] == "one"
        assert each.json == {
            "type": event.type,
            "run_id": run_id,
            "seq": event.seq,
            "at": event.at.isoformat().replace("+00:00", "Z"),
            "workflow": "flow",
            "tenant_id": tenant_id,
            "step": event.step,
            "attempt": event.attempt,
            "data": dict(event.data),
        }
    assert [each.json["data"]["payload"] for each in receiver.received if each.json["type"] == "told"] == [
        {"i": i} for i in range(3)
    ]


async def test_only_what_is_asked_for_is_told(make_app: Any, flow: Any, receiver: Receiver) -> None:
    other: Workflow[Any, Any, Any] = Workflow("other", input=int)

    @other.step
    async def work(ctx: Context[int]) -> None: ...

    async with make_app(flow, other, settings=settings()) as app:
        await app.webhooks.create("a", f"{receiver.url}/a", on="run.done", workflow=other)
        await app.webhooks.create("b", f"{receiver.url}/b", on=["run.done", "step.failed"], workflow="flow")
        await app.webhooks.create("c", f"{receiver.url}/c", on=["run.done"])
        (one,) = await done(app, 1)
        (two,) = await done(app, 1, workflow="other")
        await received(receiver, 4)
        told = sorted((each.path[-1], each.json["run_id"]) for each in receiver.received)
    assert told == sorted([("a", two), ("b", one), ("c", one), ("c", two)])


async def test_another_tenants_runs_are_not_told_of(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("crm", receiver.url, on="*")
        (first,) = await done(app, 1)
        last = await eventually(lambda: entry_of_end(app, first))
        event = {**last["event"], "seq": 1}
        foreign = {**last, "_id": last["_id"] + 1, "run_id": "foreign", "seq": 1, "tenant_id": "acme", "event": event}
        await app.database["streamline.log"].insert_one(foreign)
        (later,) = await done(app, 1)
        await eventually(
            lambda: later in told_of(receiver, "/hook") and receiver.received[-1].json["type"] == "run.done"
        )
        assert told_of(receiver, "/hook") == {first, later}


async def entry_of_end(app: Any, run_id: str) -> Any:
    return await app.database["streamline.log"].find_one({"run_id": run_id, "event.type": "run.done"})


async def test_a_damaged_endpoint_holds_up_no_other(
    make_app: Any, flow: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_app(flow, worker=False, settings=settings()) as app:
        damaged = {"_id": "webhook:a", "tenant_id": None, "webhook": {"id": "a"}}
        await app.database["streamline.subscribers"].insert_one(damaged)
        await app.webhooks.create("crm", receiver.url, on="run.done")
    async with make_app(flow, settings=settings()) as app:
        await done(app, 1)
        await received(receiver, 1)
    assert "webhook endpoint webhook:a cannot be delivered to" in caplog.text


async def test_what_happened_before_is_not_told(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("first", f"{receiver.url}/first", on="run.done")
        await done(app, 1)
        await received(receiver, 1)
        await app.webhooks.create("second", f"{receiver.url}/second", on="run.done")
        (later,) = await done(app, 1)
        await received(receiver, 3)
        assert [each.json["run_id"] for each in receiver.received if each.path.endswith("second")] == [later]


async def test_a_failed_delivery_is_tried_again_with_the_same_id(make_app: Any, flow: Any, receiver: Receiver) -> None:
    answers = iter([500, 302, 404, 200])
    receiver.answer = lambda _: next(answers, 200)
    async with make_app(flow, settings=settings()) as app:
        endpoint = await app.webhooks.create("crm", receiver.url, on="run.done")
        await done(app, 1)
        told = await received(receiver, 4)
        assert len(set(receiver.ids)) == 1
        assert [each.verified(endpoint.secret) for each in told] == receiver.ids
        await eventually(lambda: quiet(app))
        known = await app.webhooks.get("crm")
        assert (known.failures, known.failing_since, known.last_error) == (0, None, None)


async def quiet(app: Any, name: str = "crm") -> bool:
    return (await app.webhooks.get(name)).failures == 0


async def test_later_events_of_a_run_wait_and_other_runs_do_not(make_app: Any, flow: Any, receiver: Receiver) -> None:
    stuck = "stuck"
    receiver.answer = unlike({stuck: 500})
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("crm", receiver.url, on=["told"])
        handle = await app.start(flow, 3, run_id=stuck)
        await handle.result(timeout=20)
        others = await done(app, 2, 2, 2)
        await eventually(lambda: {each.json["run_id"] for each in receiver.received} == {stuck, *others})
        await eventually(lambda: len([each for each in receiver.received if each.json["run_id"] == stuck]) > 3)
        assert {each.id for each in receiver.received if each.json["run_id"] == stuck} == {first_of(receiver, stuck)}
        receiver.answer = unlike({})
        await eventually(lambda: len({each.id for each in receiver.received}) == 9)
    for run_id in (stuck, *others):
        seen = [
            seq for seq, _ in groupby(each.json["seq"] for each in receiver.received if each.json["run_id"] == run_id)
        ]
        assert seen == sorted(seen)


def first_of(receiver: Receiver, run_id: str) -> str:
    return next(each.id for each in receiver.received if each.json["run_id"] == run_id)


async def test_after_the_last_attempt_it_is_a_dead_letter(make_app: Any, flow: Any, receiver: Receiver) -> None:
    receiver.answer = lambda webhook: 500 if webhook.json["data"].get("payload") == {"i": 0} else 200
    retry = RetryPolicy(max_attempts=3, delay="10ms", backoff="fixed")
    async with make_app(flow, settings=settings(webhook_retry=retry)) as app:
        await app.webhooks.create("crm", receiver.url, on=["told"])
        (run_id,) = await done(app, 2)
        (letter,) = await eventually(lambda: app.webhooks.dead_letters("crm"))
        assert (letter.event.run_id, letter.event.data["payload"], letter.attempts) == (run_id, {"i": 0}, 3)
        assert letter.error["code"] == "webhook.failed"
        assert letter.error["message"] == "answered 500"
        told = await received(receiver, 4)
        assert [each.json["data"]["payload"]["i"] for each in told] == [0, 0, 0, 1]
        receiver.answer = lambda _: 200
        assert await app.webhooks.retry("crm", [letter]) == 1
        told = await received(receiver, 5)
        assert told[-1].id == told[0].id
        await eventually(lambda: has_no_letters(app))
        assert await app.webhooks.discard("crm") == 0


async def has_no_letters(app: Any) -> bool:
    return not await app.webhooks.dead_letters("crm")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_is_left_alone_for_as_long_as_it_asks(
    make_app: Any, flow: Any, receiver: Receiver, status: int
) -> None:
    answers = iter([Answer(status, (("Retry-After", "1"),)), Answer(200)])
    at: list[float] = []

    def answer(_: Received) -> Answer:
        at.append(time.monotonic())
        return next(answers)

    receiver.answer = answer
    retry = RetryPolicy(max_attempts=5, delay="10ms", max_delay="1m")
    async with make_app(flow, settings=settings(webhook_retry=retry)) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        await done(app, 1)
        await eventually(lambda: len(at) == 2)
    assert at[1] - at[0] >= 0.9


async def test_it_is_not_tried_sooner_because_it_says_so(make_app: Any, flow: Any, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(429, (("Retry-After", "0"),)) if len(receiver.received) == 1 else 200
    retry = RetryPolicy(max_attempts=2, delay="500ms", jitter=0)
    async with make_app(flow, settings=settings(webhook_retry=retry)) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        await done(app, 1)
        await received(receiver, 1)
        first = time.monotonic()
        await received(receiver, 2)
    assert time.monotonic() - first >= 0.4


async def test_but_not_for_longer_than_the_longest_pause(make_app: Any, flow: Any, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(503, (("Retry-After", "86400"),)) if len(receiver.received) == 1 else 200
    retry = RetryPolicy(max_attempts=5, delay="10ms", max_delay="100ms")
    async with make_app(flow, settings=settings(webhook_retry=retry)) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        await done(app, 1)
        await received(receiver, 2)


async def test_disabled_it_keeps_its_place(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        (first,) = await done(app, 1)
        await received(receiver, 1)
        await eventually(lambda: passed(app, "crm", 1))
        disabled = await app.webhooks.disable("crm", "the customer is away")
        assert (disabled.enabled, disabled.disabled_reason) == (False, "the customer is away")
        assert disabled.disabled_at is not None
        later = await done(app, 1, 1)
        await app.webhooks.create("other", f"{receiver.url}/other", on="run.done")
        (last,) = await done(app, 1)
        await eventually(lambda: any(each.path.endswith("other") for each in receiver.received))
        assert [each.json["run_id"] for each in receiver.received if each.path == "/hook"] == [first]
        assert (await app.webhooks.disable("crm", "again")).disabled_reason == "the customer is away"
        enabled = await app.webhooks.enable("crm")
        assert (enabled.enabled, enabled.disabled_at, enabled.disabled_reason) == (True, None, None)
        await eventually(lambda: told_of(receiver, "/hook") == {first, *later, last})


async def passed(app: Any, name: str, position: int) -> bool:
    return bool((await app.webhooks.get(name)).position >= position)


def told_of(receiver: Receiver, path: str) -> set[str]:
    return {each.json["run_id"] for each in receiver.received if each.path == path}


async def test_one_that_is_made_disabled_waits_with_what_happens(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app:
        created = await app.webhooks.create("crm", receiver.url, on="run.done", enabled=False)
        assert not created.enabled
        ids = await done(app, 1, 1)
        await app.webhooks.enable("crm")
        await eventually(lambda: told_of(receiver, "/hook") == set(ids))


async def test_one_that_is_gone_is_disabled_and_loses_nothing(
    make_app: Any, flow: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda _: 410
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        with caplog.at_level(logging.WARNING, "streamline"):
            (run_id,) = await done(app, 1)
            await eventually(lambda: is_disabled(app))
        endpoint = await app.webhooks.get("crm")
        assert endpoint.disabled_reason == "the receiver wants no more webhooks (410)"
        assert endpoint.last_error == "answered 410"
        assert "webhook crm is disabled" in caplog.text
        assert endpoint.url not in caplog.text
        assert len(receiver.received) == 1
        receiver.answer = lambda _: 200
        await app.webhooks.enable("crm")
        assert (await received(receiver, 2))[1].json["run_id"] == run_id


async def is_disabled(app: Any, name: str = "crm") -> bool:
    return not (await app.webhooks.get(name)).enabled


async def test_one_that_fails_often_and_for_long_is_disabled_and_goes_on_later(
    make_app: Any, flow: Any, receiver: Receiver
) -> None:
    receiver.answer = lambda _: Answer(500, body=b"out of order")
    options = settings(webhook_failures=5, webhook_failing="200ms")
    async with make_app(flow, settings=options) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        ids = await done(app, 1, 1, 1)
        await eventually(lambda: is_disabled(app))
        endpoint = await app.webhooks.get("crm")
        assert endpoint.failures >= 5
        assert endpoint.disabled_reason == "at least 5 deliveries in a row have failed"
        assert endpoint.last_error == "answered 500: out of order"
        assert endpoint.disabled_at - endpoint.failing_since >= timedelta(milliseconds=200)
        before = len(receiver.received)
        receiver.answer = lambda _: 200
        (more,) = await done(app, 1)
        await app.webhooks.enable("crm")
        await eventually(lambda: {each.json["run_id"] for each in receiver.received[before:]} == {*ids, more})
        assert not await app.webhooks.dead_letters("crm")


@pytest.mark.parametrize(("failures", "failing"), [(1000, "0s"), (2, "1h")])
async def test_a_few_failures_or_a_short_time_disable_nothing(
    make_app: Any, flow: Any, receiver: Receiver, failures: int, failing: str
) -> None:
    receiver.answer = lambda _: 500
    options = settings(webhook_failures=failures, webhook_failing=failing)
    async with make_app(flow, settings=options) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        await done(app, 1)
        await received(receiver, 10)
        assert (await app.webhooks.get("crm")).enabled


async def test_a_success_in_between_begins_the_count_anew(make_app: Any, flow: Any, receiver: Receiver) -> None:
    receiver.answer = lambda _: 500 if len(receiver.received) % 4 else 200
    options = settings(webhook_failures=4, webhook_failing="0s")
    async with make_app(flow, settings=options) as app:
        await app.webhooks.create("crm", receiver.url, on=["told"])
        await done(app, 5)
        await received(receiver, 20)
        await eventually(lambda: quiet(app))
        assert (await app.webhooks.get("crm")).enabled


async def test_changes_are_in_force_for_what_is_sent_next(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app, make_app(flow, settings=settings()) as elsewhere:
        await app.webhooks.create("crm", f"{receiver.url}/one", on="run.done", headers={"X-A": "1"})
        await done(app, 1)
        await received(receiver, 1)
        before = await app.webhooks.get("crm")
        changed = await elsewhere.webhooks.update("crm", url=f"{receiver.url}/two", headers={"X-B": "2"})
        assert (changed.url, changed.headers, changed.on) == (f"{receiver.url}/two", {"X-B": "2"}, ("run.done",))
        assert changed.updated_at > before.updated_at
        await eventually(lambda: told_there(app, receiver, "/hook/two"))
        last = receiver.received[-1]
        assert (last.headers.get("x-a"), last.headers["x-b"]) == (None, "2")
        await elsewhere.webhooks.update("crm", on=["told"], workflow="flow", headers=None)
        await eventually(lambda: tells(app, receiver, "told"))
        assert "x-b" not in receiver.received[-1].headers
        assert (await app.webhooks.update("crm", workflow=None)).workflow is None


async def told_there(app: Any, receiver: Receiver, path: str) -> bool:
    await done(app, 1)
    return any(each.path == path for each in receiver.received)


async def tells(app: Any, receiver: Receiver, kind: str) -> bool:
    await done(app, 1)
    return bool(receiver.received[-1].json["type"] == kind)


async def test_a_new_secret_and_for_a_while_the_former_one(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app:
        created = await app.webhooks.create("crm", receiver.url, on="run.done")
        fresh = await app.webhooks.rotate_secret("crm")
        assert fresh != created.secret
        await eventually(lambda: signs(app, receiver, fresh))
        assert receiver.received[-1].verified(created.secret)
        assert await app.webhooks.rotate_secret("crm", secret=SECRET, keep=0) == SECRET
        await eventually(lambda: signs(app, receiver, SECRET))
        assert len(receiver.received[-1].headers["webhook-signature"].split()) == 1


async def signs(app: Any, receiver: Receiver, secret: str) -> bool:
    count = len(receiver.received)
    await done(app, 1)
    await received(receiver, count + 1)
    try:
        return bool(receiver.received[-1].verified(secret))
    except SignatureInvalid:
        return False


async def test_again_from_a_place_on(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        ids = await done(app, 1, 1, 1)
        await eventually(lambda: told_of(receiver, "/hook") == set(ids))
        first = [each.id for each in receiver.received]
        await app.webhooks.replay("crm")
        await received(receiver, 6)
        assert sorted(receiver.ids[3:]) == sorted(first)
        await app.webhooks.replay("crm", datetime.now(UTC) - timedelta(hours=1))
        await received(receiver, 9)


async def test_deleted_it_is_told_nothing_and_its_id_is_free(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("crm", f"{receiver.url}/old", on="run.done")
        await done(app, 1)
        await received(receiver, 1)
        await app.webhooks.delete("crm")
        with pytest.raises(WebhookNotFound):
            await app.webhooks.get("crm")
        await app.webhooks.create("crm", f"{receiver.url}/new", on="run.done")
        (later,) = await done(app, 1)
        await eventually(lambda: told_of(receiver, "/hook/new") == {later})
        assert later not in told_of(receiver, "/hook/old")


async def test_nothing_that_is_logged_shows_a_secret(
    make_app: Any, flow: Any, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answer = lambda _: 500 if len(receiver.received) < 3 else 410
    with caplog.at_level(logging.DEBUG):
        async with make_app(flow, settings=settings()) as app:
            await app.webhooks.create(
                "crm", f"{receiver.url}?token=hidden", headers={"X-Key": "hidden"}, secret=SECRET, on="run.done"
            )
            await done(app, 1)
            await eventually(lambda: is_disabled(app))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("streamline")]
    assert any("crm" in message for message in ours)
    assert not [message for message in ours if "hidden" in message or SECRET in message or receiver.url in message]


async def test_an_address_that_is_no_longer_allowed_counts_as_a_failure(
    make_app: Any, flow: Any, receiver: Receiver
) -> None:
    async with make_app(flow, worker=False, settings=settings()) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
    options = settings(webhook_networks=(), webhook_failures=3, webhook_failing=0)
    async with make_app(flow, settings=options) as app:
        await done(app, 1)
        await eventually(lambda: is_disabled(app))
        assert (await app.webhooks.get("crm")).last_error == "url: its host has an address that is not public"
        assert receiver.received == []


async def test_an_app_without_a_worker_delivers_nothing(make_app: Any, flow: Any, receiver: Receiver) -> None:
    async with make_app(flow, worker=False, settings=settings()) as asking:
        await asking.webhooks.create("crm", receiver.url, on="run.done")
        handle = await asking.start(flow, 1)
        async with make_app(flow, settings=settings()):
            await handle.result(timeout=20)
            await received(receiver, 1)


async def test_of_two_processes_one_delivers_and_the_other_goes_on_when_it_stops(
    make_app: Any, flow: Any, receiver: Receiver
) -> None:
    async with make_app(flow, settings=settings(subscriber_lease="1m")) as second:
        async with make_app(flow, settings=settings(subscriber_lease="1m")) as first:
            await first.webhooks.create("crm", receiver.url, on="run.done")
            ids = await done(first, *[1] * 10)
            await eventually(lambda: told_of(receiver, "/hook") == set(ids))
        later = await done(second, *[1] * 10)  # long before the lease would have run out
        await eventually(lambda: told_of(receiver, "/hook") == {*ids, *later})
    assert len(receiver.received) == 20


async def test_closing_lets_what_is_on_its_way_arrive_and_records_it(
    make_app: Any, flow: Any, receiver: Receiver
) -> None:
    hold = threading.Event()
    receiver.answer = lambda _: Answer(200, hold=hold)
    async with make_app(flow, settings=settings()) as app:
        await app.webhooks.create("crm", receiver.url, on="run.done")
        await done(app, 1)
        await received(receiver, 1)
        asyncio.get_running_loop().call_later(0.3, hold.set)
    async with make_app(flow, settings=settings()) as app:
        (later,) = await done(app, 1)
        await received(receiver, 2)
        assert [each.json["run_id"] for each in receiver.received[1:]] == [later]
