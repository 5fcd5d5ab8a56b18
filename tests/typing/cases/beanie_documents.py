"""Asking through Beanie's documents: fields by class and by instance, and whose documents they are."""

from datetime import datetime
from typing import assert_type

from streamline import Streamline
from streamline.odm import EventDocument, RunDocument, ScheduleDocument, StoredStep, init_odm

app = Streamline()


async def ask() -> None:
    await init_odm(app)
    await init_odm("app")  # expect-error: arg-type / reportArgumentType

    of_acme = RunDocument.find(RunDocument.tenant_id == "acme", RunDocument.workflow == "order")
    late = RunDocument.find(RunDocument.status == "failed", RunDocument.priority > 3, {"error.code": "run.timeout"})
    RunDocument.find(RunDocument.priority > "high")  # expect-error: operator / reportOperatorIssue
    assert_type(await of_acme.to_list(), list[RunDocument])
    assert_type(await late.find(RunDocument.live == True).count(), int)  # noqa: E712
    assert_type(await RunDocument.of(app.tenant("acme"), RunDocument.paused == None).to_list(), list[RunDocument])  # noqa: E711
    RunDocument.of("acme")  # expect-error: arg-type / reportArgumentType

    run = await RunDocument.get("r")
    assert run is not None
    assert_type(run.id, str)
    assert_type(run.tenant_id, str | None)
    assert_type(run.created_at, datetime)
    assert_type(run.steps, tuple[StoredStep, ...])
    assert_type(run.steps[0].started_at, datetime | None)

    assert_type(await ScheduleDocument.find(ScheduleDocument.paused == True).to_list(), list[ScheduleDocument])  # noqa: E712
    assert_type(await EventDocument.find(EventDocument.run_id == "r").sort("seq").to_list(), list[EventDocument])
