"""Every knob, with its unit, its default and the reason for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from ipaddress import ip_network
from typing import Literal

from streamline.domain.durations import Duration, parse_duration
from streamline.domain.policies import RetryPolicy
from streamline.errors import InvalidPolicy

MIB = 1024 * 1024
SECRET_MIN = 8
_LEAST = {"log_retention": timedelta(minutes=1), "subscriber_lease": timedelta(milliseconds=200)}
_OVER_HOURS = RetryPolicy(max_attempts=8, delay="5s", backoff=6, max_delay="4h")
_READINGS = {"lease": "lease_time", "poll_interval": "poll_time", "drain": "drain_time", "cancel_grace": "grace_time"}


@dataclass(frozen=True, slots=True)
class Worker:
    """How a process works on runs.

    Args:
        concurrency: Runs driven at once; 1 to 10,000. Handlers share one event loop, so this bounds memory, not CPU.
        lease: How long a worker that stopped beating keeps its runs; at least 200 ms. The default outlives a failover
            of the database (11 s with server defaults, 13.6 s where a member hangs) with a heartbeat to spare. It beats
            every quarter of it.
        poll_interval: Longest pause between two looks for due runs. Wakes and timers make pickup immediate; this bounds
            the delay where a wake was lost, and what an idle worker costs.
        claim_batch: Runs claimed by one statement at most; 1 to 1,000. Larger batches cost fewer commands and spread
            work less evenly over workers.
        drain: How long a stopping worker goes on with its runs before it ends their handlers and releases them.
        cancel_grace: How long a handler may take to end once it was told to.
        on_lost: What becomes of a run whose worker stopped beating in the middle of it: ``"recover"``, it is taken over
            and the step is attempted again; ``"fail"``, it fails with the code ``stale_heartbeat`` and is compensated
            like after any failure; ``"cancel"``, it is cancelled for that reason. The worker that finds it decides. A
            run that is being compensated is always taken over.
        max_recoveries: How often a run may lose its worker in one step before it is dead-lettered; at least 0.
        threads: Threads for plain ``def`` handlers; 1 to 1,000.
    """

    concurrency: int = 100
    lease: Duration = "30s"
    poll_interval: Duration = "5s"
    claim_batch: int = 256
    drain: Duration = "10s"
    cancel_grace: Duration = "5s"
    on_lost: Literal["recover", "fail", "cancel"] = "recover"
    max_recoveries: int = 10
    threads: int = 32
    lease_time: timedelta = field(init=False, repr=False, compare=False)
    poll_time: timedelta = field(init=False, repr=False, compare=False)
    drain_time: timedelta = field(init=False, repr=False, compare=False)
    grace_time: timedelta = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the durations and refuse what cannot work."""
        _whole(self, "concurrency", 1, 10_000)
        _whole(self, "claim_batch", 1, 1_000)
        _whole(self, "max_recoveries", 0, 1_000_000)
        if self.on_lost not in ("recover", "fail", "cancel"):
            raise InvalidPolicy('on_lost: "recover", "fail" or "cancel"', field="on_lost")
        _whole(self, "threads", 1, 1_000)
        for name, read in _READINGS.items():
            object.__setattr__(self, read, parse_duration(getattr(self, name), name))
        if self.lease_time < timedelta(milliseconds=200):
            raise InvalidPolicy("lease: at least 200 ms", field="lease")
        if self.poll_seconds <= 0:
            raise InvalidPolicy("poll_interval: more than zero", field="poll_interval")

    @property
    def lease_seconds(self) -> float:
        """How long a claim holds without a heartbeat, in seconds."""
        return self.lease_time.total_seconds()

    @property
    def beat_seconds(self) -> float:
        """Seconds between heartbeats: three may fail before the lease runs out."""
        return self.lease_time.total_seconds() / 4

    @property
    def poll_seconds(self) -> float:
        """Longest pause between polls, in seconds."""
        return self.poll_time.total_seconds()

    @property
    def drain_seconds(self) -> float:
        """How long a stopping worker waits for its handlers, in seconds."""
        return self.drain_time.total_seconds()

    @property
    def grace_seconds(self) -> float:
        """How long a cancelled handler may take to end, in seconds."""
        return self.grace_time.total_seconds()


