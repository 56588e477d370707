"""Who gets in: each rule refuses what it must and lets through what it may, over real HTTP."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPMethod
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from service.http.access import Access, access_of, needs
from service.http.answers import Refused, json_answer
from service.http.server import LARGEST_BODY, HttpServer
from service.tokens import TOKEN_NAMES, Scope, Tokens
from tests.fake_clock import FakeClock
from trading.clock import Clock, SystemClock
from trading.errors import SettingsError

READ, SIGNAL, ADMIN = "read-token-0123456789", "signal-token-0123456789", "admin-token-0123456789"
ALL = Tokens(READ, SIGNAL, ADMIN)


def routes() -> list[web.RouteDef]:
    async def ok(request: web.Request) -> web.Response:
        return json_answer({"body": len(await request.read())})

    async def broken(request: web.Request) -> web.Response:
        raise ValueError("an inner thing with a password")

    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "100"})
        await answer.prepare(request)
        await answer.write(b"half")
        raise ValueError("an inner thing with a password")

    async def refused(request: web.Request) -> web.Response:
        raise Refused(422, "side = up: expected long, short or exit")

    async def hook(request: web.Request) -> web.Response:
        if not access_of(request).allows(request.match_info["token"], "signal"):
            raise Refused(401, "the token in the path is not TRADENT_SIGNAL_TOKEN")
        return json_answer({})

    def like(handler: Any) -> Callable[[web.Request], Any]:
        async def same(request: web.Request) -> web.Response:
            answer: web.Response = await handler(request)
            return answer

        return same

    return [
        web.get("/read", needs("read")(like(ok))),
        web.post("/signal", needs("signal")(like(ok))),
        web.post("/admin", needs("admin")(like(ok))),
        web.get("/open", needs(None)(like(ok))),
        web.post("/open", needs(None)(like(ok))),
        web.get("/unmarked", like(ok)),
        web.post("/unmarked", like(ok)),
        web.get("/broken", needs(None)(broken)),
        web.get("/half", half),
        web.get("/refused", refused),
        web.get("/hooks/{token}", needs(None)(hook)),
    ]


@asynccontextmanager
async def served(
    tokens: Tokens = ALL,
    host: str = "127.0.0.1",
    clock: Clock | None = None,
    more: Sequence[web.RouteDef] = (),
    **options: Any,
) -> AsyncIterator["Client"]:
    server = HttpServer(host, 0, [*routes(), *more], Access(host, tokens, clock or SystemClock(), **options))
    await server.start()
    assert server.url is not None
    async with aiohttp.ClientSession() as session:
        yield Client(session, server.url)
    await server.stop()


class Client:
    """Asks one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self._session = session

    async def ask(
        self, path: str, token: str | None = None, method: str = HTTPMethod.GET, data: bytes = b"", **headers: str
    ) -> tuple[int, Any, Any]:
        """Status, JSON and headers of an answer; header names are given with _ for -."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with self._session.request(method, self.url + path, headers=sent, data=data or None) as answer:
            return answer.status, await answer.json() if method != "HEAD" else None, answer.headers

    async def status(self, path: str, token: str | None = None, method: str = "GET", **headers: str) -> int:
        return (await self.ask(path, token, method, **headers))[0]


@pytest.mark.parametrize(
    ("method", "path", "good"),
    [
        ("GET", "/read", {READ, ADMIN}),
        ("HEAD", "/read", {READ, ADMIN}),
        ("POST", "/signal", {SIGNAL, ADMIN}),
        ("POST", "/admin", {ADMIN}),
        ("GET", "/open", {READ, SIGNAL, ADMIN, None, "no-token-of-ours-at-all"}),
        ("GET", "/unmarked", {READ, ADMIN}),
        ("POST", "/unmarked", {ADMIN}),
        ("GET", "/not-there", set()),
    ],
)
async def test_a_route_is_open_to_the_tokens_of_its_scope_only(method: str, path: str, good: set[str | None]) -> None:
    """401 says that a token is needed, 403 that this one does not do."""
    async with served() as client:
        for token in (READ, SIGNAL, ADMIN, None, "no-token-of-ours-at-all"):
            status = await client.status(path, token, method)
            missing = path == "/not-there" and token in (READ, ADMIN)
            expected = 404 if missing else 200 if token in good else 403 if token in (READ, SIGNAL, ADMIN) else 401
            assert (token, status) == (token, expected)


async def test_a_refusal_says_which_token_would_do() -> None:
    async with served() as client:
        status, answer, headers = await client.ask("/signal", method="POST")
        assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="tradent", scope="signal"')
        assert "TRADENT_SIGNAL_TOKEN or TRADENT_ADMIN_TOKEN" in answer["error"]
        assert (await client.ask("/signal", READ + "x", "POST"))[1]["error"].startswith("this token is not known here")
        status, answer, _ = await client.ask("/admin", READ, "POST")
        assert (status, answer) == (403, {"error": "the read token does not allow this; send TRADENT_ADMIN_TOKEN"})


async def test_without_tokens_everything_is_allowed_on_the_loopback() -> None:
    async with served(Tokens()) as client:
        for method, path in (("GET", "/read"), ("POST", "/signal"), ("POST", "/admin"), ("GET", "/hooks/anything")):
            assert await client.status(path, method=method) == 200


@pytest.mark.parametrize("tokens", [Tokens(read=READ), Tokens(signal=SIGNAL), Tokens(admin=ADMIN)])
async def test_where_any_token_is_set_each_request_needs_one(tokens: Tokens) -> None:
    async with served(tokens) as client:
        assert [
            await client.status(path, method=method) for method, path in (("GET", "/read"), ("POST", "/admin"))
        ] == [
            401,
            401,
        ]


async def test_a_handler_may_look_at_a_token_itself() -> None:
    async with served() as client:
        assert [await client.status(f"/hooks/{token}") for token in (SIGNAL, ADMIN, READ, "x")] == [200, 200, 401, 401]


@pytest.mark.parametrize("header", ["", "Basic cmVhZA==", f"Bearer{READ}", "Bearer ", f"Bearer {READ}x", "Bearer é"])
async def test_no_other_way_to_send_a_token_counts(header: str) -> None:
    async with served() as client:
        assert await client.status("/read", Authorization=header) == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "an.example", "localhost.example"])
def test_beyond_the_loopback_nothing_starts_without_a_token(host: str) -> None:
    for tokens in (Tokens(), Tokens(signal=SIGNAL)):
        with pytest.raises(SettingsError, match="TRADENT_ADMIN_TOKEN or TRADENT_READ_TOKEN"):
            Access(host, tokens, SystemClock())
    Access(host, Tokens(read=READ), SystemClock())
    Access(host, Tokens(admin=ADMIN), SystemClock())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1", "[::1]", "LOCALHOST."])
def test_on_the_loopback_no_token_is_needed(host: str) -> None:
    Access(host, Tokens(), SystemClock())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("LOCALHOST:8710", 200), ("127.0.0.2", 200),
        ("tradent.lan", 200), ("Tradent.LAN.:443", 200), ("evil.example", 403), ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("evil.example:8710", 403), ("user@localhost", 403), ("localhost/x", 403),
        ("[0:0:0::1]", 200), ("localhost:port", 403), ("192.168.1.5", 403), ("", 403),
    ],
)  # fmt: skip
async def test_only_names_of_ours_are_answered(host: str, status: int) -> None:
    """A page whose name was bent to our address still sends its own name."""
    async with served(Tokens(), allowed_hosts=["tradent.lan"]) as client:
        assert await client.status("/open", Host=host) == status


async def test_where_it_listens_everywhere_the_address_that_was_asked_is_a_name_of_ours() -> None:
    async with served(host="0.0.0.0") as client:
        assert await client.status("/open", Host="0.0.0.0") == 403
        assert await client.status("/open", Host=f"127.0.0.1:{client.port}") == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://tradent.lan"}, 200),
        ({"Origin": "own"}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, 403),
    ],
)
async def test_pages_of_other_sites_are_refused(headers: dict[str, str], status: int) -> None:
    async with served(Tokens(), allowed_hosts=["tradent.lan"]) as client:
        sent = {name: client.url if value == "own" else value for name, value in headers.items()}
        for method, path in (("GET", "/read"), ("POST", "/admin"), ("POST", "/open")):
            assert await client.status(path, method=method, **sent) == status


async def test_a_link_from_elsewhere_leads_to_what_is_open_to_all_only() -> None:
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    async with served(Tokens()) as client:
        assert await client.status("/open", **link) == 200
        assert await client.status("/read", **link) == 403
        assert await client.status("/open", method="POST", **link) == 403


async def test_a_caller_beyond_its_requests_a_minute_is_told_when_to_come_again() -> None:
    """Who holds the token counts apart from who does not."""
    clock = FakeClock()
    async with served(clock=clock, requests_per_minute=3) as client:
        assert [await client.status("/read", READ) for _ in range(4)] == [200, 200, 200, 429]
        assert await client.status("/read", ADMIN) == 200
        await clock.advance(15)
        status, answer, headers = await client.ask("/read", READ)
        assert (status, headers["Retry-After"]) == (429, "45")
        assert "service.requests_per_minute" in answer["error"]
        await clock.advance(45)
        assert await client.status("/read", READ) == 200


async def test_guesses_at_tokens_are_counted() -> None:
    async with served(requests_per_minute=3) as client:
        assert [await client.status("/read", f"guess-{n}-0123456789") for n in range(5)] == [401, 401, 401, 429, 429]
        assert await client.status("/read", READ) == 200


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with served(Tokens()) as client:
        assert (await client.ask("/open", method="POST", data=b"x" * LARGEST_BODY))[:2] == (200, {"body": LARGEST_BODY})
        status, answer, _ = await client.ask("/open", method="POST", data=b"x" * (LARGEST_BODY + 1))
        assert (status, answer) == (413, {"error": "the body is too large"})


async def test_a_body_that_is_not_encoded_as_it_says_is_refused_and_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(Tokens()) as client:
        status, answer, _ = await client.ask("/open", method="POST", data=b"no gzip", Content_Encoding="gzip")
    assert (status, answer["error"].partition(":")[0]) == (400, "the body cannot be read")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_every_failure_is_json_that_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Tokens()) as client:
        status, answer, _ = await client.ask("/nothing")
        assert (status, "/openapi.json" in answer["error"]) == (404, True)
        status, answer, headers = await client.ask("/read", method="DELETE")
        assert (status, headers["Allow"], list(answer)) == (405, "GET,HEAD", ["error"])
        status, answer, _ = await client.ask("/refused")
        assert (status, answer) == (422, {"error": "side = up: expected long, short or exit"})


async def test_a_fault_is_logged_once_and_its_inside_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Tokens()) as client:
        status, answer, _ = await client.ask("/broken")
    assert (status, answer) == (500, {"error": "this failed within the daemon; its log says why"})
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("GET /broken failed")
    assert record.exc_info


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(), "PostgreSQL does not answer now; ask again in a while"),
        (asyncpg.InterfaceError("pool is closing"), "PostgreSQL does not answer now; ask again in a while"),
        (asyncpg.QueryCanceledError("statement timeout"), "PostgreSQL gave this up as it took too long; ask for less"),
        (asyncpg.DiskFullError("no space"), "PostgreSQL is short of something now; the daemon's log says of what"),
    ],
)
async def test_what_postgresql_cannot_do_now_is_503(error: Exception, said: str) -> None:
    async def away(request: web.Request) -> web.Response:
        raise error

    async with served(Tokens(), more=[web.get("/away", away)]) as client:
        status, answer, headers = await client.ask("/away")
    assert (status, answer, headers["Retry-After"]) == (503, {"error": said}, "5")


async def test_a_file_that_cannot_be_read_is_a_fault_and_no_database_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def unread(request: web.Request) -> web.Response:
        raise PermissionError(13, "Permission denied", "/a/file")

    async with served(Tokens(), more=[web.get("/unread", unread)]) as client:
        status, answer, _ = await client.ask("/unread")
    assert (status, answer) == (500, {"error": "this failed within the daemon; its log says why"})
    assert "GET /unread failed" in caplog.text


async def test_an_answer_that_fails_half_way_is_cut_off_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Tokens()) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.ask("/half")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().startswith("GET /half failed")


async def test_browsers_are_told_to_keep_and_guess_nothing() -> None:
    async with served() as client:
        for path in ("/open", "/read"):
            _, _, headers = await client.ask(path)
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Cache-Control"] == "no-store"
            assert headers["X-Frame-Options"] == "DENY"
            assert "aiohttp" not in headers["Server"]


async def test_no_token_is_logged_whatever_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    """Neither one that is right, nor one that is not, nor a hook's in the path; not even in what is no HTTP."""
    caplog.set_level(logging.DEBUG)
    async with served() as client:
        for token in (READ, SIGNAL, "wrong-token-0123456789"):
            await client.status("/read", token)
            await client.status(f"/hooks/{token}")
            await client.status(f"/nothing/{token}")
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(f"GET /hooks/{token} HTTP/9\r\nAuthorization Bearer {token}\r\n\r\n".encode())
            await reader.read(4096)
            writer.close()
        await client.status("/broken", ADMIN)
    for token in (READ, SIGNAL, ADMIN, "wrong-token-0123456789"):
        assert token not in "".join(logging.Formatter().format(record) for record in caplog.records)


