"""Verdicts to webhooks: a real server that fails in every way, and a real PostgreSQL that remembers what is owed."""

import asyncio
import base64
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from aiohttp import web

from database.deliveries import PostgresDeliveries
from database.engine import create_pool
from service.hooks.signature import verified_id
from service.webhooks.sender import WebhookSender
from service.webhooks.settings import WebhookSettings
from tests.waiting import until
from trading.clock import SystemClock

KEY = b"a key of thirty-two bytes, it is"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database)
    yield pool
    await pool.close()


class Receiver:
    """A server of somebody's. It answers with `answers` in turn, then with 200, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[int | str | tuple[int, dict[str, str]]] = []
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.at: list[float] = []
        self.elsewhere = 0
        self.url = ""

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.got]

    @property
    def items(self) -> list[dict[str, Any]]:
        return [orjson.loads(body)["data"] for _, body in self.got]

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.at.append(asyncio.get_running_loop().time())
        self.got.append((dict(request.headers), await request.read()))
        answer = self.answers.pop(0) if self.answers else 200
        if answer == "cut off" and request.transport is not None:
            request.transport.abort()
        if answer == "silence":
            await asyncio.sleep(30)
        if isinstance(answer, tuple):
            return web.Response(status=answer[0], headers=answer[1])
        return web.Response(status=answer if isinstance(answer, int) else 500)

    async def other(self, request: web.Request) -> web.StreamResponse:
        self.elsewhere += 1
        return web.Response()


TRIED = "SELECT * FROM webhook_deliveries WHERE last_error IS NOT NULL"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.take)
    app.router.add_route("*", "/elsewhere", made.other)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield made
    await runner.cleanup()


def hook(receiver: Receiver, **changes: Any) -> WebhookSettings:
    return WebhookSettings.model_validate({"name": "theirs", "url": receiver.url, "timeout_seconds": 30, **changes})


@asynccontextmanager
async def sending(pool: asyncpg.Pool, *hooks: WebhookSettings, retry_s: float = 0.05) -> AsyncIterator[WebhookSender]:
    """A sender at work that tries again soon; it follows what comes from now on."""
    for each in hooks:
        await PostgresDeliveries(pool, each.name).begin()
    sender = WebhookSender(hooks, pool, SystemClock(), retry_s=(retry_s,))
    task = asyncio.create_task(sender.run())
    yield sender
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def rated(pool: asyncpg.Pool, number: int, rating: int | None = 4, side: str = "long", **more: Any) -> UUID:
    """A signal with its result."""
    signal_id = UUID(int=number)
    await pool.execute(
        """INSERT INTO signals (id, source, symbol, timeframe, close_time, strategy, side, strength, price, snapshot,
                                created_at)
           VALUES ($1, 'simulated', 'BTC/USDT', '5m', $2, 'ma_cross', $3, 0.5, 61234.5, '{}', $2)""",
        signal_id, datetime(2026, 3, 1, tzinfo=UTC), side,
    )  # fmt: skip
    await pool.execute(
        """INSERT INTO llm_analysis_results (signal_id, status, rating, rationale, error, attempts, finished_at,
                                             stored_at, abstention)
           VALUES ($1, $2, $3, 'because', $4, 1, $5, clock_timestamp() - $6::interval, $7)""",
        signal_id, more.get("status", "completed"), rating, more.get("error"), datetime(2026, 3, 1, tzinfo=UTC),
        more.get("age", timedelta()), more.get("abstention"),
    )  # fmt: skip
    return signal_id


async def statuses(pool: asyncpg.Pool) -> Counter[str]:
    return Counter(row["status"] for row in await pool.fetch("SELECT status FROM webhook_deliveries"))


async def all_are(pool: asyncpg.Pool, **wanted: int) -> None:
    """Wait until the messages stand so."""
    async with asyncio.timeout(120):
        while await statuses(pool) != Counter(wanted):  # noqa: ASYNC110 - what is waited for is in PostgreSQL
            await asyncio.sleep(0.02)


async def test_a_verdict_is_posted_signed_with_what_the_api_tells_of_it(
    pool: asyncpg.Pool, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_SECRET", SECRET)
    monkeypatch.setenv("THEIR_AUTHORIZATION", "Basic abc")
    theirs = hook(receiver, secret_env="THEIR_SECRET", authorization_env="THEIR_AUTHORIZATION")
    async with sending(pool, theirs) as sender:
        signal_id = await rated(pool, 1)
        sender.poke()
        await all_are(pool, delivered=1)
    ((headers, body),) = receiver.got
    lower = {name.lower(): value for name, value in headers.items()}
    message_id = verified_id(KEY, lower, body, datetime.now(UTC).timestamp())
    (row,) = await pool.fetch("SELECT id, attempts, http_status FROM webhook_deliveries")
    assert (message_id, row["attempts"], row["http_status"]) == (f"msg_{row['id'].hex}", 1, 200)
    assert lower["authorization"] == "Basic abc"
    told = orjson.loads(body)
    assert told["type"] == "verdict"
    assert told["data"]["signal"] == f"sig-{signal_id}"
    assert (told["data"]["rating"], told["data"]["rationale"], told["data"]["price"]) == (4, "because", 61234.5)


async def test_a_webhook_hears_what_it_asks_for_and_nothing_from_before_it(
    pool: asyncpg.Pool, receiver: Receiver
) -> None:
    await rated(pool, 1)
    quiet = hook(receiver, min_rating=4, sides=["long"])
    loud = hook(receiver, name="loud", events=["abstention", "failure"])
    async with sending(pool, quiet, loud):
        await rated(pool, 2, 3)
        await rated(pool, 3, 4, "short")
        await rated(pool, 4, None, abstention="it says two things")
        await rated(pool, 5, None, status="failed", error="no reply")
        await rated(pool, 6, 5, age=timedelta(days=2))
        await rated(pool, 7, 5)
        await all_are(pool, delivered=3)
    assert {item["signal"] for item in receiver.items} == {f"sig-{UUID(int=number)}" for number in (4, 5, 7)}


@pytest.mark.parametrize(
    "answer", [500, 404, 429, (302, {"Location": "/elsewhere"}), "cut off", "silence", (503, {"Retry-After": "0"})]
)
async def test_whatever_goes_wrong_it_is_tried_again_as_the_same_message(
    pool: asyncpg.Pool, receiver: Receiver, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [answer, answer]
    with caplog.at_level(logging.INFO):
        async with sending(pool, hook(receiver, timeout_seconds=2 if answer == "silence" else 30)):
            await rated(pool, 1)
            await all_are(pool, delivered=1)
    assert len(receiver.got) == 3
    assert len(set(receiver.ids)) == 1
    assert receiver.elsewhere == 0
    said = [record.message for record in caplog.records if "webhook theirs" in record.message]
    assert said == [
        "webhook theirs does not take messages; they are tried again", "webhook theirs takes messages again",
    ]  # fmt: skip


async def test_one_that_says_how_long_to_wait_is_left_alone_for_so_long(pool: asyncpg.Pool, receiver: Receiver) -> None:
    """All its messages wait, not the refused one alone."""
    receiver.answers = [(429, {"Retry-After": "1.5"})]
    async with sending(pool, hook(receiver)):
        await rated(pool, 1)
        await until(lambda: len(receiver.got) == 1)
        await rated(pool, 2)
        await all_are(pool, delivered=2)
    assert len(receiver.got) == 3
    assert receiver.at[1] - receiver.at[0] >= 1.5


async def test_one_that_says_at_once_is_tried_again_as_if_it_had_said_nothing(
    pool: asyncpg.Pool, receiver: Receiver
) -> None:
    receiver.answers = [(503, {"Retry-After": "0"})] * 20
    async with sending(pool, hook(receiver), retry_s=3600.0):
        await rated(pool, 1)
        await until(lambda: len(receiver.got) > 0)
        async with asyncio.timeout(120):
            while not (row := await pool.fetchrow(TRIED)):  # noqa: ASYNC110 - what is waited for is in PostgreSQL
                await asyncio.sleep(0.02)
    assert row["status"] == "pending"
    assert row["run_at"] - row["created_at"] > timedelta(minutes=30)


async def test_one_that_is_gone_is_sent_nothing_more(
    pool: asyncpg.Pool, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [410]
    async with sending(pool, hook(receiver)) as sender:
        await rated(pool, 1)
        await all_are(pool, failed=1)
        await rated(pool, 2)
        sender.poke()
        await asyncio.wait(sender._running, timeout=120)
    assert len(receiver.got) == 1
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == [
        "webhook theirs is gone (410): nothing more is sent to it; take it out of the settings"
    ]


async def test_a_dead_one_is_given_up_after_so_many_attempts_and_said_once(
    pool: asyncpg.Pool, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [500] * 12
    async with sending(pool, hook(receiver, max_attempts=4)):
        for number in range(3):
            await rated(pool, number + 1)
        await all_are(pool, failed=3)
    assert sorted(Counter(receiver.ids).values()) == [4, 4, 4]
    assert sum("was given up" in record.message for record in caplog.records) == 1
    (row,) = await pool.fetch("SELECT DISTINCT last_error, http_status FROM webhook_deliveries")
    assert tuple(row) == ("it answered 500", 500)


async def test_one_that_fails_every_now_and_then_is_told_of_once_a_minute(
    pool: asyncpg.Pool, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.answers = [503, 200] * 3
    async with sending(pool, hook(receiver)):
        for number in range(3):
            await rated(pool, number + 1)
            await all_are(pool, delivered=number + 1)
    assert sum("does not take messages" in record.message for record in caplog.records) == 1
    assert sum("takes messages again" in record.message for record in caplog.records) == 1


async def test_one_that_fails_again_within_the_minute_and_goes_on_failing_is_told_of_after_it(
    pool: asyncpg.Pool, receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.webhooks.sender.TELL_EVERY_S", 3.0)
    receiver.answers = [503, 200] + [503] * 1000
    async with sending(pool, hook(receiver, max_attempts=100)), asyncio.timeout(120):
        await rated(pool, 1)
        await all_are(pool, delivered=1)
        await rated(pool, 2)
        while sum("does not take messages" in record.message for record in caplog.records) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_what_is_kept_of_one_that_cannot_be_reached_names_no_address(pool: asyncpg.Pool) -> None:
    there = WebhookSettings.model_validate({"name": "theirs", "url": "http://127.0.0.1:1/x", "max_attempts": 1})
    async with sending(pool, there):
        await rated(pool, 1)
        await all_are(pool, failed=1)
    (row,) = await pool.fetch("SELECT last_error FROM webhook_deliveries")
    assert row["last_error"] == "it cannot be connected to: Connection refused"


async def test_several_processes_send_each_message_once(pool: asyncpg.Pool, receiver: Receiver) -> None:
    async with sending(pool, hook(receiver)), sending(pool, hook(receiver)), sending(pool, hook(receiver)):
        for number in range(60):
            await rated(pool, number + 1)
        await all_are(pool, delivered=60)
    assert len(receiver.got) == len(set(receiver.ids)) == 60


async def test_what_a_dead_process_was_sending_is_sent_by_the_next_under_the_same_id(
    pool: asyncpg.Pool, receiver: Receiver
) -> None:
    dead = PostgresDeliveries(pool, "theirs")
    await dead.begin()
    await rated(pool, 1)
    assert await dead.follow(lambda item: True, timedelta(days=1)) == 1
    claimed = await dead.claim(timedelta(hours=1))
    assert claimed is not None
    assert await dead.claim(timedelta(hours=1)) is None
    await pool.execute("UPDATE webhook_deliveries SET run_at = clock_timestamp()")
    async with sending(pool, hook(receiver)):
        await all_are(pool, delivered=1)
    assert receiver.ids == [claimed.message_id]
    await dead.end(claimed, "failed", None, "the dead one comes back")
    assert await statuses(pool) == {"delivered": 1}


async def test_the_drain_sends_what_is_there_and_leaves_what_cannot_be_sent(
    pool: asyncpg.Pool, receiver: Receiver
) -> None:
    async with sending(pool, hook(receiver)) as sender:
        await rated(pool, 1)
        await sender.drain(30)
        assert await statuses(pool) == {"delivered": 1}
    receiver.answers = [500]
    async with sending(pool, hook(receiver)) as sender:
        await rated(pool, 2)
        await sender.drain(30)
    assert (await statuses(pool)).total() == 2


async def test_old_messages_are_forgotten(pool: asyncpg.Pool, receiver: Receiver) -> None:
    async with sending(pool, hook(receiver)):
        await rated(pool, 1)
        await all_are(pool, delivered=1)
    await pool.execute("UPDATE webhook_deliveries SET finished_at = finished_at - interval '31 days'")
    await PostgresDeliveries(pool, "theirs").begin()
    assert not await statuses(pool)
