"""Child runs: started once, waited for without cost, their ends read from where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamline.domain.definition import Definition
from streamline.domain.names import check_path_key
from streamline.domain.payloads import ANY, Encoded
from streamline.domain.run import read_output
from streamline.domain.statuses import TERMINAL
from streamline.engine.held.branches import Branch, current
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.primitives.fanning import Settled
from streamline.engine.primitives.waiting import park_on
from streamline.errors import ChildFailed, InvalidInput, InvalidPolicy
from streamline.features.joining import JoinPolicy, check_policy, child_id, standing

OnParentClose = Literal["cancel", "abandon"]


class ChildRun(str):
    """The id of a child that was started and is not waited for."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """The child's run id."""
        return str(self)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A child to be started."""

    name: str
    definition: Definition
    input: Any


async def start_child(
    attempt: Surroundings, workflow: Any, value: Any, *, key: str | None, wait: bool, on_parent_close: OnParentClose
) -> Any:
    """Start a child once; return its output when it is done, or its id at once where it is not waited for."""
    _check_closing(on_parent_close)
    branch, definition = current(attempt.root), attempt.definition_of(workflow)
    address, entry = attempt.memo.find(branch, "child", key, name=definition.name)
    wanted = (Wanted("", definition, value),)
    if not wait:
        return await _detach(attempt, address, entry, wanted, on_parent_close)
    children = await _joined(attempt, branch, address, "child", wanted, "all", on_parent_close, name=definition.name)
    return _output_of(attempt, children[""])


async def join(
    attempt: Surroundings,
    children: Mapping[str, tuple[Any, Any]],
    *,
    policy: JoinPolicy,
    key: str | None,
    on_parent_close: OnParentClose,
) -> dict[str, Any]:
    """Start children and return their outputs by name, once enough of them have ended."""
    _check_closing(on_parent_close)
    if not isinstance(children, Mapping) or not children:
        raise InvalidInput("children: a mapping of names to (workflow, input)", field="children")
    check_policy(policy, len(children))
    branch = current(attempt.root)
    address, _ = attempt.memo.find(branch, "join", key)
    wanted = [
        Wanted(check_path_key(name, "children"), attempt.definition_of(workflow), value)
        for name, (workflow, value) in children.items()
    ]
    ended = await _joined(attempt, branch, address, "join", wanted, policy, on_parent_close)
    if policy == "settled":
        return {name: _settled(attempt, child) for name, child in ended.items()}
    return {name: _output_of(attempt, child) for name, child in ended.items()}


async def _detach(
    attempt: Surroundings, address: str, entry: Any, wanted: Sequence[Wanted], on_parent_close: OnParentClose
) -> ChildRun:
    if entry is None:
        began = {"kind": "child", "name": wanted[0].definition.name, "fan": _fan(attempt, address)}
        entry = await attempt.memo.settle(address, began, spills=False, put={"children": True})
    if "output" not in entry:
        ids = await attempt.spawn(wanted, fan=entry["fan"], policy=None, on_parent_close=on_parent_close)
        entry = await attempt.memo.settle(address, {**entry, "output": ids[0]}, spills=False)
    return ChildRun(entry["output"])


async def _joined(
    attempt: Surroundings,
    branch: Branch,
    address: str,
    kind: str,
    wanted: Sequence[Wanted],
    policy: JoinPolicy,
    on_parent_close: OnParentClose,
    *,
    name: str | None = None,
) -> dict[str, Mapping[str, Any]]:
    """Return the children that decided a join, by name; all of them where that is "settled"."""
    entry = attempt.memo.entry(address)
    if entry is None:
        # That there are children is on record before there are any: whatever ends the run, they are thought of.
        began = {"kind": kind, "fan": _fan(attempt, address), "on_close": on_parent_close}
        began |= {} if name is None else {"name": name}
        entry = await attempt.memo.settle(address, began, spills=False, put={"children": True})
        await attempt.spawn(wanted, fan=entry["fan"], policy=policy, on_parent_close=on_parent_close)
    checked = False
    while "output" not in entry:
        found = await _read(attempt, entry["fan"], wanted)
        if not checked and any(each["status"] == "missing" for each in found):
            # The process died between the record and the children.
            await attempt.spawn(wanted, fan=entry["fan"], policy=policy, on_parent_close=on_parent_close)
            checked = True
            continue
        stands = standing(found, policy)
        if stands.met:
            entry = await _settle(attempt, address, entry, wanted, found, stands.decisive, failed=stands.failed)
        else:
            await park_on(attempt, branch, address, entry, None)
    return {each["name"]: each for each in entry["output"]}


async def _read(attempt: Surroundings, fan: str, wanted: Sequence[Wanted]) -> list[Mapping[str, Any]]:
    stored = {child["_id"]: child for child in await attempt.children(fan)}
    ids = [child_id(attempt.holding.run, fan, each.name) for each in wanted]
    return [stored.get(run_id, {"_id": run_id, "status": "missing"}) for run_id in ids]


async def _settle(
    attempt: Surroundings,
    address: str,
    entry: Mapping[str, Any],
    wanted: Sequence[Wanted],
    found: Sequence[Mapping[str, Any]],
    decisive: Sequence[int],
    *,
    failed: bool,
) -> Mapping[str, Any]:
    """Store how the decisive children ended; the others are no longer wanted."""
    await attempt.close_children([each for each in found if each["status"] not in TERMINAL])
    output = [_kept(wanted[i].name, found[i]) for i in sorted(decisive)]
    encoded: Encoded = ANY.encode(output, f"join {address}")
    attempt.check_size(encoded, f"join {address}")
    fresh = {name: entry[name] for name in ("kind", "name", "fan") if name in entry}
    fresh |= {"output": encoded.value} | ({"failed": True} if failed else {})
    return await attempt.memo.settle(address, fresh, size=encoded.size, spills=not failed)


def _kept(name: str, child: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"name": name, "id": child["_id"], "route": f"{child['workflow']}@{child['version']}"}
    kept |= {field: child[field] for field in ("status", "output", "error") if child.get(field) is not None}
    return kept | {"skipped": child["steps"][-1]["status"] != "done"}


def _output_of(attempt: Surroundings, child: Mapping[str, Any]) -> Any:
    settled = _settled(attempt, child)
    if settled.ok:
        return settled.value
    error = child.get("error") or {}
    raise ChildFailed(
        f"child {child['id']} is {settled.status}: {error.get('type')}: {error.get('message')}",
        run_id=child["id"],
        status=settled.status,
        error=error,
    )


def _settled(attempt: Surroundings, child: Mapping[str, Any]) -> Settled:
    if child["status"] != "done":
        return Settled(child["status"], error=child.get("error"))
    document = {**child, "_id": child["id"], "steps": [{"status": "skipped" if child["skipped"] else "done"}]}
    return Settled("done", read_output(document, attempt.serving(child["route"])))


def _fan(attempt: Surroundings, address: str) -> str:
    return f"{attempt.step.id}.{attempt.generation}.{address}"


def _check_closing(on_parent_close: object) -> None:
    if on_parent_close not in ("cancel", "abandon"):
        raise InvalidPolicy('on_parent_close: "cancel" or "abandon"', field="on_parent_close")
