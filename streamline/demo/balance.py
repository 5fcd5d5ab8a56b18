"""The end of the demonstration: what the runs say, what the payment service says, and whether both say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamline import Run


@dataclass(slots=True)
class Figures:
    """What happened, counted from the stored runs and from the ledger of the payment service.

    Attributes:
        lines: Lines of the order file.
        refused: Lines that did not become a run, by error.
        accepted: Runs that were started.
        done: Runs by the number of their order, which is the run's id, with currency and amount.
        unfinished: Runs that are not done, with their status.
        retried: Attempts that failed and were followed by another.
        recovered: Runs that lost their worker and are done all the same.
        ledger: The service's report.
        seconds: From the first start to the last end.
    """

    lines: int
    accepted: int
    refused: Counter[str]
    ledger: Mapping[str, Any]
    done: dict[str, tuple[str, int]] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)
    retried: int = 0
    recovered: int = 0
    seconds: float = 0.0

    async def count(self, runs: AsyncIterable[Run]) -> None:
        """Take in the stored runs."""
        begins, ends = [], []
        async for run in runs:
            if run.status != "done":
                self.unfinished[run.id] = run.status
                continue
            self.done[run.id] = (run.input.currency, run.input.amount)
            self.recovered += run.recovery_count > 0
            # An attempt that lost its worker counts as one, but it was not the step that failed.
            self.retried += sum(step.attempt - 1 for step in run.steps) - run.recovery_count
            begins.append(run.created_at)
            ends.append(run.ended_at or run.updated_at)
        if begins:
            self.seconds = (max(ends) - min(begins)).total_seconds()

    @property
    def charges(self) -> Counter[str]:
        """How often each order was charged, by the ledger."""
        return Counter(booking["order_id"] for booking in self.ledger["bookings"])

    @property
    def revenue(self) -> dict[str, tuple[int, int]]:
        """Sum of the orders that are done and sum of the charges, by currency, in cents."""
        orders: Counter[str] = Counter()
        charged: Counter[str] = Counter()
        for currency, amount in self.done.values():
            orders[currency] += amount
        for booking in self.ledger["bookings"]:
            charged[booking["currency"]] += booking["amount"]
        return {currency: (orders[currency], charged[currency]) for currency in sorted(orders | charged)}

    def differences(self) -> list[str]:
        """Return what does not agree, one sentence each; nothing if all is well."""
        charges = self.charges
        found = [f"order {order} was charged {n} times" for order, n in charges.items() if n > 1]
        found += [f"order {order} is done but was not charged" for order in self.done if order not in charges]
        found += [f"order {order} was charged but is not done" for order in charges if order not in self.done]
        found += [f"order {order} is {status}, not done" for order, status in self.unfinished.items()]
        found += [f"{name}: {a} ordered, {b} charged" for name, (a, b) in self.revenue.items() if a != b]
        if len(self.done) + len(self.unfinished) != self.accepted:
            found.append(f"{self.accepted} runs were started, {len(self.done) + len(self.unfinished)} are stored")
        if self.accepted + self.refused.total() != self.lines:
            found.append(f"{self.lines} lines, but {self.accepted} accepted and {self.refused.total()} refused")
        return found

    def rows(self) -> list[tuple[str, str]]:
        """Return the lines of the closing table."""
        report = self.ledger
        faults = Counter(report["faults"])
        return [
            ("orders in the file", f"{self.lines}"),
            ("orders refused", f"{self.refused.total()}"),
            *((f"  with {name}", f"{n}") for name, n in sorted(self.refused.items())),
            ("orders done", f"{len(self.done)}"),
            ("orders not done", f"{len(self.unfinished)}"),
            ("attempts retried", f"{self.retried}"),
            ("recovered after the kill", f"{self.recovered}"),
            ("requests to the payment service", f"{report['requests']}"),
            ("  answered with 503", f"{faults['fail'] + faults['fail_charged']}"),
            ("  left without an answer in time", f"{faults['stall']}"),
            ("  repeated a key already charged", f"{report['repeated']}"),
            ("charges seen by the payment service", f"{len(report['bookings'])}"),
            *(
                (f"  {name}, orders / charges", f"{a / 100:,.2f} / {b / 100:,.2f}")
                for name, (a, b) in self.revenue.items()
            ),
            ("seconds", f"{self.seconds:.1f}"),
            ("runs per second", f"{len(self.done) / self.seconds:.1f}" if self.seconds else "-"),
        ]
