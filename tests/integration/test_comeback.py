"""Signals that were put off while no model could be used, and what has them rated before their time."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from database.engine import create_pool
from database.put_off import PostgresPutOff
from tests.daemon import Daemon, Look, Process
from tests.integration.test_tasks import MINUTE, begin, make_queue, put, task
from tests.servers import Answer, OpenRouterServer

RIGHT = "sk-or-the-right-one"
MODEL = "openrouter/some/model"
AHEAD = "status = 'pending' AND run_at > clock_timestamp() + interval '30 seconds'"


class Guarded(OpenRouterServer):
    """It takes one key only."""

    def beside(self, path: str) -> Answer:
        right = self.requests[-1].headers.get("Authorization") == f"Bearer {RIGHT}"
        return super().beside(path) if right else Answer({"error": {"message": "No auth", "code": 401}}, status=401)


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, size=4)
    yield pool
    await pool.close()


async def test_only_what_was_tried_before_comes_forward_the_most_urgent_first(pool: asyncpg.Pool) -> None:
    """With the attempts that it had; what is due, was tried since or is worked on stays as it is."""
    ids = await put(pool, 5)
    queue, put_off = make_queue(pool), PostgresPutOff(pool)
    claims = await begin(queue, 4)
    for claim in claims[:3]:
        await queue.retry(claim, 10 * MINUTE, "no model answered", [])
    await pool.execute("UPDATE llm_enhancement_tasks SET priority = 5 WHERE signal_id = $1", claims[1].signal.id)
    before = [await task(pool, signal_id) for signal_id in ids]
    since = await put_off.now()
    await pool.execute(
        "UPDATE llm_enhancement_tasks SET begun_at = clock_timestamp() WHERE signal_id = $1", claims[2].signal.id
    )
    assert await put_off.bring_forward(1, since) == 1
    (first,) = await queue.claim(1)
    assert (first.signal.id, first.attempt) == (claims[1].signal.id, 2)
    assert [await put_off.bring_forward(9, since), await put_off.bring_forward(9, since)] == [1, 0]
    after = {signal_id: await task(pool, signal_id) for signal_id in ids}
    assert after[claims[0].signal.id]["run_at"] < since + MINUTE
    assert after[claims[0].signal.id]["attempts"] == 1
    for each in before:
        if each["signal_id"] not in (claims[0].signal.id, claims[1].signal.id):
            assert after[each["signal_id"]]["run_at"] == each["run_at"]


class Rated:
    """A daemon whose only model is refused at first, what it put off lying far ahead."""

    def __init__(self, folder: Path, database: str, server: Guarded, key: str) -> None:
        (folder / "credentials").mkdir()
        self.key = folder / "credentials" / "OPENROUTER_API_KEY"
        self.key.write_text(key)
        feed = {"type": "simulated", "speed": 600.0, "timeframe": "1m", "symbols": ["SIMBTC"], "seed": 11}
        backends = {"openrouter": {"base_url": server.base_url, "requests_per_minute": 0}}
        llm = {
            "model": MODEL, "fallback_models": [], "poll_interval": 0.2, "backends": backends, "signal_ttl_seconds": 0,
        }  # fmt: skip
        given = {"database": {"url": database}, "trading": {"feed": feed}, "llm": llm}
        self.daemon = Daemon(folder, given, {"CREDENTIALS_DIRECTORY": str(self.key.parent)})
        self.look = Look(database)

    async def put_off(self) -> None:
        """Wait until there are some, and have them wait for a quarter of an hour more."""
        await self.look.until(f"SELECT count(*) > 5 FROM llm_enhancement_tasks WHERE {AHEAD}")
        await self.look.value(
            f"WITH far AS (UPDATE llm_enhancement_tasks SET run_at = run_at + interval '15 minutes' WHERE {AHEAD} "
            "RETURNING signal_id) INSERT INTO far_ahead SELECT signal_id FROM far RETURNING 1"
        )

    async def rated(self) -> None:
        """Wait until all of those have a verdict."""
        await self.look.until(
            "SELECT bool_and(status = 'completed') FROM llm_enhancement_tasks JOIN far_ahead USING (signal_id)"
        )


@pytest.fixture
async def far_ahead(pool: asyncpg.Pool) -> None:
    await pool.execute("CREATE TABLE far_ahead (signal_id uuid)")


async def reload(running: Process) -> None:
    url = running.log.partition("is answered at ")[2].split()[0]
    async with aiohttp.ClientSession() as session, session.post(f"{url}/api/v1/control/reload") as answer:
        assert answer.status == 200


async def test_with_the_right_key_and_a_reload_they_are_rated_at_once(
    database: str, tmp_path: Path, far_ahead: None
) -> None:
    """The key alone has changed, and is read anew."""
    async with Guarded(models=[{"id": "some/model"}]) as server:
        world = Rated(tmp_path, database, server, "sk-or-wrong")
        async with world.daemon.start() as running:
            await world.put_off()
            world.key.write_text(RIGHT)
            await reload(running)
            await world.rated()
            await running.said("signals that were put off are rated now")


async def test_with_credit_and_a_reload_they_are_rated_at_once(database: str, tmp_path: Path, far_ahead: None) -> None:
    """Nothing has changed in the settings; what is left alone is looked at."""
    async with Guarded(models=[{"id": "some/model"}]) as server:
        rates = server.default
        server.default = lambda body: Answer({"error": {"message": "Insufficient credits", "code": 402}}, status=402)
        world = Rated(tmp_path, database, server, RIGHT)
        async with world.daemon.start() as running:
            await world.put_off()
            server.default = rates
            await reload(running)
            await world.rated()


async def test_with_the_right_key_and_a_restart_they_are_rated_at_once(
    database: str, tmp_path: Path, far_ahead: None
) -> None:
    async with Guarded(models=[{"id": "some/model"}]) as server:
        world = Rated(tmp_path, database, server, "sk-or-wrong")
        async with world.daemon.start() as running:
            await world.put_off()
            running.send(signal.SIGTERM)
            await running.ended()
        world.key.write_text(RIGHT)
        async with world.daemon.start():
            await world.rated()
