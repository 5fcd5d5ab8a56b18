"""Durable subscribers: every event at least once, those of a run in order, whatever fails and whoever goes away."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest

from streamline import Context, Event, NonRetriableError, RetryAfter, RetryPolicy, Settings, Streamline, Workflow
from streamline.engine.log import delivering
from streamline.engine.log.keeping import Keeping, LeaseLost
from streamline.errors import (
    AlreadyRegistered,
    AppClosed,
    InvalidKey,
    InvalidName,
    InvalidPolicy,
    InvalidQuery,
    SubscriberNotFound,
)
from streamline.features.delivery_windows import Window
from streamline.store import statements
from tests.waiting import eventually

SOON = RetryPolicy(max_attempts=3, delay="30ms", backoff="fixed", jitter=0)
BRIEF = Settings(subscriber_lease="600ms")

wf: Workflow[Any, Any, Any] = Workflow("teller", input=int)


@wf.step
async def tell(ctx: Context[int]) -> int:
    for i in range(ctx.input):
        await ctx.emit("said", i)
    return ctx.input


class Heard:
    """What a handler was given, by run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def types(self, run_id: str) -> list[str]:
        return [event.type for event in self.events if event.run_id == run_id]

    def numbers(self, run_id: str) -> list[int]:
        return [event.seq for event in self.events if event.run_id == run_id]

    async def all(self, count: int) -> list[Event]:
        await eventually(lambda: len(self.events) >= count)
        return self.events


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def records(database: Any) -> Any:
    """The collection of subscribers."""
    return database["streamline.subscribers"]


async def run_of(app: Streamline, n: int) -> str:
    handle = await app.start(wf, n)
    await handle.result("20s")
    return handle.id


async def caught_up(subscriber: Any) -> None:
    store = subscriber._app._open_session.runtime.store

    async def has_no_lag() -> bool:
        return not await store.run(statements.find_marked(1)) and await subscriber.lag() == 0

    await eventually(has_no_lag)


async def test_a_handler_gets_what_its_globs_match_in_order(make_app: Any, heard: Heard, tenant_id: str | None) -> None:
    app = make_app(wf)

    @app.subscriber("audit", ["run.*", "said"])
    async def audit(event: Event) -> None:
        heard(event)

    async with app:
        runs = [await run_of(app, 3) for _ in range(4)]
        await heard.all(4 * 5)
    for run_id in runs:
        assert heard.types(run_id) == ["run.created", "said", "said", "said", "run.done"]
        assert heard.numbers(run_id) == sorted(heard.numbers(run_id))
    event = heard.events[0]
    assert (event.workflow, event.version, event.tenant_id) == ("teller", "1.0.0", tenant_id)
    assert event.position == 1


async def test_it_may_be_declared_while_the_app_is_open_and_be_plain(make_app: Any, heard: Heard) -> None:
    threads = set()
    async with make_app(wf) as app:
        before = await run_of(app, 0)
        subscriber = app.subscriber("audit", workflow=wf)

        @subscriber
        def audit(event: Event) -> None:
            threads.add(threading.current_thread().name)
            heard(event)

        assert await subscriber.position() == 0
        run_id = await run_of(app, 1)
        await heard.all(5)
    assert heard.numbers(run_id) == [1, 2, 3, 4, 5]
    assert heard.types(before) == []
    assert all(name.startswith("streamline-subscriber") for name in threads)


async def test_only_the_workflow_that_was_asked_for(make_app: Any, heard: Heard) -> None:
    other: Workflow[Any, Any, Any] = Workflow("other")
    other.step("only")(_nothing)
    app = make_app(wf, other)
    app.subscriber("audit", "run.done", workflow="other")(heard)
    async with app:
        await run_of(app, 0)
        handle = await app.start(other)
        await handle.result("20s")
        await heard.all(1)
        await caught_up(app.subscriber("audit"))
    assert [event.run_id for event in heard.events] == [handle.id]


async def _nothing(ctx: Context[Any]) -> None: ...


