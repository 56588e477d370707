"""EventHub: everybody hears everything in order, and nobody who is slow holds up who publishes."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import orjson
import pytest

from service.events import AT_ONCE, Event, EventHub, HubFull, encoded


def numbers(events: list[Event]) -> list[int]:
    return [orjson.loads(event.payload)["n"] for event in events]


async def test_a_listener_hears_what_comes_after_it_in_order() -> None:
    hub = EventHub()
    hub.publish("bar", {"n": 0})
    listener = hub.subscribe()
    hub.publish("bar", {"n": 1})
    hub.publish("verdict", {"n": 2})

    taken = await hub.take(listener, 1.0)

    assert [event.kind for event in taken] == ["bar", "verdict"]
    assert numbers(taken) == [1, 2]


async def test_a_listener_that_waits_is_woken() -> None:
    hub = EventHub()
    listener = hub.subscribe()
    taking = asyncio.create_task(hub.take(listener, 60.0))
    await asyncio.sleep(0)
    hub.publish("bar", {"n": 1})

    assert numbers(await taking) == [1]


async def test_nothing_to_take_ends_the_wait_in_its_time() -> None:
    hub = EventHub()
    assert await hub.take(hub.subscribe(), 0.0) == []


async def test_a_listener_goes_on_behind_its_position() -> None:
    """What was taken is not given again, what was not is."""
    hub = EventHub()
    first = hub.subscribe()
    for number in range(5):
        hub.publish("bar", {"n": number})
    seen = (await hub.take(first, 1.0))[2]

    again = hub.subscribe(hub.position(seen.number + 1))

    assert not again.missed
    assert numbers(await hub.take(again, 1.0)) == [3, 4]


async def test_what_is_no_longer_kept_is_said_to_be_missed() -> None:
    hub = EventHub(kept=3)
    for number in range(5):
        hub.publish("bar", {"n": number})

    late = hub.subscribe(hub.position(1))

    assert late.missed
    assert numbers(await hub.take(late, 1.0)) == [2, 3, 4]


@pytest.mark.parametrize("position", ["", "nonsense", "0123456789ab-0", "-1", "\ud800"])
async def test_a_position_of_another_run_counts_as_missed(position: str) -> None:
    hub = EventHub()
    hub.publish("bar", {"n": 0})
    listener = hub.subscribe(position)
    assert listener.missed
    assert numbers(await hub.take(listener, 1.0)) == [0]


async def test_a_position_ahead_of_everything_counts_as_missed() -> None:
    hub = EventHub()
    for number in ("1", "9" * 30):
        assert hub.subscribe(hub.position(0)[:-1] + number).missed


async def test_a_listener_that_does_not_take_is_ended_and_the_others_go_on() -> None:
    hub = EventHub(kept=4)
    ended: list[str] = []
    slow = hub.subscribe(on_end=lambda: ended.append("slow"))
    keen = hub.subscribe(on_end=lambda: ended.append("keen"))
    heard: list[int] = []
    for number in range(10):
        hub.publish("bar", {"n": number})
        heard += numbers(await hub.take(keen, 1.0))
    await asyncio.sleep(0)

    assert heard == list(range(10))
    assert ended == ["slow"]
    assert slow.ended
    assert hub.listeners == 1
    assert await hub.take(slow, 60.0) == []


async def test_many_that_are_let_go_make_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    hub = EventHub(kept=1)
    for _ in range(5):
        hub.subscribe()
    for number in range(5):
        hub.publish("bar", {"n": number})
    await asyncio.sleep(0)
    assert hub.dropped == 5
    assert caplog.text.count("too slow") == 1


async def test_one_taking_brings_no_more_than_is_sent_at_once() -> None:
    hub = EventHub()
    listener = hub.subscribe()
    for number in range(AT_ONCE + 1):
        hub.publish("bar", {"n": number})
    assert len(await hub.take(listener, 1.0)) == AT_ONCE
    assert numbers(await hub.take(listener, 1.0)) == [AT_ONCE]


async def test_no_more_listen_than_may() -> None:
    hub = EventHub(most_listeners=1)
    first = hub.subscribe()
    with pytest.raises(HubFull, match="too many listen"):
        hub.subscribe()
    hub.unsubscribe(first)
    hub.subscribe()


async def test_a_closed_hub_wakes_all_and_takes_none() -> None:
    hub = EventHub()
    taking = asyncio.create_task(hub.take(hub.subscribe(), 60.0))
    await asyncio.sleep(0)
    hub.close()
    assert await taking == []
    with pytest.raises(HubFull):
        hub.subscribe()
    hub.publish("bar", {"n": 1})


def test_values_are_told_as_json_has_them() -> None:
    data = {
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "id": UUID(int=1), "nan": float("nan"), "odd": "\ud800!",
        "usd": Decimal("0.5"), "text": "a\nb",
    }  # fmt: skip
    told = orjson.loads(encoded(data))
    assert told == {
        "time": "2026-01-02T03:04:05Z", "id": "00000000-0000-0000-0000-000000000001", "nan": None, "odd": "?!",
        "usd": "0.5", "text": "a\nb",
    }  # fmt: skip
    assert b"\n" not in encoded(data)
