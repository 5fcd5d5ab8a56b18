"""Durable loops: the state between two turns is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, get_args, get_origin

from streamline.domain.annotations import return_annotation
from streamline.domain.payloads import ANY, Codec, codec_of
from streamline.engine.held.branches import current
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives.calling import invoke
from streamline.errors import InvalidPolicy, NonRetriableError

S = TypeVar("S")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Continue(Generic[S]):
    """Returned by the body of a loop: another turn, with this state."""

    state: S


@dataclass(frozen=True, slots=True)
class Done(Generic[V]):
    """Returned by the body of a loop: the loop is over, with this value."""

    value: V


async def loop(
    attempt: Surroundings, key: str, initial: Any, body: Callable[[Any, int], Any], *, max_iterations: int
) -> Any:
    """Return the value with which `body` ends the loop; each turn that is over is kept.

    Raises:
        NonRetriableError: It has not ended after `max_iterations` turns.
    """
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int) or max_iterations < 1:
        raise InvalidPolicy("max_iterations: a whole number of at least 1", field="max_iterations")
    branch = current(attempt.root)
    address, entry = attempt.memo.find(branch, "loop", key)
    codec, done = _codecs(body, initial, f"loop {key}")
    state, turn = initial, 0
    if entry is not None:
        turn, state = entry["turn"], codec.decode(entry["state"]) if "state" in entry else None
    while entry is None or "output" not in entry:
        if turn >= max_iterations:
            raise NonRetriableError(f"loop {key!r}: not done after {max_iterations} turns")
        inner = branch.child(f"{address}[{turn}]")
        said = await attempt.watched(inner, inner.path, partial(invoke, attempt, inner, body, (state, turn)))
        entry = await _turned(attempt, address, said, codec, done, turn)
        turn, state = entry["turn"], codec.decode(entry["state"]) if "state" in entry else None
    return done.decode(entry["output"])


async def _turned(
    attempt: Surroundings, address: str, said: Any, codec: Codec, done: Codec, turn: int
) -> Mapping[str, Any]:
    """Store the end of a turn, or of the loop, and return the entry."""
    memo = attempt.memo
    inner = memo.addresses_within(f"{address}[{turn}]")
    if isinstance(said, Done):
        encoded = done.encode(said.value, f"loop {address}")
        attempt.check_size(encoded, f"loop {address}")
        entry = {"kind": "loop", "turn": turn, "output": encoded.value}
        return await memo.settle(address, entry, size=encoded.size, drop=inner)
    if not isinstance(said, Continue):
        raise NonRetriableError(f"loop {address}: its body returns Continue(state) or Done(value)")
    encoded = codec.encode(said.state, f"loop {address}")
    attempt.check_size(encoded, f"loop {address}")
    entry = {"kind": "loop", "turn": turn + 1, "state": encoded.value}
    return await memo.settle(address, entry, size=encoded.size, drop=inner, spills=False)


def _codecs(body: Callable[..., Any], initial: Any, where: str) -> tuple[Codec, Codec]:
    """Return the codecs of states and of the value, as the body's return annotation says of `Continue` and `Done`."""
    annotation = return_annotation(body, where)
    said = {get_origin(option): get_args(option) for option in get_args(annotation) or (annotation,)}
    said |= {get_origin(annotation): get_args(annotation)}
    codecs = {kind: Codec(said[kind][0], where) for kind in (Continue, Done) if said.get(kind)}
    return codecs.get(Continue, codec_of(initial)), codecs.get(Done, ANY)
