"""What came of an operation on many runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamline.domain.record import Record

SAMPLE_MAX = 100


@dataclass(frozen=True, slots=True)
class BulkFailure(Record):
    """A run that could not be changed, and why.

    Attributes:
        run_id: The run.
        code: The code of the error, such as ``"idempotency.conflict"``.
        message: The error's message.
    """

    run_id: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class BulkResult(Record):
    """What came of an operation on many runs.

    Attributes:
        matched: How many runs fitted the filter.
        changed: How many of them were changed; 0 where it was only asked what would be.
        skipped: How many had changed meanwhile, so that the operation did not apply to them any more.
        failed: How many could not be changed.
        run_ids: The first of those that were changed, or would be; at most 100.
        failures: The first of those that could not be changed; at most 100.
        dry_run: Whether it was only asked what would be changed.
    """

    matched: int = 0
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    run_ids: tuple[str, ...] = ()
    failures: tuple[BulkFailure, ...] = ()
    dry_run: bool = False


@dataclass(slots=True)
class Tally:
    """Counts what comes of each run; it holds a bounded number of them, however many there are."""

    matched: int = 0
    changed: int = 0
    skipped: int = 0
    failed: int = 0
    run_ids: list[str] = field(default_factory=list)
    failures: list[BulkFailure] = field(default_factory=list)

    def show(self, run_id: str) -> None:
        """Show a run, while there is room."""
        if len(self.run_ids) < SAMPLE_MAX:
            self.run_ids.append(run_id)

    def change(self, run_id: str) -> None:
        """Count a run that was changed."""
        self.changed += 1
        self.show(run_id)

    def fail(self, failure: BulkFailure) -> None:
        """Count a run that could not be changed."""
        self.failed += 1
        if len(self.failures) < SAMPLE_MAX:
            self.failures.append(failure)

    def result(self, *, dry_run: bool) -> BulkResult:
        """Return what was counted."""
        counts = (self.matched, self.changed, self.skipped, self.failed)
        return BulkResult(*counts, tuple(self.run_ids), tuple(self.failures), dry_run)
