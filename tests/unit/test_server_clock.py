"""When PostgreSQL's clock is held to have been set."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from database.server_clock import ServerClock
from tests.fake_clock import FakeClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def look(server: ServerClock, clock: FakeClock, took_s: float = 0.0, set_on_s: float = 0.0) -> None:
    """Ask for the time, which is noon and what has passed, and read the answer so much later."""
    asked_at = clock.monotonic()
    shown = NOON + timedelta(seconds=asked_at + set_on_s)
    await clock.advance(took_s)
    server.noticed(shown, asked_at)


@pytest.mark.parametrize("by_s", [3600, -3600])
async def test_a_clock_that_has_gone_on_by_other_than_the_time_that_passed_was_set(by_s: float) -> None:
    clock = FakeClock()
    server = ServerClock(clock)
    await look(server, clock)
    await clock.advance(5)
    await look(server, clock, set_on_s=by_s)
    assert server.set_at == clock.monotonic()
    assert server.gone_back == (by_s < 0)
    assert server.set_on_by == timedelta(seconds=max(by_s, 0))


async def test_an_answer_that_was_read_late_is_no_clock_that_was_set() -> None:
    """The loop was blocked, or the process frozen, while the answer lay there."""
    clock = FakeClock()
    server = ServerClock(clock)
    await look(server, clock)
    await look(server, clock, took_s=60)
    await look(server, clock)
    assert server.set_at < 0
    assert server.set_on_by == timedelta(0)
    assert not server.gone_back


async def test_what_is_noticed_while_the_database_is_told_is_told_next() -> None:
    clock = FakeClock()
    server = ServerClock(clock)
    told: list[object] = []
    await look(server, clock)

    class Pool:
        async def execute(self, query: str, before: object, set_on_by: object) -> None:
            told.append(set_on_by)
            if len(told) == 1:
                await clock.advance(1)
                await look(server, clock, set_on_s=3600)

    for _ in range(2):
        await server.keep(cast("Any", Pool()))
    assert told == [None, timedelta(hours=1)]
