"""Workflows inside a FastAPI application: they share its process, its event loop and its lifespan.

Run ``pip install fastapi uvicorn``, then ``uvicorn --app-dir examples fastapi_app:api``. It uses the database that
MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from streamline import Context, Event, Streamline, StreamlineError, Workflow


class Order(BaseModel):
    order_id: str
    amount: int = Field(ge=1)
    delivery_hours: float = Field(default=0.0, ge=0.0)


orders = Workflow("order", input=Order, idempotency_key=lambda order: order.order_id)


@orders.step
async def reserve(ctx: Context[Order]) -> str:
    return f"reservation-{ctx.input.order_id}"


@orders.step
async def deliver(ctx: Context[Order]) -> str:
    await ctx.sleep(ctx.input.delivery_hours * 3600)
    return f"delivered {ctx.output(reserve)}"


@asynccontextmanager
async def lifespan(api: FastAPI) -> AsyncIterator[None]:
    async with Streamline(workflows=[orders]) as engine:
        api.state.engine = engine
        yield


api = FastAPI(title="Orders", lifespan=lifespan)


def engine_of(request: Request) -> Streamline:
    engine: Streamline = request.app.state.engine
    return engine


@api.exception_handler(StreamlineError)
async def explain(request: Request, error: StreamlineError) -> JSONResponse:
    """Every error of the engine brings its code and its HTTP status along."""
    body = {"code": error.code, "message": error.message, "field": error.field}
    return JSONResponse(body, status_code=error.http_status)


@api.post("/orders", status_code=202)
async def start(order: Order, request: Request) -> dict[str, Any]:
    """Start an order; the same order again, while it runs, is the same run."""
    run = await engine_of(request).start(orders, order)
    return {"run_id": run.id, "created": run.created}


@api.get("/orders/{run_id}")
async def get(run_id: str, request: Request) -> dict[str, Any]:
    run = await engine_of(request).get(run_id)
    steps = {step.id: step.status for step in run.steps}
    return {"run_id": run.id, "status": run.status, "steps": steps, "output": run.output, "waits": len(run.waits)}


@api.get("/orders/{run_id}/events")
async def events(run_id: str, request: Request) -> StreamingResponse:
    """Stream the run's events as server-sent events until it has ended; Last-Event-ID continues a broken stream."""
    engine, after = engine_of(request), int(request.headers.get("Last-Event-ID", 0))
    await engine.get(run_id)  # an unknown run is a 404, not a stream that breaks

    async def lines() -> AsyncIterator[str]:
        async for event in engine.handle(run_id).events(after):
            yield as_text(event)

    return StreamingResponse(lines(), media_type="text/event-stream")


@api.post("/orders/{run_id}/cancel", status_code=202)
async def cancel(run_id: str, request: Request, reason: str | None = None) -> dict[str, str]:
    await engine_of(request).cancel(run_id, reason=reason)
    return {"run_id": run_id, "status": await engine_of(request).handle(run_id).status()}


@api.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """Whether requests may be sent here."""
    health = await engine_of(request).health()
    return JSONResponse(asdict(health), status_code=200 if health.ok else 503)


@api.get("/livez")
async def live(request: Request) -> JSONResponse:
    """Whether this process works, however its database is; a restart would not bring that back."""
    health = await engine_of(request).health(timeout="500ms")
    return JSONResponse({"alive": health.alive}, status_code=200 if health.alive else 503)


def as_text(event: Event) -> str:
    return f"id: {event.seq}\nevent: {event.type}\ndata: {event.step or ''}\n\n"
