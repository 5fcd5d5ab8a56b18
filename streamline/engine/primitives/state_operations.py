"""The run's state in a handler's hands: its own copy, and operations that are carried out on what is stored.

Each entry of a handler begins with the state as it is stored. What was changed and not saved is gone, and will be
changed again; an operation that was carried out is part of it, and is not carried out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from copy import deepcopy
from typing import Any

from streamline.domain.change import Append, read
from streamline.domain.names import check_path_key
from streamline.domain.transitions.patching import Patch
from streamline.engine.held.branches import current
from streamline.engine.held.surroundings import Surroundings
from streamline.errors import InvalidKey

_ADDRESS = "#state"


async def save(attempt: Surroundings) -> None:
    """Store the state as the handler has it now."""
    change = attempt.state.change()
    if change is not None:
        attempt.state.keep(change)
        place, weight, growth = attempt.memo.place, change.weight, change.growth
        await attempt.holding.settle(Patch(place, change.put, change.drop, weight=weight, growth=growth))


async def inc(attempt: Surroundings, path: str, amount: float) -> None:
    """Add to a number of the state."""
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        raise InvalidKey("n: a number", field="n")

    def operate(state: Any) -> None:
        holder, name = _holder(state, path)
        _set(holder, name, _get(holder, name, 0) + amount)

    await _operate(attempt, path, operate, lambda _: {"add": {f"state.{path}": amount}})


async def push(attempt: Surroundings, path: str, value: Any) -> None:
    """Add a value at the end of a list of the state."""

    def operate(state: Any) -> None:
        holder, name = _holder(state, path)
        _set(holder, name, [*(_get(holder, name, None) or ()), value])

    def patch(encoded: Any) -> dict[str, Any]:
        return {"append": {f"state.{path}": Append((read(encoded, path)[-1],))}}

    await _operate(attempt, path, operate, patch)


async def put(attempt: Surroundings, path: str, key: str, value: Any) -> None:
    """Set a key of a mapping of the state."""
    full = f"{path}.{check_path_key(key, 'key')}" if path else check_path_key(key, "key")

    def operate(state: Any) -> None:
        holder, name = _holder(state, full)
        _set(holder, name, value)

    await _operate(attempt, full, operate, lambda encoded: {"put": {f"state.{full}": read(encoded, full)}}, makes=True)


async def drop(attempt: Surroundings, path: str, key: str) -> None:
    """Remove a key of a mapping of the state."""
    full = f"{path}.{check_path_key(key, 'key')}" if path else check_path_key(key, "key")

    def operate(state: Any) -> None:
        holder, name = _holder(state, full)
        if isinstance(holder, MutableMapping):
            holder.pop(name, None)
        else:
            raise InvalidKey(f"{full}: not a key of a mapping", field="key")

    await _operate(attempt, full, operate, lambda _: {"drop": (f"state.{full}",)}, makes=True)


async def _operate(
    attempt: Surroundings,
    path: str,
    operate: Callable[[Any], None],
    patch: Callable[[Any], dict[str, Any]],
    *,
    makes: bool = False,
) -> None:
    """Do to the handler's copy what is done to the stored state, once that is known to be sound."""
    for part in path.split("."):
        check_path_key(part, "path")
    if _is_settled(attempt):
        return
    trial = deepcopy(attempt.state.value)
    operate(trial)
    encoded = attempt.state.encode(trial)
    if not _is_reachable(attempt.state.stored, path, makes):
        await _store_whole(attempt, path, makes)
    await _settle(attempt, **patch(encoded.value))
    operate(attempt.state.value)
    attempt.state.know(path, encoded.value)


async def _store_whole(attempt: Surroundings, path: str, makes: bool) -> None:
    """Where the stored state does not hold what is operated on, defaults of its type do: store it as a whole, once."""
    async with attempt.holding.state_lock:
        if _is_reachable(attempt.state.stored, path, makes):
            return
        encoded = attempt.state.encode(attempt.state.value)
        if _is_reachable(encoded.value, path, makes):
            growth = encoded.size - attempt.state.stored_size
            put = {"state": encoded.value, "state_size": encoded.size}
            await attempt.holding.settle(Patch(attempt.memo.place, put, weight=encoded.size, growth=growth))


def _is_settled(attempt: Surroundings) -> bool:
    """Count one operation of the branch; return whether it was carried out before."""
    branch = current(attempt.root)
    address = branch.within(_ADDRESS)
    count = attempt.flags.operations.get(address, 0) + 1
    attempt.flags.operations[address] = count
    return bool(count <= (attempt.memo.entry(address) or {}).get("n", 0))


async def _settle(attempt: Surroundings, **parts: Any) -> None:
    branch, memo = current(attempt.root), attempt.memo
    address = branch.within(_ADDRESS)
    path, n = f"{memo.place.at}.memo.{address}", attempt.flags.operations[address]
    put = parts.pop("put", {})
    await attempt.holding.settle(
        Patch(
            memo.place,
            {**put, path: {"kind": "state", "n": n}},
            wanted=lambda run: (read(run, path) or {}).get("n", 0) < n,
            **parts,
        )
    )


def _is_reachable(stored: Any, path: str, makes: bool) -> bool:
    """Return whether the stored state has what holds the value at `path`, and the value unless that is to be made."""
    parents, _, name = path.rpartition(".")
    parent = read(stored, parents) if parents and isinstance(stored, Mapping) else stored
    return isinstance(parent, Mapping) and (makes or name in parent)


def _holder(state: Any, path: str) -> tuple[Any, str]:
    *parents, name = path.split(".")
    for part in parents:
        state = _get(state, part, None)
        if state is None:
            raise InvalidKey(f"{path}: the state has nothing there", field="path")
    return state, name


def _get(holder: Any, name: str, default: Any) -> Any:
    if isinstance(holder, Mapping):
        return holder.get(name, default)
    if isinstance(holder, list):
        return holder[int(name)]
    return getattr(holder, name, default)


def _set(holder: Any, name: str, value: Any) -> None:
    if isinstance(holder, MutableMapping):
        holder[name] = value
    elif isinstance(holder, list):
        holder[int(name)] = value
    else:
        setattr(holder, name, value)
