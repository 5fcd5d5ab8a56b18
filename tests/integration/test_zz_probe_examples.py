import asyncio, sys, pytest, time
from streamline import *
async def nothing(): ...

async def test_predicate_tells(make_app):
    wf = Workflow("w")
    async def p(ctx):
        ctx.log.info("pred"); ctx.metric("p", 1); await ctx.progress(0.3); await ctx.emit("pp"); ctx.stream("x")
        return False
    @wf.step(skip_if=p)
    async def a(ctx):
        ctx.log.info("h"); await ctx.sleep(0.01); return 1
    async with make_app(wf) as app:
        h = await app.start(wf); run = await h.wait("20s")
        ev=[e.type async for e in h.events()]
    print(run.status, run.error, run.logs, run.metrics, ev)
    assert run.status=="done"; assert ev.count("pp")==1

async def test_pred_skip_with_riders(make_app):
    wf = Workflow("w")
    async def p(ctx):
        ctx.log.info("pred"); ctx.metric("p", 1); await ctx.progress(0.3); await ctx.progress(0.4)
        return True
    @wf.step(skip_if=p)
    async def a(ctx): return 1
    async with make_app(wf) as app:
        h = await app.start(wf); run = await h.wait("20s")
    assert run.status=="done" and len(run.logs)==1 and run.metrics=={"p":1}, run

async def test_cancel_keeps_logs(make_app):
    """what was said before a cancel"""
    wf = Workflow("w"); ev=asyncio.Event()
    @wf.step
    async def a(ctx):
        ctx.log.info("said"); ctx.metric("m", 1); ev.set()
        await asyncio.sleep(60)
    async with make_app(wf) as app:
        h = await app.start(wf); await ev.wait(); await h.cancel(); run = await h.wait("20s")
    print("LOGS after cancel", run.logs, run.metrics)

async def test_long_step_logs_land(make_app):
    wf = Workflow("w"); ev=asyncio.Event()
    @wf.step
    async def a(ctx):
        ctx.log.info("said"); ctx.metric("m", 1); ev.set()
        await asyncio.sleep(3)
    async with make_app(wf) as app:
        h = await app.start(wf); await ev.wait(); t=time.monotonic()
        while not (await h.get()).logs and time.monotonic()-t<2.5: await asyncio.sleep(0.05)
        print("LOG landed after", time.monotonic()-t, (await h.get()).logs)

async def test_many_metric_names(make_app):
    wf = Workflow("w")
    @wf.step(max_attempts=1)
    async def a(ctx):
        for i in range(20000): ctx.metric(f"m{i}", 1)
    async with make_app(wf) as app:
        h = await app.start(wf); run = await h.wait("20s")
    print(run.status, run.error, len(run.metrics))

async def test_stopping_keeps_logs(make_app):
    wf = Workflow("w"); ev=asyncio.Event()
    @wf.step
    async def a(ctx):
        ctx.log.info("said"); 
        if not ev.is_set():
            ev.set(); await asyncio.sleep(60)
    async with make_app(wf, worker=Worker(drain=0.05, cancel_grace=1)) as app:
        h = await app.start(wf); await ev.wait()
    async with make_app(wf) as app:
        run = await app.handle(h.id).wait("20s")
    print("LOGS after release", [l.message for l in run.logs])
    assert len(run.logs)==2