async def test_it_goes_on_where_it_was_after_a_restart(make_app: Any, heard: Heard) -> None:
    for _ in range(2):
        app = make_app(wf)
        app.subscriber("audit", "run.*")(heard)
        async with app:
            await run_of(app, 0)
            await caught_up(app.subscriber("audit"))
        async with make_app(wf) as another:  # nobody listens
            await run_of(another, 0)
    app = make_app()
    app.subscriber("audit", "run.*")(heard)
    async with app:
        await heard.all(8)
    assert [event.type for event in heard.events] == ["run.created", "run.done"] * 4
    assert [event.position for event in heard.events] == sorted(event.position or 0 for event in heard.events)


async def test_a_new_one_may_begin_with_all_that_the_log_has(make_app: Any, heard: Heard) -> None:
    late = Heard()
    async with make_app(wf) as app:
        app.subscriber("first")(heard)
        await app.subscriber("first").position()
        run_id = await run_of(app, 2)
        await heard.all(6)
        app.subscriber("late", start="beginning")(late)
        app.subscriber("later", start="now")(later := Heard())
        await late.all(6)
        await app.subscriber("later").position()
        await run_of(app, 0)
        await later.all(4)
    assert late.numbers(run_id)[:6] == [1, 2, 3, 4, 5, 6]
    assert later.numbers(run_id) == []


async def test_a_run_whose_event_fails_is_held_back_and_the_others_go_on(
    make_app: Any, heard: Heard, records: Any, stored_name: Any
) -> None:
    failing: set[str] = set()
    tries: list[float] = []
    app = make_app(wf)

    @app.subscriber("audit", ["run.*", "said"], retry=RetryPolicy(max_attempts=1000, delay="100ms", jitter=0))
    async def audit(event: Event) -> None:
        if event.run_id in failing and event.type == "said":
            tries.append(time.monotonic())
            raise ValueError("not now")
        heard(event)

    async with app:
        handle = await app.start(wf, 2, delay="50ms")
        failing.add(handle.id)
        await handle.result("20s")
        await eventually(lambda: len(tries) >= 2)
        others = [await run_of(app, 1) for _ in range(3)]
        await heard.all(1 + 3 * 3)
        assert heard.types(handle.id) == ["run.created"]
        for other in others:
            assert heard.types(other) == ["run.created", "said", "run.done"]
        await caught_up(app.subscriber("audit"))
        (held,) = (await records.find_one({"_id": stored_name("audit")}))["held"]
        assert (held["run_id"], held["seq"]) == (handle.id, 3)
        assert held["error"] == {"code": "subscriber.error", "type": "ValueError", "message": "not now"}
        await eventually(lambda: len(tries) >= 4)
        failing.clear()
        await heard.all(1 + 3 * 3 + 3)

        async def is_released() -> bool:
            return (await records.find_one({"_id": stored_name("audit")}))["held"] == []

        await eventually(is_released)
    assert heard.types(handle.id) == ["run.created", "said", "said", "run.done"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    # Instants are stored to the millisecond, by a clock that is set to the server's.
    assert all(pause >= least - 0.01 for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=False))


async def test_what_is_held_back_survives_a_restart(
    make_app: Any, heard: Heard, records: Any, stored_name: Any
) -> None:
    patient = RetryPolicy(max_attempts=1000, delay="50ms", backoff="fixed", jitter=0)
    tried = 0

    async def refuse(event: Event) -> None:
        nonlocal tried
        if event.seq == 2:
            tried += 1
            raise ValueError("not now")
        heard(event)

    app = make_app(wf)
    app.subscriber("audit", retry=patient)(refuse)
    async with app:
        runs = [await run_of(app, 1) for _ in range(2)]
        await eventually(lambda: tried >= 6)
        await caught_up(app.subscriber("audit"))
    assert [len(heard.types(run_id)) for run_id in runs] == [1, 1]
    held = (await records.find_one({"_id": stored_name("audit")}))["held"]
    assert {each["run_id"] for each in held} == set(runs)
    assert all(each["attempts"] >= 2 for each in held)
    app = make_app(wf)
    app.subscriber("audit", retry=patient)(heard)
    async with app:
        third = await run_of(app, 0)
        await heard.all(2 * 5 + 4)
    assert [heard.numbers(run_id) for run_id in runs] == [[1, 2, 3, 4, 5]] * 2
    assert heard.numbers(third) == [1, 2, 3, 4]


