"""What ``app.resume`` brings: any payload, of the type that was asked for; what is of no use is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from pydantic import BaseModel

from streamline.errors import InvalidInput, PayloadTooLarge, SerializationError
from tests.clocks import MovableClock
from tests.integration.test_waits import Waiter, parked


class Address(BaseModel):
    street: str
    number: int


@pytest.mark.parametrize("payload", [None, False, 0, "", [], {}, 0.0, "text", [1, {"a": None}], {"a": {"b.c": 1}}])
async def test_a_payload_arrives_as_it_was_sent_falsy_or_not(make_app: Any, payload: Any) -> None:
    waiter = Waiter(default="the default")
    async with make_app(waiter.workflow, worker=False) as app:
        handle = await parked(app, waiter.workflow)
        await app.resume(handle.id, payload)
        await app.tick()
        output = await handle.result("5s")
    assert output == payload
    assert type(output) is type(payload)
    assert waiter.got == [payload]


async def test_a_model_is_what_the_handler_gets(make_app: Any) -> None:
    waiter = Waiter(model=Address)
    async with make_app(waiter.workflow, worker=False) as app:
        handle = await parked(app, waiter.workflow)
        await handle.resume({"street": "Elm", "number": 5})
        await app.tick()
        assert await handle.status() == "done"
        other = await parked(app, waiter.workflow)
        await other.resume(Address(street="Oak", number=6))
        await app.tick()
    assert waiter.got == [Address(street="Elm", number=5), Address(street="Oak", number=6)]


@pytest.mark.parametrize(
    ("model", "bad", "good"),
    [
        (Address, {"street": "Elm", "number": "many"}, {"street": "Elm", "number": 1}),
        (Address, None, {"street": "Elm", "number": 1}),
        (Address, "text", {"street": "Elm", "number": 1}),
        (int, "text", 5),
        (bool, {"a": 1}, False),
        (list, 5, []),
        (dict, [1], {}),
        (list[int], ["text"], [1]),
        (dict[str, Address], {"a": {}}, {}),
        (int | None, "text", None),
    ],
    ids=lambda value: str(getattr(value, "__name__", value)),
)
async def test_a_payload_that_does_not_fit_is_refused_and_the_wait_goes_on(
    make_app: Any, runs: Any, model: Any, bad: Any, good: Any
) -> None:
    waiter = Waiter(model=model)
    async with make_app(waiter.workflow, worker=False) as app:
        handle = await parked(app, waiter.workflow)
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(InvalidInput) as caught:
            await app.resume(handle.id, bad)
        assert caught.value.http_status == 422
        assert await runs.find_one({"_id": handle.id}) == before
        assert await app.tick() == 0
        await app.resume(handle.id, good)
        await app.tick()
        assert await handle.status() == "done"
    assert len(waiter.got) == 1


async def test_a_misfit_from_a_process_that_does_not_know_the_model_does_not_end_the_wait(make_app: Any) -> None:
    clock, waiter = MovableClock(), Waiter(model=list[int], timeout="1h", default=[0])
    async with make_app(waiter.workflow, worker=False, clock=clock) as app, make_app(worker=False) as stranger:
        handle = await parked(app, waiter.workflow)
        due_at = (await handle.get()).due_at
        for _ in range(3):
            clock.move(minutes=10)
            with contextlib.suppress(InvalidInput):
                await stranger.resume(handle.id, ["text"])
            await app.tick()
            run = await handle.get()
            assert (run.status, run.due_at) == ("waiting", due_at), "its time goes on as before"
            assert waiter.got == []
        await app.resume(handle.id, [1])
        await app.tick()
    assert waiter.got == [[1]]


@pytest.mark.parametrize(
    ("payload", "expected"), [(object(), SerializationError), ("x" * 5_000_000, PayloadTooLarge)], ids=["odd", "large"]
)
async def test_a_payload_that_cannot_be_stored_is_refused_and_the_wait_goes_on(
    make_app: Any, runs: Any, payload: Any, expected: type[Exception]
) -> None:
    waiter = Waiter()
    async with make_app(waiter.workflow, worker=False) as app:
        handle = await parked(app, waiter.workflow)
        before = await runs.find_one({"_id": handle.id})
        with pytest.raises(expected):
            await app.resume(handle.id, payload)
        assert await runs.find_one({"_id": handle.id}) == before
        await app.resume(handle.id, "small")
