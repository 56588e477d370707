"""What is done every hour, and sooner again where it failed."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

import asyncpg
import pytest

from service.housekeeping import HOUR_S, Chore, keep_house
from tests.fake_clock import FakeClock


async def kept(clock: FakeClock, chore: Chore, seconds: float) -> None:
    """Keep house for so long."""
    keeping = asyncio.create_task(keep_house(clock, [chore]))
    await clock.advance(seconds)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


def failing(clock: FakeClock, times: list[float], error: Callable[[], Exception]) -> Chore:
    async def do() -> None:
        times.append(clock.monotonic())
        raise error()

    return Chore("old things", do)


async def test_a_chore_is_done_when_it_is_first_due_and_every_hour() -> None:
    clock = FakeClock()
    begun, times = clock.monotonic(), list[float]()

    async def do() -> None:
        times.append(clock.monotonic() - begun)

    await kept(clock, Chore("old things", do, first_after_s=HOUR_S), 3.5 * HOUR_S)
    assert times == [HOUR_S, 2 * HOUR_S, 3 * HOUR_S]


async def test_a_table_in_use_is_tried_again_every_minute_and_said_once_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, times = FakeClock(), list[float]()
    with caplog.at_level(logging.WARNING):
        chore = failing(clock, times, lambda: asyncpg.LockNotAvailableError("in use"))
        await kept(clock, chore, 20 * 60)
        assert len(times) == 21 and not caplog.records
        await kept(clock, chore, 50 * 60)
    assert [record.getMessage() for record in caplog.records] == ["old things wait"]


async def test_what_does_not_pass_by_itself_is_said_at_once_and_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    with caplog.at_level(logging.WARNING):
        refused = failing(clock, [], lambda: asyncpg.InsufficientPrivilegeError("must be owner of table market_data"))
        await kept(clock, refused, 2 * HOUR_S)
    assert [record.getMessage() for record in caplog.records] == ["old things wait"]
