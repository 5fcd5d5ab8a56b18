"""Fanning out: branches of a handler at work at the same time, each kept as soon as it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Literal, TypeVar

from streamline.domain.annotations import return_codec
from streamline.domain.names import check_path_key
from streamline.domain.payloads import Codec, Encoded
from streamline.engine.held.branches import Branch, Jump, Suspension, current, escaped
from streamline.engine.held.surroundings import Surroundings
from streamline.engine.held.watching import is_being_cancelled
from streamline.engine.primitives.calling import invoke
from streamline.engine.primitives.kept_failures import kept_failure, raised_again, stands
from streamline.errors import InvalidPolicy, NonDeterministicStep

T = TypeVar("T")

_FAILURE_BYTES = 300  # of a stored failure, beside its message

Mode = Literal["all", "any", "race", "settled"]
OnBranchError = Literal["fail", "collect"]


class Collected(list[T], Generic[T]):
    """The results of `each` in the order of the items; None where an item failed.

    Attributes:
        errors: What failed, by index: ``{"code", "type", "message", ...}`` as it is stored.
    """

    def __init__(self, results: Sequence[T], errors: Mapping[int, Mapping[str, Any]]) -> None:
        super().__init__(results)
        self.errors = dict(errors)


@dataclass(frozen=True, slots=True)
class Settled:
    """How one branch or child ended.

    Attributes:
        status: ``"done"``, or how else it ended.
        value: What it returned.
        error: What failed, as it is stored: ``{"code", "type", "message", ...}``.
    """

    status: str
    value: Any = None
    error: Mapping[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether it is done."""
        return self.status == "done"


@dataclass(slots=True)
class _Job:
    """One branch to be carried out."""

    name: str
    path: str
    codec: Codec
    work: Callable[..., Any]
    args: tuple[Any, ...] = ()
    branch: Branch | None = None
    error: BaseException | None = None


async def each(
    attempt: Surroundings,
    key: str,
    items: Sequence[Any],
    fn: Callable[..., Any],
    *,
    concurrency: int | None,
    on_error: OnBranchError,
) -> list[Any]:
    """Return what `fn` returns for each item, in the order of the items."""
    if on_error not in ("fail", "collect"):
        raise InvalidPolicy('on_error: "fail" or "collect"', field="on_error")
    branch, codec = current(attempt.root), return_codec(fn, f"each {key}")
    address, entry = attempt.memo.find(branch, "each", key)
    items = list(items)
    jobs = [_Job(str(i), f"{address}[{i}]", codec, fn, (item, i)) for i, item in enumerate(items)]
    fan = _Fan(attempt, branch, address, {"kind": "each", "n": len(items)}, collects=on_error == "collect")
    if entry is None or not entry.get("done"):
        fan.check(entry)
        await fan.run(jobs, _checked_concurrency(concurrency), stop=fan.is_broken_by)
        await fan.settle(jobs)
    results = [fan.result(job) for job in jobs]
    failed = {i: each.error for i, each in enumerate(results) if each.error is not None}
    return Collected([each.value for each in results], failed)


async def gather(
    attempt: Surroundings,
    key: str,
    branches: Mapping[str, Callable[[], Any]],
    *,
    mode: Mode,
    concurrency: int | None,
) -> dict[str, Any]:
    """Return what the branches return, by name; of ``"any"`` and ``"race"`` the one that decided."""
    if mode not in ("all", "any", "race", "settled"):
        raise InvalidPolicy('mode: "all", "any", "race" or "settled"', field="mode")
    branch = current(attempt.root)
    address, entry = attempt.memo.find(branch, "gather", key)
    paths = {name: f"{address}/{escaped(check_path_key(name, 'branches'))}" for name in branches}
    jobs = [_Job(name, paths[name], return_codec(fn, f"gather {key}/{name}"), fn) for name, fn in branches.items()]
    fan = _Fan(attempt, branch, address, {"kind": "gather", "names": list(branches)}, collects=mode != "all")
    if entry is None or not entry.get("done"):
        fan.check(entry)
        await fan.run(jobs, _checked_concurrency(concurrency), stop=partial(_decides, fan, mode))
        winner = _winner(fan, jobs, mode)
        if mode in ("any", "race") and jobs:
            fan.check_winner(jobs, winner)
        await fan.settle(jobs, winner=winner)
    return _gathered(fan, jobs, mode)


