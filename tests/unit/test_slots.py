"""Slots: whoever gives up waiting leaves the rest as it was."""

import asyncio

import pytest

from llm_integration.slots import Slots


async def test_one_that_gives_up_just_as_a_place_is_given_back_leaves_it_to_the_next() -> None:
    slots = Slots(1)
    await slots.acquire()
    first = asyncio.create_task(slots.acquire())
    second = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    first.cancel()
    slots.release()

    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.wait_for(second, 60)