async def test_an_event_that_fails_too_often_is_put_aside_and_the_run_goes_on(
    make_app: Any, heard: Heard, caplog: Any
) -> None:
    tried: dict[str, int] = defaultdict(int)
    app = make_app(wf)

    @app.subscriber("audit", ["run.*", "said"], retry=SOON)
    async def audit(event: Event) -> None:
        tried[f"{event.run_id}/{event.seq}"] += 1
        if event.type == "said":
            raise ValueError("never")
        heard(event)

    async with app:
        run_id = await run_of(app, 2)
        await heard.all(2)
        subscriber = app.subscriber("audit")
        letters = await subscriber.dead_letters()
    assert heard.types(run_id) == ["run.created", "run.done"]
    assert [(letter.event.seq, letter.attempts, letter.error["message"]) for letter in letters] == [
        (3, 3, "never"),
        (4, 3, "never"),
    ]
    assert letters[0].event.data == {"payload": 0}
    assert letters[0].position == letters[0].event.position
    assert letters[0]["died_at"] >= letters[0].event.at
    assert sorted(tried.values()) == [1, 1, 3, 3]
    assert "put aside" in caplog.text


@pytest.mark.parametrize("error", [NonRetriableError("no"), KeyError("k")], ids=repr)
async def test_what_is_of_no_use_to_try_again_is_put_aside_at_once(
    make_app: Any, error: Exception, heard: Heard
) -> None:
    app = make_app(wf)
    tries = 0

    @app.subscriber("audit", ["said", "run.done"], retry=RetryPolicy(max_attempts=9, retry_on=(ValueError,)))
    async def audit(event: Event) -> None:
        nonlocal tries
        if event.type == "said":
            tries += 1
            raise error
        heard(event)

    async with app:
        await run_of(app, 1)
        await heard.all(1)
        (letter,) = await app.subscriber("audit").dead_letters()
    assert (tries, letter.attempts) == (1, 1)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), SystemExit(1)], ids=repr)
async def test_whatever_a_handler_raises_is_a_failed_attempt(make_app: Any, error: BaseException, heard: Heard) -> None:
    app = make_app(wf)
    raised = []

    @app.subscriber("audit", "run.done", retry=SOON)
    async def audit(event: Event) -> None:
        if not raised:
            raised.append(error)
            raise error
        heard(event)

    async with app:
        await run_of(app, 0)
        await heard.all(1)
    assert heard.events[0].type == "run.done"


async def test_a_handler_may_say_when_to_try_again(make_app: Any) -> None:
    tries: list[float] = []
    app = make_app(wf)

    @app.subscriber("audit", "run.done", max_attempts=5)
    async def audit(event: Event) -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise RetryAfter("300ms")

    async with app:
        await run_of(app, 0)
        await eventually(lambda: len(tries) == 2)
    assert 0.3 <= tries[1] - tries[0] < 0.9


async def test_dead_letters_are_tried_again_where_somebody_asks(make_app: Any, heard: Heard) -> None:
    broken = True
    app = make_app(wf)

    @app.subscriber("audit", ["said", "run.done"], max_attempts=1)
    async def audit(event: Event) -> None:
        if broken and event.type == "said":
            raise ValueError("broken")
        heard(event)

    async with app, make_app(worker=False) as operator:
        await run_of(app, 3)
        await heard.all(1)
        subscriber = operator.subscriber("audit", ["said", "run.done"])
        first, second, third = await subscriber.dead_letters()
        assert await subscriber.dead_letters(limit=2) == (first, second)
        assert await subscriber.discard([third]) == 1
        assert await subscriber.retry([first.position]) == 1

        async def has_failed_again() -> bool:
            return [letter.attempts for letter in await subscriber.dead_letters()] == [2, 1]

        await eventually(has_failed_again)
        broken = False
        assert await subscriber.retry() == 2
        await heard.all(3)

        async def none_is_left() -> bool:
            return await subscriber.dead_letters() == ()

        await eventually(none_is_left)
        assert [event.data["payload"] for event in heard.events[1:]] == [0, 1]
        assert await subscriber.discard() == 0


