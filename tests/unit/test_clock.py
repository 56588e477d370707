"""SteadyClock: hours that the host's clock is set by do not pass."""

from datetime import timedelta

from tests.fake_clock import FakeClock
from trading.clock import SteadyClock


async def test_time_goes_on_however_the_clock_is_set() -> None:
    clock = FakeClock()
    steady = SteadyClock(clock)
    began = clock.now()
    await clock.advance(10)
    clock._start += timedelta(hours=1)
    assert steady.now() == began + timedelta(seconds=10)
    clock._start -= timedelta(hours=2)
    await clock.advance(5)
    assert steady.now() == began + timedelta(seconds=15)
