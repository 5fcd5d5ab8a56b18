"""The records of webhook endpoints: made, asked and changed by anybody, and refused where they cannot be."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from streamline import Context, Settings, Workflow
from streamline.errors import (
    ExtraMissing,
    InvalidInput,
    InvalidKey,
    InvalidName,
    InvalidPolicy,
    InvalidQuery,
    UrlNotAllowed,
    WebhookExists,
    WebhookNotFound,
)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ALLOWING = Settings(webhook_networks=("127.0.0.0/8",))
URL = "https://example.com/hook"

flow: Workflow[Any, Any, Any] = Workflow("flow")


@flow.step
async def work(ctx: Context[Any]) -> None: ...


async def test_endpoints_are_listed_without_their_secrets(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        assert await app.webhooks.list() == ()
        created = await app.webhooks.create(
            "b", URL, headers={"Authorization": "Bearer hidden"}, secret=SECRET, enabled=False
        )
        await app.webhooks.create("a", "https://example.com")
        assert created.secret == SECRET
        listed = await app.webhooks.list()
        assert [each.id for each in listed] == ["a", "b"]
        assert listed[1] == await app.webhooks.get("b")
        assert (listed[0].on, listed[0].workflow, listed[0].url) == (("run.*",), None, "https://example.com")
        for shown in (repr(created), repr(listed), str(dict(listed[1]))):
            assert SECRET not in shown
        assert "hidden" not in repr(listed)


BAD: list[tuple[str, Any, dict[str, Any]]] = [
    *[("id", InvalidName, {"id": bad}) for bad in ("", "a:b", "a.b", "$a", "a/b", "é", "1", "a" * 101, None, 5)],
    *[
        ("url", UrlNotAllowed, {"url": bad})
        for bad in ("http://10.0.0.1", "https://169.254.169.254", "https://2130706433", "ftp://x", "", None)
    ],
    *[("on", InvalidKey, {"on": bad}) for bad in ((), "", [""], [5], None, 5, ["x"] * 101)],
    *[("workflow", InvalidName, {"workflow": bad}) for bad in ("", "a.b", 5)],
    *[("headers", InvalidInput, {"headers": bad}) for bad in ({"Host": "x"}, {"X": "a\r\nb"}, [("a", "b")])],
    *[("secret", InvalidKey, {"secret": bad}) for bad in ("", "short", "whsec_", b"x" * 32, 5)],
    *[("enabled", InvalidPolicy, {"enabled": bad}) for bad in (None, 1, "yes")],
]


async def test_a_bad_argument_is_refused_with_its_field(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        for field, error, options in BAD:
            with pytest.raises(error) as caught:
                await app.webhooks.create(**{"id": "crm", "url": URL, **options})
            assert caught.value.field == field, options
        assert await app.webhooks.list() == ()
        assert await app.database["streamline.meta"].find_one({"_id": "facts"}) is None  # nor is the log begun
        before = await app.webhooks.create("crm", URL)
        for field, error, options in BAD:
            if field not in ("id", "enabled", "secret"):
                with pytest.raises(error) as caught:
                    await app.webhooks.update("crm", **options)
                assert caught.value.field == field, options
        assert (await app.webhooks.get("crm")).updated_at == before.updated_at


async def test_an_endpoint_that_is_not_there(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        await app.webhooks.create("crm", "https://example.com")
        hooks = app.webhooks
        for ask in (
            hooks.get, hooks.update, hooks.enable, hooks.disable, hooks.delete, hooks.rotate_secret, hooks.replay,
            hooks.dead_letters, hooks.retry, hooks.discard,
        ):  # fmt: skip
            for bad in ("none", "", "a:b", None, 5, {"$gt": ""}, "a\udc80"):
                with pytest.raises(WebhookNotFound) as caught:
                    await ask(bad)
                assert (caught.value.field, caught.value.http_status) == ("id", 404)
        assert len(await hooks.list()) == 1


async def test_other_bad_arguments(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        await app.webhooks.create("crm", "https://example.com")
        for bad in (-1, "x", True, 1.5):
            with pytest.raises(InvalidQuery):
                await app.webhooks.replay("crm", bad)
        with pytest.raises(InvalidPolicy):
            await app.webhooks.replay("crm", datetime(2024, 1, 1))
        with pytest.raises(InvalidPolicy):
            await app.webhooks.rotate_secret("crm", keep="soon")
        with pytest.raises(InvalidKey):
            await app.webhooks.rotate_secret("crm", secret="short")
        with pytest.raises(InvalidKey):
            await app.webhooks.disable("crm", "x" * 5000)


async def test_of_many_who_make_the_same_one_exactly_one_does(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app, make_app(flow, worker=False) as other:
        tries = [each.webhooks.create("crm", f"https://example.com/{i}") for i in range(10) for each in (app, other)]
        made = await asyncio.gather(*tries, return_exceptions=True)
        (winner,) = [each for each in made if not isinstance(each, Exception)]
        assert {type(each) for each in made if isinstance(each, Exception)} == {WebhookExists}
        assert (await app.webhooks.get("crm")).url == winner.url


async def test_private_addresses_are_refused_unless_they_are_allowed(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        for url in ("http://127.0.0.1:9/", "https://127.0.0.1:9/", "https://localhost", "https://[::ffff:7f00:1]"):
            with pytest.raises(UrlNotAllowed):
                await app.webhooks.create("crm", url)
    async with make_app(flow, worker=False, settings=ALLOWING) as app:
        await app.webhooks.create("crm", "http://127.0.0.1:9/")


async def test_without_httpx_there_is_a_clear_error_and_everything_else_works(
    make_app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    async with make_app(flow) as app:
        with pytest.raises(ExtraMissing, match=r"streamline-mongo\[webhooks\]"):
            await app.webhooks.create("crm", "https://example.com")
        assert await app.run(flow, timeout=20) is None


async def test_of_many_who_replace_a_secret_at_once_each_ones_works(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        await app.webhooks.create("crm", URL)
        fresh = await asyncio.gather(*(app.webhooks.rotate_secret("crm") for _ in range(4)))
        stored = await app.database["streamline.subscribers"].find_one({"webhook.id": "crm"})
        assert {each["secret"] for each in stored["webhook"]["secrets"]} >= set(fresh)
        await asyncio.gather(*(app.webhooks.rotate_secret("crm") for _ in range(4)))
        stored = await app.database["streamline.subscribers"].find_one({"webhook.id": "crm"})
        assert len(stored["webhook"]["secrets"]) == 5


class LostAnswers:
    """Lets the first answers to commands about subscribers get lost, after the commands took effect."""

    def __init__(self, app: Any, kind: str, count: int = 2) -> None:
        driver = app._open_session.runtime.store.driver
        self._real, self._kind, self.left = driver.command, kind, count
        driver.command = self.command

    async def command(self, command: Any) -> Any:
        answer = await self._real(command)
        if str(command.get(self._kind, "")).endswith(".subscribers") and self.left:
            self.left -= 1
            raise AutoReconnect("connection closed")
        return answer


async def test_an_answer_that_is_lost_leaves_one_endpoint_and_the_secret_that_was_shown(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        lost = LostAnswers(app, "insert")
        created = await app.webhooks.create("crm", URL)
        assert lost.left == 0
        with pytest.raises(WebhookExists):
            await app.webhooks.create("crm", URL)
        lost = LostAnswers(app, "update")
        fresh = await app.webhooks.rotate_secret("crm")
        assert lost.left == 0
        stored = await app.database["streamline.subscribers"].find_one({"webhook.id": "crm"})
        assert [each["secret"] for each in stored["webhook"]["secrets"]] == [fresh, created.secret]


async def test_what_is_done_twice_because_an_answer_was_lost_is_done_once(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        await app.webhooks.create("crm", URL)
        LostAnswers(app, "update")
        disabled = await app.webhooks.disable("crm", "once")
        assert disabled.disabled_reason == "once"
        LostAnswers(app, "update")
        assert (await app.webhooks.enable("crm")).enabled
        LostAnswers(app, "update")
        assert (await app.webhooks.update("crm", on="told")).on == ("told",)
        LostAnswers(app, "delete")
        await app.webhooks.delete("crm")
        assert await app.webhooks.list() == ()


async def test_the_time_of_a_former_secret_is_not_made_longer(make_app: Any) -> None:
    async with make_app(flow, worker=False) as app:
        created = await app.webhooks.create("crm", URL)
        second = await app.webhooks.rotate_secret("crm", keep="1m")
        third = await app.webhooks.rotate_secret("crm", keep="1d")
        stored = await app.database["streamline.subscribers"].find_one({"webhook.id": "crm"})
        newest, former, first = stored["webhook"]["secrets"]
        assert [newest, former["secret"], first["secret"]] == [{"secret": third}, second, created.secret]
        assert former["until"] - first["until"] > timedelta(hours=23)
        fourth = await app.webhooks.rotate_secret("crm", keep=0)
        stored = await app.database["streamline.subscribers"].find_one({"webhook.id": "crm"})
        assert stored["webhook"]["secrets"] == [{"secret": fourth}]
