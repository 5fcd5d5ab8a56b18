"""One webhook on the wire: where it goes, what it carries, what becomes of it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from streamline.clock import SystemClock
from streamline.engine.outgoing import posting
from streamline.engine.outgoing.posting import Poster
from streamline.errors import UrlNotAllowed, WebhookFailed
from streamline.features.addresses import networks_of
from streamline.features.signing import new_secret
from tests.integration.receiver import CERTIFICATE, Answer, Receiver, receiving

LOOPBACK = networks_of(["127.0.0.0/8"])
SECRET, OLDER = new_secret(), new_secret()
BODY = b'{"type":"run.done"}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


class Names:
    """A name service that a test decides about; each look-up takes the next answer, the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
async def posters() -> AsyncIterator[Any]:
    made: list[Poster] = []

    def make(url: str, *answers: Sequence[str], networks: Any = LOOPBACK, seconds: float = 5.0) -> Poster:
        options = {"resolve": Names(*answers)} if answers else {}
        made.append(Poster(url, networks, seconds, SystemClock(), **options))
        return made[-1]

    yield make
    for poster in made:
        await poster.close()


async def post(poster: Poster, webhook_id: str = "r:1", headers: Any = ()) -> None:
    await poster.post(webhook_id, BODY, headers, [SECRET])