async def test_runs_do_not_wait_for_one_another_but_only_so_many_are_handled_at_once(make_app: Any) -> None:
    at_once = most = 0
    done: list[str] = []
    gate = asyncio.Event()
    app = make_app(wf)

    @app.subscriber("audit", ["run.created", "run.done"], concurrency=3)
    async def audit(event: Event) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if event.run_id == slow:
            await gate.wait()
        await asyncio.sleep(0.01)
        at_once -= 1
        done.append(event.run_id)

    slow = "slow"
    async with app:
        await app.start(wf, 0, run_id=slow)
        runs = [await app.start(wf, 0) for _ in range(8)]
        await eventually(lambda: len(done) == 16)
        assert slow not in done
        assert {run.id for run in runs} == set(done)
        assert most == 3
        gate.set()
        await eventually(lambda: done.count(slow) == 2)


async def test_one_process_drives_it_and_another_takes_over_when_that_one_closes(make_app: Any) -> None:
    heard: list[tuple[str, int]] = []
    apps = [make_app(wf) for _ in range(2)]
    for i, app in enumerate(apps):

        @app.subscriber("audit", "run.done")
        async def audit(event: Event, i: int = i) -> None:
            heard.append((event.run_id, i))

    async with apps[1] as second:
        async with apps[0] as first:
            for _ in range(5):
                await run_of(first, 0)
            await eventually(lambda: len(heard) == 5)
            drivers = {i for _, i in heard}
            assert len(drivers) == 1
        began = time.monotonic()
        await run_of(second, 0)
        await eventually(lambda: len(heard) == 6)
        assert time.monotonic() - began < 5  # and not the ten seconds of a lease
    assert heard[-1][1] == 1
    assert len({run_id for run_id, _ in heard}) == 6


async def test_who_has_lost_the_lease_stores_nothing_any_more(
    make_app: Any, heard: Heard, records: Any, stored_name: Any
) -> None:
    app = make_app(wf, settings=BRIEF)
    entered, ended = asyncio.Event(), asyncio.Event()

    @app.subscriber("audit", "run.done")
    async def audit(event: Event) -> None:
        if not entered.is_set():
            entered.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
        heard(event)

    async with app:
        await run_of(app, 0)
        await asyncio.wait_for(entered.wait(), 10)
        position = (await records.find_one({"_id": stored_name("audit")}))["position"]
        thief = {"worker": "thief", "token": "stolen", "until": app._clock.now() + timedelta(milliseconds=900)}
        await records.update_one({"_id": stored_name("audit")}, {"$set": {"lease": thief}})
        await asyncio.wait_for(ended.wait(), 5)
        record = await records.find_one({"_id": stored_name("audit")})
        assert (record["lease"]["token"], record["position"]) == ("stolen", position)
        assert heard.events == []
        await heard.all(1)  # once the thief's lease has run out


async def test_a_save_whose_answer_was_lost_is_known_to_have_happened(
    make_app: Any, records: Any, stored_name: Any
) -> None:
    async with make_app(worker=False) as app:
        session = app._open_session
        await app.subscriber("audit").position()
        until = app._clock.now() + timedelta(seconds=10)
        lease = {"worker": "me", "token": "mine", "until": until}
        await records.update_one({"_id": stored_name("audit")}, {"$set": {"lease": lease}})
        window = Window(0)
        keeping = Keeping(session.runtime, await records.find_one({"_id": stored_name("audit")}), window, math.inf)
        window.skip(7)
        # The first copy of it took effect; the second, sent because no answer came, matches nothing.
        first = statements.save_subscriber(stored_name("audit"), "mine", 0, window.record(), until)
        assert await session.runtime.store.run(first) == 1
        await keeping.save()
        window.skip(8)
        await keeping.save()
        record = await records.find_one({"_id": stored_name("audit")})
        assert (record["position"], record["saves"]) == (8, 2)
        # A copy that was on its way for long, and one by somebody whose lease is over, change nothing.
        assert await session.runtime.store.run(first) == 0
        await records.update_one({"_id": stored_name("audit")}, {"$set": {"lease.token": "theirs"}})
        window.skip(9)
        stopped = asyncio.ensure_future(keeping.run(lambda: True))
        keeping.stir()
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(stopped, 5)
        assert (await records.find_one({"_id": stored_name("audit")}))["position"] == 8


