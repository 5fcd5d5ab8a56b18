"""What opens a wait is nowhere in the database: with an own secret, whoever reads everything can open nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from streamline import Context, Streamline, Worker, Workflow
from streamline.errors import HookNotFound
from streamline.features.tokens import TokenMaker
from tests.waiting import eventually, status_of


class Secretive:
    """A workflow with a hook, an approval and a question, each with a token."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        self.workflow: Workflow[Any, Any, Any] = Workflow("secretive")

        @self.workflow.step(max_attempts=1)
        async def work(ctx: Context[Any]) -> dict[str, Any]:
            async def hook() -> Any:
                opened = await ctx.create_hook("hook")
                self._keep("hook", opened.token)
                return await opened.wait()

            async def approval() -> Any:
                return (await ctx.approve("sure?", on_token=lambda token: self._keep("approval", token))).outcome

            async def question() -> Any:
                return (await ctx.ask("what?", on_token=lambda token: self._keep("question", token))).data

            return await ctx.gather("all", {"hook": hook, "approval": approval, "question": question})

    def _keep(self, kind: str, token: str) -> None:
        assert self.tokens.setdefault(kind, token) == token, "the same token at every re-entry"


def texts(value: Any) -> Iterator[str]:
    """Every text in a document, names of fields included."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts(inner)
    else:
        yield value.decode("latin-1") if isinstance(value, bytes) else str(value)


async def readable(database: Any) -> set[str]:
    """Every text in every collection of the database."""
    found: set[str] = set()
    for name in await database.list_collection_names():
        async for document in database[name].find({}):
            found.update(texts(document))
    return found


async def parked(app: Streamline, secretive: Secretive) -> Any:
    handle = await app.start(secretive.workflow)
    await status_of(handle, "waiting")
    await eventually(lambda: len(secretive.tokens) == 3)
    return handle


async def finish(app: Streamline, secretive: Secretive, handle: Any) -> None:
    await app.resume_hook(secretive.tokens["hook"], "paid")
    await app.approve(secretive.tokens["approval"])
    await app.answer(secretive.tokens["question"], 5)
    assert await handle.result("20s") == {"hook": "paid", "approval": "approved", "question": 5}


def derived(text: str) -> list[str]:
    """What a reader of the database might try with a text."""
    digests = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()]
    return [text, text[:43], *digests, digests[0][:43]]


async def test_with_an_own_secret_nothing_in_the_database_opens_anything(make_app: Any, database: Any) -> None:
    secretive = Secretive()
    async with make_app(secretive.workflow, secret="not in the database") as app:
        handle = await parked(app, secretive)
        stored = await readable(database)
        assert not [token for token in secretive.tokens.values() if any(token in text for text in stored)]
        assert not [text for text in stored if "not in the database" in text]
        for attempt in {each for text in stored for each in derived(text) if len(each) == 43}:
            with pytest.raises(HookNotFound):
                await app.resume_hook(attempt)
        assert len(await app.pending_waits(run_id=handle.id)) == 3
        await finish(app, secretive, handle)
    assert not {token for token in secretive.tokens.values() if any(token in text for text in await readable(database))}


async def test_with_an_own_secret_no_text_of_the_database_is_the_key(
    make_app: Any, database: Any, tenant_id: str | None
) -> None:
    secretive = Secretive()
    async with make_app(secretive.workflow, secret="not in the database") as app:
        handle = await parked(app, secretive)
        place = (tenant_id, handle.id, "work", "step", 0)
        address = next(wait.key for wait in await app.pending_waits("hook"))
        assert TokenMaker("not in the database").token(*place, address) == secretive.tokens["hook"]
        for text in await readable(database):
            assert TokenMaker(text).token(*place, address) != secretive.tokens["hook"]


async def test_with_the_default_secret_whoever_reads_the_database_can_open_hooks(
    make_app: Any, database: Any, tenant_id: str | None
) -> None:
    # Not a promise but a warning, which the documentation gives: production brings a secret of its own.
    secretive = Secretive()
    async with make_app(secretive.workflow) as app:
        handle = await parked(app, secretive)
        place = (tenant_id, handle.id, "work", "step", 0)
        address = next(wait.key for wait in await app.pending_waits("hook"))
        found = {TokenMaker(text).token(*place, address) for text in await readable(database)}
        assert secretive.tokens["hook"] in found
        assert not [text for text in await readable(database) if secretive.tokens["hook"] in text]


async def test_the_default_secret_is_the_same_for_all_processes_and_made_once(make_app: Any, database: Any) -> None:
    secretive = Secretive()
    for _ in range(3):
        async with make_app(secretive.workflow) as app, make_app(secretive.workflow, worker=False):
            if not secretive.tokens:
                handle = await parked(app, secretive)
    metas = [document async for document in database["streamline.meta"].find({"_id": "secret"})]
    assert len(metas) == 1
    assert len(metas[0]["value"]) >= 43
    async with make_app(secretive.workflow) as app:
        await finish(app, secretive, app.handle(handle.id))


async def test_an_own_secret_is_never_stored(make_app: Any, database: Any) -> None:
    secretive = Secretive()
    async with make_app(secretive.workflow, secret=b"bytes will do") as app:
        await finish(app, secretive, await parked(app, secretive))
    assert not [text for text in await readable(database) if "bytes will do" in text]
    assert await database["streamline.meta"].find_one({"_id": "secret"}) is None


async def test_the_environments_secret_is_used_where_the_app_brings_none(
    make_app: Any, database: Any, tenant_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLINE_SECRET", "from the environment")
    secretive = Secretive()
    async with make_app(secretive.workflow) as app:
        handle = await parked(app, secretive)
        address = next(wait.key for wait in await app.pending_waits("hook"))
        maker = TokenMaker("from the environment")
        assert maker.token(tenant_id, handle.id, "work", "step", 0, address) == secretive.tokens["hook"]
    assert not [text for text in await readable(database) if "from the environment" in text]
    async with make_app(secretive.workflow, secret="from the environment") as app:
        await finish(app, secretive, app.handle(handle.id))


async def test_another_secret_leads_to_other_tokens(make_app: Any) -> None:
    found = []
    for secret in ("the first one", "the second one", b"\x00\xff" * 4):
        secretive = Secretive()
        async with make_app(secretive.workflow, secret=secret) as app:
            await app.start(secretive.workflow, run_id=f"r-{len(found)}")
            await eventually(lambda secretive=secretive: len(secretive.tokens) == 3)
        found += list(secretive.tokens.values())
    assert len(set(found)) == 9


async def test_a_token_is_in_no_event_no_log_and_no_error(make_app: Any, caplog: pytest.LogCaptureFixture) -> None:
    secretive = Secretive()
    told: list[str] = []
    caplog.set_level("DEBUG", logger="streamline")
    async with make_app(secretive.workflow, secret="an own secret") as app:
        app.on("*", lambda event: told.append(repr(event)))
        handle = await parked(app, secretive)
        await finish(app, secretive, handle)
        for token in secretive.tokens.values():
            with pytest.raises(HookNotFound) as caught:
                await app.resume_hook(token)
            told.append(repr(caught.value) + str(caught.value) + repr(caught.value.__cause__))
        told.append(repr(await handle.get()))
    said = "".join([*told, caplog.text])
    assert not [kind for kind, token in secretive.tokens.items() if token in said]


async def test_a_token_is_stored_as_a_hash_and_finds_no_run_after_its_use(make_app: Any, runs: Any) -> None:
    secretive = Secretive()
    async with make_app(secretive.workflow, secret="an own secret", worker=Worker(poll_interval="50ms")) as app:
        handle = await parked(app, secretive)
        hashes = {kind: hashlib.sha256(token.encode()).hexdigest() for kind, token in secretive.tokens.items()}
        assert set((await runs.find_one({"_id": handle.id}))["hooks"]) == set(hashes.values())
        await app.resume_hook(secretive.tokens["hook"], "paid")
        stored = await runs.find_one({"_id": handle.id})
        assert set(stored["hooks"]) == {hashes["approval"], hashes["question"]}
        await handle.cancel()
        assert "hooks" not in await runs.find_one({"_id": handle.id})