async def test_what_is_sent(receiver: Receiver, posters: Any) -> None:
    poster = posters(f"{receiver.url}?a=b%20c")
    await poster.post("r:1", BODY, [("Authorization", "Bearer x"), ("X-Two", "a b")], [SECRET, OLDER])
    (received,) = receiver.received
    assert (received.path, received.body) == ("/hook?a=b%20c", BODY)
    assert received.verified(SECRET) == received.verified(OLDER) == "r:1"
    assert abs(int(received.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    headers = dict(received.headers)
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        del headers[name]
    assert headers == {
        "host": f"127.0.0.1:{receiver.server_port}",
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "accept-encoding": "identity",
        "user-agent": "streamline",
        "authorization": "Bearer x",
        "x-two": "a b",
    }


async def test_a_connection_is_used_again(receiver: Receiver, posters: Any) -> None:
    receiver.answer = lambda _: Answer(200, body=b"thanks" * 100)
    poster = posters(receiver.url)
    for i in range(3):
        await post(poster, f"r:{i}")
    assert len({each.port for each in receiver.received}) == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_success(receiver: Receiver, posters: Any, status: int) -> None:
    receiver.answer = lambda _: status
    await post(posters(receiver.url))


@pytest.mark.parametrize("status", [300, 400, 401, 404, 409, 410, 422, 429, 500, 502, 503, 504])
async def test_any_other_answer_is_a_failure(receiver: Receiver, posters: Any, status: int) -> None:
    receiver.answer = lambda _: Answer(status, body=b"no\r\n\x00way" + b"!" * 1000)
    with pytest.raises(WebhookFailed) as caught:
        await post(posters(receiver.url))
    assert caught.value.message.startswith(f"answered {status}: no way!!!")
    assert len(caught.value.message) < 250
    assert caught.value.gone is (status == 410)
    assert caught.value.after is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(receiver: Receiver, posters: Any, status: int) -> None:
    receiver.answer = lambda _: Answer(status, (("Location", f"{receiver.url}/elsewhere"),))
    with pytest.raises(WebhookFailed, match=f"answered {status}"):
        await post(posters(receiver.url))
    assert [each.path for each in receiver.received] == ["/hook"]


async def test_cookies_are_not_kept(receiver: Receiver, posters: Any) -> None:
    receiver.answer = lambda _: Answer(200, (("Set-Cookie", "a=b"),))
    poster = posters(receiver.url)
    await post(poster)
    await post(poster)
    assert not any("cookie" in each.headers for each in receiver.received)


async def test_no_proxy_stands_between_the_check_and_the_connection(
    receiver: Receiver, posters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await post(posters(receiver.url))
        assert (len(receiver.received), len(proxy.received)) == (1, 0)


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        ("120", 120, 120),
        (" 0 ", 0, 0),
        ("9" * 30, 10**9, 10**9),
        ("in an hour", 3500, 3600),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("Thu, 01 Jan 2099 00:00:00 -0000", 10**8, 10**10),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_when_the_receiver_wants_to_be_asked_again(
    receiver: Receiver, posters: Any, said: str, low: float, high: float, status: int
) -> None:
    if said == "in an hour":
        said = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    receiver.answer = lambda _: Answer(status, (("Retry-After", said),))
    with pytest.raises(WebhookFailed) as caught:
        await post(posters(receiver.url))
    assert caught.value.after is not None
    assert low <= caught.value.after.total_seconds() <= high


@pytest.mark.parametrize(("status", "said"), [(500, "120"), (404, "120"), (429, "soon"), (503, "-1"), (429, "")])
async def test_when_it_says_nothing_of_the_kind(receiver: Receiver, posters: Any, status: int, said: str) -> None:
    receiver.answer = lambda _: Answer(status, (("Retry-After", said),))
    with pytest.raises(WebhookFailed) as caught:
        await post(posters(receiver.url))
    assert caught.value.after is None


async def test_an_answer_that_does_not_come_in_time(receiver: Receiver, posters: Any) -> None:
    hold = threading.Event()
    receiver.answer = lambda _: Answer(200, hold=hold)
    with pytest.raises(WebhookFailed, match=r"no answer within 0\.3 s"):
        await post(posters(receiver.url, seconds=0.3))
    hold.set()


async def test_an_answer_that_never_ends_is_cut(posters: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pour() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 1000000000000\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b"x" * 65536)
                except OSError:
                    return

        pouring = threading.Thread(target=pour)
        pouring.start()
        with pytest.raises(WebhookFailed, match="answered 500: x"):
            await post(posters(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        pouring.join(10)
        assert not pouring.is_alive()


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"])
async def test_a_receiver_that_does_not_speak_http(posters: Any, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(WebhookFailed, match=r"RemoteProtocolError|ReadError"):
            await post(posters(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        serving.join(10)


async def test_nobody_listens(posters: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(WebhookFailed, match="ConnectError"):
        await post(posters(f"http://127.0.0.1:{port}/"))


async def test_a_host_without_an_address(posters: Any) -> None:
    with pytest.raises(WebhookFailed, match="cannot be looked up"):
        await post(posters("https://nowhere.invalid/"))


async def test_a_name_service_that_hangs_holds_up_no_other_work(
    receiver: Receiver, posters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hold.wait(20) and [])
    poster = posters("https://hangs.example.com/", seconds=0.3)
    try:
        tries = await asyncio.gather(*(post(poster) for _ in range(40)), return_exceptions=True)
        assert {str(each) for each in tries} == {"no answer within 0.3 s"}
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 5) == "free"
        await post(posters(receiver.url))
    finally:
        hold.set()


async def test_a_name_is_looked_up_once_and_the_connection_goes_where_it_led(receiver: Receiver, posters: Any) -> None:
    url = f"http://hooks.internal:{receiver.server_port}/hook"
    poster = posters(url, ["127.0.0.1"])
    await post(poster)
    assert poster._resolve.asked == [("hooks.internal", receiver.server_port)]
    assert receiver.received[0].headers["host"] == f"hooks.internal:{receiver.server_port}"


async def test_a_name_that_leads_elsewhere_at_the_next_look_is_refused(receiver: Receiver, posters: Any) -> None:
    url = f"http://hooks.internal:{receiver.server_port}/hook"
    poster = posters(url, ["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1"])
    await post(poster)
    for _ in range(2):
        with pytest.raises(UrlNotAllowed):
            await post(poster)
    assert len(receiver.received) == 1
    await post(poster)
    assert len(receiver.received) == 2


async def test_a_name_of_the_machine_is_refused_where_nothing_is_allowed(receiver: Receiver, posters: Any) -> None:
    for answer in (["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["8.8.8.8", "127.0.0.1"]):
        poster = posters(f"https://hooks.example.com:{receiver.server_port}/", answer, networks=())
        with pytest.raises(UrlNotAllowed):
            await post(poster)
    with pytest.raises(UrlNotAllowed):
        await post(posters(receiver.url, networks=()))
    assert receiver.received == []


async def test_another_address_is_tried_where_the_first_cannot_be_reached(receiver: Receiver, posters: Any) -> None:
    url = f"http://hooks.internal:{receiver.server_port}/hook"
    await post(posters(url, ["127.9.9.9", "127.0.0.1"]))
    assert receiver.ids == ["r:1"]


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The certificate of the tests is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    posting._trusted.cache_clear()
    yield
    posting._trusted.cache_clear()


async def test_the_certificate_is_that_of_the_name_though_the_connection_is_to_an_address(
    trusting: None, posters: Any
) -> None:
    with receiving(tls=True) as receiver:
        await post(posters(f"https://hooks.example.test:{receiver.server_port}/hook", ["127.0.0.1"]))
        assert receiver.received[0].headers["host"] == f"hooks.example.test:{receiver.server_port}"
        for host in ("other.example.test", "127.0.0.1"):
            with pytest.raises(WebhookFailed, match="CERTIFICATE_VERIFY_FAILED"):
                await post(posters(f"https://{host}:{receiver.server_port}/hook", ["127.0.0.1"]))
        assert len(receiver.received) == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused(posters: Any) -> None:
    with receiving(tls=True) as receiver:
        with pytest.raises(WebhookFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await post(posters(f"https://hooks.example.test:{receiver.server_port}/hook", ["127.0.0.1"]))
        assert receiver.received == []
