"""How long the parts of a stop may take."""

from service.ending import LAST_STEPS_S, LEAST_STEP_S, Grace
from tests.fake_clock import FakeClock


async def test_the_last_steps_come_out_of_the_grace_period() -> None:
    clock = FakeClock()
    grace = Grace(20.0, clock)
    assert grace.work_s == 20.0 - LAST_STEPS_S
    await clock.advance(20.0 - LAST_STEPS_S)
    assert (grace.work_s, grace.step_s) == (0.0, LAST_STEPS_S / 2)
    await clock.advance(grace.step_s)
    assert grace.step_s == LAST_STEPS_S / 4
    await clock.advance(10.0)
    assert grace.step_s == LEAST_STEP_S


async def test_a_short_grace_period_is_shared_in_halves() -> None:
    grace = Grace(2.0, FakeClock())
    assert (grace.work_s, grace.step_s) == (1.0, 0.5)
    assert Grace(0.0, FakeClock()).step_s == LEAST_STEP_S