@pytest.fixture
def no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TOKEN_NAMES.values(), "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


def test_tokens_come_from_the_environment(no_tokens: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Tokens.given()
    monkeypatch.setenv("TRADENT_READ_TOKEN", READ)
    assert Tokens.given() == Tokens(read=READ)
    assert Tokens.given().headers(Scope.READ) == {"Authorization": f"Bearer {READ}"}
    assert Tokens.given().headers(Scope.ADMIN) == {}
    assert Tokens(admin=ADMIN).headers(Scope.READ) == {"Authorization": f"Bearer {ADMIN}"}
    assert READ not in repr(Tokens.given())


@pytest.mark.parametrize("token", ["short", "with a space 0123456789", "é" * 20, "x" * 513])
def test_a_token_that_is_none_is_a_mistake_that_does_not_show_it(
    no_tokens: None, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADENT_ADMIN_TOKEN", token)
    with pytest.raises(SettingsError, match="TRADENT_ADMIN_TOKEN: is no token; expected 16 to 512") as caught:
        Tokens.given()
    assert token not in str(caught.value)


def test_scopes_have_tokens_of_their_own(no_tokens: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is the same for two scopes would give its holder both."""
    for name in ("TRADENT_READ_TOKEN", "TRADENT_ADMIN_TOKEN"):
        monkeypatch.setitem(os.environ, name, READ)
    with pytest.raises(SettingsError, match="two are the same"):
        Tokens.given()