async def test_a_handler_at_work_is_let_finish_when_the_app_closes(make_app: Any, heard: Heard) -> None:
    app = make_app(wf)
    entered = asyncio.Event()

    @app.subscriber("audit", "run.done")
    async def audit(event: Event) -> None:
        entered.set()
        await asyncio.sleep(0.3)
        await app.get(event.run_id)
        heard(event)

    async with app:
        await run_of(app, 0)
        await asyncio.wait_for(entered.wait(), 10)
    assert len(heard.events) == 1
    app = make_app(wf)
    app.subscriber("audit", "run.done")(again := Heard())
    async with app:
        await run_of(app, 0)
        await again.all(1)
    assert [event.run_id for event in again.events] != [heard.events[0].run_id]
    assert len(again.events) == 1


async def test_replaying(make_app: Any, heard: Heard) -> None:
    app = make_app(wf)
    subscriber = app.subscriber("audit", "run.*")
    subscriber(heard)
    async with app:
        first = await run_of(app, 0)
        await heard.all(2)
        await asyncio.sleep(0.05)
        noon = app._clock.now()
        second = await run_of(app, 0)
        await heard.all(4)
        await caught_up(subscriber)
        await subscriber.replay()
        await heard.all(8)
        assert [heard.types(run_id) for run_id in (first, second)] == [["run.created", "run.done"] * 2] * 2
        await subscriber.replay(after=noon)
        await heard.all(10)
        assert [event.run_id for event in heard.events[8:]] == [second, second]
        await subscriber.replay(after=heard.events[2].position)
        await heard.all(11)
        assert [(event.run_id, event.type) for event in heard.events[10:]] == [(second, "run.done")]
        await caught_up(subscriber)
        await subscriber.replay(after=10**9)
        await run_of(app, 0)
        await heard.all(13)
    assert len(heard.events) == 13


async def test_a_replay_forgets_what_is_held_back(make_app: Any, heard: Heard, records: Any, stored_name: Any) -> None:
    broken = True
    app = make_app(wf)
    subscriber = app.subscriber("audit", "run.*", retry=RetryPolicy(max_attempts=9, delay="1h", max_delay="1h"))

    @subscriber
    async def audit(event: Event) -> None:
        if broken:
            raise ValueError("broken")
        heard(event)

    async with app:
        run_id = await run_of(app, 0)

        async def is_held() -> bool:
            return bool((await records.find_one({"_id": stored_name("audit")}))["held"])

        await eventually(is_held)
        broken = False
        await subscriber.replay()
        await heard.all(2)
    assert heard.types(run_id) == ["run.created", "run.done"]


async def test_where_nothing_gets_through_it_waits(make_app: Any, heard: Heard, monkeypatch: Any) -> None:
    monkeypatch.setattr(delivering, "HELD_MAX", 3)
    broken, tried = True, set()
    app = make_app(wf)
    subscriber = app.subscriber("audit", "run.*", retry=RetryPolicy(max_attempts=99, delay="50ms", backoff="fixed"))

    @subscriber
    async def audit(event: Event) -> None:
        tried.add(event.run_id)
        if broken:
            raise ValueError("broken")
        heard(event)

    async with app:
        runs = [await run_of(app, 0) for _ in range(10)]
        await eventually(lambda: len(tried) >= 3)
        await asyncio.sleep(0.3)
        assert len(tried) <= 5
        assert await subscriber.lag() > 0
        broken = False
        await heard.all(20)
        await caught_up(subscriber)
    for run_id in runs:
        assert heard.types(run_id) == ["run.created", "run.done"]


async def test_iterating_acknowledges_when_the_next_is_asked_for(make_app: Any) -> None:
    async with make_app(wf) as app:
        subscriber = app.subscriber("audit", "said")
        assert await subscriber.lag() == 0
        await run_of(app, 4)
        seen = []
        async for event in subscriber:
            seen.append(event.data["payload"])
            if len(seen) == 2:
                break
        async for event in app.subscriber("audit", "said"):
            seen.append(event.data["payload"])
            if len(seen) == 5:
                break
        assert seen == [0, 1, 1, 2, 3]


async def test_an_iteration_ends_with_the_app(make_app: Any) -> None:
    async def iterate(subscriber: Any) -> list[str]:
        return [event.type async for event in subscriber]

    async with make_app(wf) as app:
        subscriber = app.subscriber("audit", "run.*")
        await subscriber.position()
        iterating = asyncio.ensure_future(iterate(subscriber))
        await run_of(app, 0)
        await caught_up(subscriber)
    assert await asyncio.wait_for(iterating, 5) == ["run.created", "run.done"]
    async with make_app(wf) as app:
        assert await app.subscriber("audit", "run.*").lag() == 0