class _Fan:
    """Branches that start from one place in a handler, and what is stored of them."""

    def __init__(
        self, attempt: Surroundings, branch: Branch, address: str, header: Mapping[str, Any], *, collects: bool
    ) -> None:
        self._attempt = attempt
        self._branch = branch
        self._header = header
        self._collects = collects
        self._is_headed = attempt.memo.entry(address) is not None
        self.address = address

    def check(self, entry: Mapping[str, Any] | None) -> None:
        """Raise `NonDeterministicStep` where another number or other names of branches were begun."""
        if entry is not None and any(entry.get(name) != value for name, value in self._header.items()):
            raise NonDeterministicStep(
                f"{self.address}: it was begun with other items or branches; they must be the same at each re-entry",
                field=self.address,
            )

    def entry(self, job: _Job) -> Mapping[str, Any] | None:
        """Return what is stored of a branch that has ended, or None; an earlier attempt's failure does not count."""
        entry = self._attempt.memo.entry(job.path)
        is_old = entry is not None and "failed_in" in entry and not stands(self._attempt, entry)
        return None if is_old and not self.is_done else entry

    @property
    def is_done(self) -> bool:
        """Whether nothing more is to be done."""
        return bool((self._attempt.memo.entry(self.address) or {}).get("done"))

    def result(self, job: _Job) -> Settled:
        """Return how a branch ended."""
        entry = self.entry(job)
        if entry is None:
            return Settled("cancelled")
        if entry.get("failed"):
            return Settled("failed", error=entry["error"])
        return Settled("done", job.codec.decode(entry["output"]))

    async def run(self, jobs: Sequence[_Job], concurrency: int, *, stop: Callable[[_Job], bool]) -> None:
        """Carry out the branches that have not ended, so many at once, until one says stop, or all have ended.

        Raises:
            Suspension: What has not ended waits.
        """
        waiting = [job for job in jobs if self.entry(job) is None]
        if any(stop(job) for job in jobs if self.entry(job) is not None):
            return
        quorum, running = self._branch.quorum, dict[asyncio.Task[None], _Job]()
        quorum.sleep(self._branch)
        if not self._is_headed:
            self._attempt.flags.pending[self.address] = self._header
        stopped, suspended = False, False
        try:
            while waiting or running:
                while waiting and len(running) < concurrency and not (suspended or quorum.suspended):
                    job = waiting.pop(0)
                    job.branch = self._branch.beside(job.path)
                    quorum.begin()
                    running[asyncio.ensure_future(self._carry_out(job))] = job
                if not running:
                    break
                quorum.check()
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    job = running.pop(task)
                    suspended = self._take(task, job) or suspended
                    stopped = stopped or stop(job)
                if stopped:
                    break
        finally:
            quorum.wake(self._branch)
            await self._end(running)
            if not suspended:
                self._attempt.flags.pending.pop(self.address, None)
        if (suspended or waiting) and not stopped:
            raise Suspension

    def _take(self, task: asyncio.Task[None], job: _Job) -> bool:
        """Note how a branch ended; return whether it waits. One that waits was counted out when it went to sleep."""
        if task.cancelled():
            job.error = asyncio.CancelledError()
        else:
            job.error = task.exception()
        assert job.branch is not None
        self._branch.quorum.end(job.branch)
        if isinstance(job.error, Suspension):
            job.error = None
            return True
        if isinstance(job.error, Jump):
            raise job.error
        return False

    async def _end(self, running: dict[asyncio.Task[None], _Job]) -> None:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for job in running.values():
            if job.branch is not None:
                self._branch.quorum.end(job.branch)

    async def _carry_out(self, job: _Job) -> None:
        branch, size = job.branch or self._branch.beside(job.path), 0
        work = partial(invoke, self._attempt, branch, job.work, job.args)
        try:
            encoded = job.codec.encode(await self._attempt.watched(branch, job.path, work), job.path)
            self._attempt.check_size(encoded, job.path)
            entry, size = {"kind": "branch", "output": encoded.value}, encoded.size
        except (Exception, asyncio.CancelledError) as error:
            if is_being_cancelled():
                raise
            job.error = error
            if not self._collects:
                raise
            entry = kept_failure(self._attempt, "branch", error)
            size = _FAILURE_BYTES + len(entry["error"]["message"])
            self._attempt.check_size(Encoded(None, size), job.path)
        memo = self._attempt.memo
        put = {} if self._is_headed else {f"{memo.place.at}.memo.{self.address}": dict(self._header)}
        self._is_headed = True
        inner, spills = memo.addresses_within(job.path), "failed" not in entry
        await memo.settle(job.path, entry, size=size, drop=inner, put=put, spills=spills)

    async def settle(self, jobs: Sequence[_Job], *, winner: _Job | None = None) -> None:
        """Store that nothing more is to be done, or raise what failed."""
        error = next((job.error for job in jobs if job.error is not None), None)
        if error is not None and not self._collects:
            raise error
        memo, unfinished = self._attempt.memo, [job for job in jobs if self.entry(job) is None]
        gone = [address for job in unfinished for address in memo.addresses_within(job.path)]
        header = {**self._header, "done": True} | ({} if winner is None else {"winner": winner.name})
        await memo.settle(self.address, header, drop=gone, spills=False)

    def is_broken_by(self, job: _Job) -> bool:
        """Return whether a branch that failed ends the others."""
        return not self._collects and job.error is not None

    def check_winner(self, jobs: Sequence[_Job], winner: _Job | None) -> None:
        """Raise what failed where no branch has won: the step's own policy says whether all is tried again."""
        decisive = winner or jobs[0]
        entry = self.entry(decisive)
        if entry is not None and "failed" in entry:
            raise decisive.error or raised_again(entry)

    def winner(self) -> str | None:
        """Return the name of the branch that decided."""
        return (self._attempt.memo.entry(self.address) or {}).get("winner")


def _decides(fan: _Fan, mode: Mode, job: _Job) -> bool:
    if mode == "settled":
        return False
    if mode == "all":
        return fan.is_broken_by(job)
    entry = fan.entry(job)
    return entry is not None and (mode == "race" or not entry.get("failed"))


def _winner(fan: _Fan, jobs: Sequence[_Job], mode: Mode) -> _Job | None:
    return next((job for job in jobs if _decides(fan, mode, job)), None) if mode in ("any", "race") else None


def _gathered(fan: _Fan, jobs: Sequence[_Job], mode: Mode) -> dict[str, Any]:
    results = {job.name: fan.result(job) for job in jobs}
    if mode == "settled":
        return results
    if mode == "all":
        return {name: result.value for name, result in results.items()}
    winner = fan.winner()
    return {} if winner is None else {winner: results[winner].value}


def _checked_concurrency(concurrency: int | None) -> int:
    if concurrency is None:
        return 10_000
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidPolicy("concurrency: a whole number of at least 1", field="concurrency")
    return concurrency