@dataclass(frozen=True, slots=True)
class Settings:
    """What concerns the app as a whole.

    Args:
        payload_warn: Bytes of one input, output or state above which a warning is logged; large values slow every write
            of the run.
        payload_max: Bytes of one such value above which it is refused; a workflow may set its own.
        document_max: Bytes above which a run stops growing: 4 MiB below the database's 16, so that its failure can
            still be written.
        lanes: Commands of batched writes in flight at once; 1 to 16. Two keep the server busy while a batch is put
            together; more make the batches smaller.
        batch: Writes in one command at most; 1 to 1,000.
        operations: Other commands in flight at once; 1 to 1,000. The driver lets waiters starve beyond some sixteen.
        call_timeout: How long one command may take.
        patience: How long a verb goes on trying while the database is away, before ``StoreUnavailable``.
        transaction_patience: How long a transactional step is tried again, not counted as a failed attempt, while
            others write what it writes. The default outlives the transaction of a process that was killed, which the
            server ends after 60 to 90 s by its own default.
        driver: Which driver a connection string is opened with; ``"motor"`` needs the extra of that name. PyMongo's
            async client costs less; Motor suits an app that holds Motor clients anyway.
        max_jumps: How often a run may go on at another step with ``ctx.goto``; 1 to 1,000,000, against loops that
            nobody meant.
        event_retention: How long an event is kept for runs that wait for it later.
        event_early: How long before a run's beginning an event may have been sent that the run gets all the same, where
            it has reached nobody.
        max_chain: How many runs may start one another through triggers; 1 to 1,000,000, against loops.
        wake_channel: Whether processes tell one another of due work. Without it, pickup waits for the next poll.
        log_retention: How long the event log keeps what happened; at least one minute. Subscribers that are behind by
            more miss what is gone, and say so.
        subscriber_lease: How long a process that stopped beating keeps the subscribers that it drives; at least 200 ms.
        wakes_size: Bytes of the capped collection behind the wake channel; at least 4,096.
        webhook_networks: Networks such as ``"10.0.0.0/8"`` that webhooks may be sent to besides public addresses, also
            by plain http. Users who may name a URL reach whatever is listed here.
        webhook_timeout: How long one delivery of a webhook may take. Receivers answer first and work then.
        webhook_retry: When a delivery that failed is tried again, and how often before it is a dead letter. The default
            spreads eight attempts over some ten hours.
        webhook_failures: After how many failed deliveries in a row an endpoint is disabled; 1 to 1,000,000.
        webhook_failing: For how long they must have failed by then, so that a short outage under load disables nothing;
            less than the retries take, so that an endpoint that is gone is disabled before events become dead letters.
        slow_query: From how long on a page or count of runs is looked into: where it read far more runs than it found,
            the logger ``streamline.queries`` and the event ``query.scanned`` tell which index is missing. Each shape of
            a question once a minute at most, as it is carried out once more for that; None for never.
        create_indexes: Whether opening an app creates the indexes and collections that are missing. Without it, opening
            only looks: it is refused where a unique index is missing, and warns of others. For processes that may not
            create any: ``python -m streamline indexes`` does, at each deploy.
        development: Whether a workflow may change its steps under the same version. Runs under way may then no longer
            fit their code, so it is for databases whose runs do not matter.
    """

    payload_warn: int = MIB
    payload_max: int = 4 * MIB
    document_max: int = 12 * MIB
    lanes: int = 2
    batch: int = 128
    operations: int = 16
    call_timeout: Duration = "10s"
    patience: Duration = "30s"
    transaction_patience: Duration = "2m"
    driver: Literal["pymongo", "motor"] = "pymongo"
    max_jumps: int = 10_000
    event_retention: Duration = "7d"
    event_early: Duration = "5m"
    max_chain: int = 100
    wake_channel: bool = True
    wakes_size: int = 256 * 1024
    log_retention: Duration = "7d"
    subscriber_lease: Duration = "10s"
    webhook_networks: Sequence[str] = ()
    webhook_timeout: Duration = "10s"
    webhook_retry: RetryPolicy = _OVER_HOURS
    webhook_failures: int = 20
    webhook_failing: Duration = "4h"
    slow_query: Duration | None = "500ms"
    create_indexes: bool = True
    development: bool = False

    def __post_init__(self) -> None:
        """Read the durations and refuse what cannot work."""
        for item in fields(self):
            if item.type == "int":
                _whole(self, item.name, 1, 1024 * MIB)
        for name in ("create_indexes", "development"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidPolicy(f"{name}: True or False", field=name)
        if self.driver not in ("pymongo", "motor"):
            raise InvalidPolicy('driver: "pymongo" or "motor"', field="driver")
        _whole(self, "lanes", 1, 16)
        _whole(self, "max_jumps", 1, 1_000_000)
        _whole(self, "max_chain", 1, 1_000_000)
        _whole(self, "batch", 1, 1_000)
        _whole(self, "operations", 1, 1_000)
        _whole(self, "wakes_size", 4096, 1024 * MIB)
        parse_duration(self.event_early, "event_early")
        if self.slow_query is not None:
            object.__setattr__(self, "slow_query", parse_duration(self.slow_query, "slow_query"))
        for name in (
            "call_timeout", "patience", "transaction_patience", "log_retention", "subscriber_lease", "event_retention",
            "webhook_timeout",
        ):  # fmt: skip
            object.__setattr__(self, name, parse_duration(getattr(self, name), name, positive=True))
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise InvalidPolicy(f"{name}: at least {least.total_seconds():g} s", field=name)
        _whole(self, "webhook_failures", 1, 1_000_000)
        if not isinstance(self.webhook_retry, RetryPolicy):
            raise InvalidPolicy("webhook_retry: a RetryPolicy", field="webhook_retry")
        _check_networks(self.webhook_networks)
        object.__setattr__(self, "webhook_failing", parse_duration(self.webhook_failing, "webhook_failing"))

    @property
    def slow_query_seconds(self) -> float:
        """From how long on a question is looked into, in seconds."""
        return math.inf if self.slow_query is None else parse_duration(self.slow_query, "slow_query").total_seconds()

    @property
    def call_seconds(self) -> float:
        """How long one command may take, in seconds."""
        return parse_duration(self.call_timeout, "call_timeout").total_seconds()

    @property
    def log_time(self) -> timedelta:
        """How long the event log keeps an entry."""
        return parse_duration(self.log_retention, "log_retention")

    @property
    def subscriber_lease_time(self) -> timedelta:
        """How long a subscriber stays with a process that stopped beating."""
        return parse_duration(self.subscriber_lease, "subscriber_lease")

    @property
    def patience_seconds(self) -> float:
        """How long a verb keeps trying, in seconds."""
        return parse_duration(self.patience, "patience").total_seconds()

    @property
    def transaction_seconds(self) -> float:
        """How long a transactional step is tried again while others are in its way, in seconds."""
        return parse_duration(self.transaction_patience, "transaction_patience").total_seconds()

    @property
    def event_retention_time(self) -> timedelta:
        """How long an event is kept."""
        return parse_duration(self.event_retention, "event_retention")

    @property
    def event_early_time(self) -> timedelta:
        """How long before a run's beginning an event for it may have been sent."""
        return parse_duration(self.event_early, "event_early")

    @property
    def webhook_seconds(self) -> float:
        """How long one delivery of a webhook may take, in seconds."""
        return parse_duration(self.webhook_timeout, "webhook_timeout").total_seconds()

    @property
    def failing_time(self) -> timedelta:
        """For how long deliveries must have failed before an endpoint is disabled."""
        return parse_duration(self.webhook_failing, "webhook_failing")


def _check_networks(networks: object) -> None:
    try:
        if isinstance(networks, str) or not isinstance(networks, Sequence):
            raise ValueError
        for each in networks:
            ip_network(str(each))
    except ValueError:
        raise InvalidPolicy(
            'webhook_networks: networks such as "10.0.0.0/8" or "fd00::/8"', field="webhook_networks"
        ) from None


def _whole(owner: Worker | Settings, name: str, low: int, high: int) -> None:
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidPolicy(f"{name}: a whole number from {low} to {high}", field=name)


def checked_worker(worker: bool | Worker) -> Worker | None:
    """Return how a process works, None for not at all; raise `InvalidPolicy` where that is not said."""
    if isinstance(worker, bool):
        return Worker() if worker else None
    if not isinstance(worker, Worker):
        raise InvalidPolicy("worker: True, False or a Worker", field="worker")
    return worker


def checked_settings(settings: Settings | None) -> Settings:
    """Return the settings, default ones for None; raise `InvalidPolicy` for anything else."""
    if settings is not None and not isinstance(settings, Settings):
        raise InvalidPolicy("settings: a Settings", field="settings")
    return settings or Settings()


def checked_secret(secret: object) -> str | bytes | None:
    """Return the secret that tokens are derived from, if it can be one; raise `InvalidPolicy` otherwise."""
    if secret is not None and (not isinstance(secret, (str, bytes)) or len(secret) < SECRET_MIN):
        raise InvalidPolicy(f"secret: text or bytes, {SECRET_MIN} or more", field="secret")
    return secret