async def test_a_subscriber_that_was_removed_is_gone(make_app: Any, heard: Heard, records: Any) -> None:
    app = make_app(wf)

    @app.subscriber("audit", "run.*", max_attempts=1)
    async def audit(event: Event) -> None:
        heard(event)
        raise ValueError("broken")

    async with app:
        await run_of(app, 0)
        await heard.all(2)

        async def both_are_put_aside() -> bool:
            return bool(await records.count_documents({}) == 3)

        await eventually(both_are_put_aside)
        subscriber = app.subscriber("audit")
        await subscriber.position()
        await app.remove_subscriber("audit")
        assert await records.count_documents({}) == 0
        for verb in (subscriber.position, subscriber.lag, subscriber.replay, subscriber.dead_letters):
            with pytest.raises(SubscriberNotFound):
                await verb()
        with pytest.raises(SubscriberNotFound) as caught:
            await app.remove_subscriber("audit")
        assert caught.value.field == "name"
        await run_of(app, 0)
        assert len(heard.events) == 2


async def test_what_it_wants_may_change(make_app: Any, heard: Heard, records: Any, stored_name: Any) -> None:
    for globs in ("run.created", ["run.done"]):
        app = make_app(wf)
        app.subscriber("audit", globs)(heard)
        async with app:
            await run_of(app, 0)
            await heard.all(1)
            await caught_up(app.subscriber("audit", globs))
    assert [event.type for event in heard.events] == ["run.created", "run.done"]
    assert (await records.find_one({"_id": stored_name("audit")}))["on"] == ["run.done"]


async def test_a_second_handler_is_refused(make_app: Any, heard: Heard) -> None:
    app = make_app(wf)
    app.subscriber("audit")(heard)
    with pytest.raises(AlreadyRegistered):
        app.subscriber("audit")(heard)
    with pytest.raises(InvalidPolicy):
        app.subscriber("other")(5)
    with pytest.raises(AppClosed):
        await app.subscriber("other").position()
    with pytest.raises(AppClosed):
        await app.remove_subscriber("other")


@pytest.mark.parametrize(
    ("arguments", "error", "field"),
    [
        ({"name": "a b"}, InvalidName, "name"),
        ({"name": "a/b"}, InvalidName, "name"),
        ({"name": 5}, InvalidName, "name"),
        ({"on": []}, InvalidKey, "on"),
        ({"on": [""]}, InvalidKey, "on"),
        ({"on": 5}, InvalidKey, "on"),
        ({"on": {"run.*"}}, InvalidKey, "on"),
        ({"workflow": "a b"}, InvalidName, "workflow"),
        ({"start": "then"}, InvalidPolicy, "start"),
        ({"max_attempts": 0}, InvalidPolicy, "max_attempts"),
        ({"max_attempts": 2, "retry": SOON}, InvalidPolicy, "max_attempts"),
        ({"retry": 5}, InvalidPolicy, "retry"),
        ({"concurrency": 0}, InvalidPolicy, "concurrency"),
        ({"concurrency": 1001}, InvalidPolicy, "concurrency"),
        ({"concurrency": True}, InvalidPolicy, "concurrency"),
    ],
    ids=repr,
)
def test_what_cannot_work_is_refused(make_app: Any, arguments: Any, error: type[Exception], field: str) -> None:
    with pytest.raises(error) as caught:
        make_app().subscriber(**{"name": "audit", **arguments})
    assert caught.value.field == field  # type: ignore[attr-defined]


@pytest.mark.parametrize("after", [-1, True, "1", 1.5], ids=repr)
async def test_a_place_that_makes_no_sense_is_refused(make_app: Any, after: Any) -> None:
    async with make_app(worker=False) as app:
        subscriber = app.subscriber("audit")
        with pytest.raises(InvalidQuery):
            await subscriber.replay(after)
        with pytest.raises(InvalidQuery):
            await subscriber.dead_letters(limit=0)
        with pytest.raises(InvalidQuery):
            await subscriber.retry([-1])
