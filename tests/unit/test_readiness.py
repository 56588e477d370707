"""Each check by itself: when it fails, and that it then says what to do."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from database.control_acts import Pause
from database.upgrading import Upgrade
from service.daemon import Daemon
from service.rating_side import RatingSide
from service.readiness import Check, is_ready, readiness
from service.settings import Settings
from tests.fake_clock import FakeClock
from trading.feeds.base import FeedState, Progress
from trading.model import Bar, Stream

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class LiveFeed:
    """A feed of a real market, as far as it is looked at."""

    source = "binance"

    def __init__(self, trouble: str | None, heard_s: float, offset_s: float, unlisted: Mapping[str, str]) -> None:
        heard_at = NOW - timedelta(seconds=heard_s)
        self.state = FeedState(trouble is None, heard_at, trouble, offset_s, {}, unlisted)

    def is_new(self, bar: Bar) -> bool:
        return True


def trading(**changes: Any) -> SimpleNamespace:
    """The trading side of a live feed, all well."""
    state = {"kept_bytes": 10, "max_bytes": 1000, "memory_bytes": 0, "unsynced_s": 0.0, "full_in_s": None}
    state |= {key: changes.pop(key) for key in tuple(changes) if key in state}
    away_s, held_s = changes.pop("away_s", 0.0), changes.pop("held_s", 0.0)
    live = LiveFeed(changes.pop("trouble", None), changes.pop("heard_s", 1e5), changes.pop("offset_s", 0.0),
                    changes.pop("unlisted", {}))  # fmt: skip
    return SimpleNamespace(
        feed=object() if changes.pop("never_late", False) else live,
        feed_ended=SimpleNamespace(is_set=lambda: changes.get("ended", False)),
        recorder=SimpleNamespace(away_s=away_s, held_s=held_s, shipped=SimpleNamespace(waiting_since=away_s or None)),
        journal=SimpleNamespace(state=SimpleNamespace(**state)),
    )


def streams(*ages_s: float, timeframe: str = "1m") -> dict[Stream, SimpleNamespace]:
    """Streams whose last bars closed that long ago."""
    return {
        Stream("x", f"S{number}", timeframe): SimpleNamespace(
            last=SimpleNamespace(close_time=NOW - timedelta(seconds=age_s))
        )
        for number, age_s in enumerate(ages_s)
    }


def rating(
    *standing: tuple[str, str | None], checked: bool = True, refuses: str | None = None, skips: bool = False
) -> SimpleNamespace:
    caller = SimpleNamespace(
        standing=lambda: list(standing), spending=SimpleNamespace(refuses=refuses, skips=skips)
    )  # fmt: skip
    return SimpleNamespace(checked=[1] if checked else [], caller=caller)


def daemon(**changes: Any) -> Daemon:
    """All well, but for the changes."""
    parts: dict[str, Any] = {
        "phase": "running", "room": object(), "awaits_database": False, "upgrade": None,
        "queue_unseen": False,
        "trading": trading(), "rating": rating(("a/b", None)), "exporter": SimpleNamespace(trouble=None),
        "unfinished": {"pending": 3}, "control": None, "clock": SimpleNamespace(now=lambda: NOW), "started_at": NOW,
        "tally": SimpleNamespace(streams=streams(20.0)),
        "settings": SimpleNamespace(
            llm=SimpleNamespace(max_memory_signals=1000), trading=SimpleNamespace(feed=SimpleNamespace(timeframe="1m"))
        ),
    }  # fmt: skip
    return cast(Daemon, SimpleNamespace(**parts | changes))


def failing(found: Sequence[Check]) -> dict[str, str]:
    return {each.check: each.detail for each in found if not each.ok}


def test_a_daemon_that_is_well_passes_every_check() -> None:
    checks = readiness(daemon())
    assert is_ready(checks)
    assert [each.check for each in checks] == [
        "process", "database", "feed", "journal", "disk", "model", "queue", "csv",
    ]  # fmt: skip
    assert all(each.detail for each in checks)


NO_BARS = SimpleNamespace(streams={})
LATE_BARS = SimpleNamespace(streams=streams(20.0, 151.0))
FAULTS: list[tuple[dict[str, Any], str, str]] = [
    ({"phase": "starting"}, "process", "wait for it"),
    ({"phase": "stopping"}, "process", "stopping"),
    ({"room": None}, "database", "not open yet"),
    ({"room": None, "upgrade": Upgrade(6, 9, "0015", 9.0)}, "database", "up to date: migration 0015 .7 of 9.; wait"),
    ({"room": None, "awaits_database": True}, "database", "start it, or correct database.url"),
    ({"trading": trading(away_s=12.0)}, "database", "nothing for 12 s.*bring it back"),
    ({"queue_unseen": True}, "database", "bring it back"),
    ({"tally": LATE_BARS}, "feed", "S1 1m for 151 s .1 of 2.*network"),
    (
        {"tally": NO_BARS, "started_at": NOW - timedelta(minutes=3)},
        "feed",
        "no bar has come in 180 s",
    ),
    (
        {"trading": trading(trouble="rate limited"), "tally": SimpleNamespace(streams=streams(151.0))},
        "feed",
        "rate lim",
    ),
    (
        {"trading": trading(unlisted={"ETHUSDT": "did you mean ETH/USDT?"})},
        "feed",
        r"binance does not list ETHUSDT \(did you mean ETH/USDT\?\): correct trading.feed.symbols. Otherwise: 1 str",
    ),
    ({"trading": trading(unlisted=dict.fromkeys("ABCDEFG", "?"))}, "feed", r"A \(\?\), .*E \(\?\) and 2 more: correct"),
    ({"trading": trading(kept_bytes=800, full_in_s=90.0)}, "journal", "80%.*full in 90 s.*bring PostgreSQL back"),
    (
        {"trading": trading(kept_bytes=400, held_s=11.0), "tally": SimpleNamespace(streams=streams(1e6))},
        "journal",
        "40% full, so for 11 s no bar.*bring PostgreSQL back",
    ),
    ({"trading": trading(memory_bytes=4096)}, "disk", "4 KiB wait in memory: make room"),
    ({"trading": trading(unsynced_s=11.0)}, "disk", "not been durable for 11 s"),
    ({"rating": rating(checked=False)}, "model", "being looked at"),
    ({"rating": rating(("a/b", "no key"), ("c/d", "away"))}, "model", "signals wait. a/b: no key; c/d: away"),
    (
        {"rating": rating(("a/b", "spent"), ("c/d", "spent"), refuses="spent")},
        "model",
        "signals are skipped. a/b: spen",
    ),
    ({"rating": rating(("a/b", "spent"), ("c/d", "away"), refuses="spent")}, "model", "signals wait. a/b: spent; c/d"),
    (
        {"rating": rating(("a/b", "spent"), ("c/d", "away"), refuses="spent", skips=True)},
        "model",
        "signals are skipped. a/b: spent",
    ),
    ({"unfinished": {"pending": 1001}}, "queue", "1001 signals.*add workers"),
    ({"exporter": SimpleNamespace(trouble="no room on the disk")}, "csv", "no room on the disk"),
]


@pytest.mark.parametrize(("changes", "check", "words"), FAULTS)
def test_what_is_wrong_fails_its_own_check_alone_and_says_what_to_do(
    changes: dict[str, Any], check: str, words: str
) -> None:
    checks = readiness(daemon(**changes))
    assert not is_ready(checks)
    assert list(failing(checks)) == [check]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(failing(checks)[check])


def test_a_fallback_that_rates_is_well_and_says_for_whom() -> None:
    found = {each.check: each for each in readiness(daemon(rating=rating(("a/b", "no key"), ("c/d", None))))}
    assert found["model"] == Check("model", True, "c/d rates in place of a/b: no key")


def test_a_pause_is_no_fault_and_is_told_with_who_wanted_it_also_where_it_makes_the_queue_long() -> None:
    pause = Pause(NOW, "cli", "root", "night")
    control = SimpleNamespace(pausing=SimpleNamespace(pause=pause))
    words = "rating was paused at 2026-01-02 12:00 UTC by root (night): `tradent resume` goes on"
    checks = readiness(daemon(control=control))
    assert is_ready(checks)
    assert Check("model", True, f"{words}; a/b rates then") in checks
    said = failing(readiness(daemon(control=control, unfinished={"pending": 1001})))
    assert said == {"queue": f"1001 signals wait to be rated, more than llm.max_memory_signals (1000): {words}"}


@pytest.mark.parametrize("timeframe", ["1m", "1h"])
def test_a_feed_is_late_by_its_own_timeframe(timeframe: str) -> None:
    """Two bars' length and half a minute behind the last close."""
    limit_s = {"1m": 150.0, "1h": 7230.0}[timeframe]
    for age_s, well in ((limit_s, True), (limit_s + 1, False)):
        found = readiness(daemon(tally=SimpleNamespace(streams=streams(age_s, timeframe=timeframe))))
        assert is_ready(found) is well


@pytest.mark.parametrize("feed", [trading(never_late=True), trading(ended=True)])
def test_bars_of_a_feed_that_is_never_late_or_has_ended_are_of_any_age(feed: SimpleNamespace) -> None:
    assert is_ready(readiness(daemon(trading=feed, tally=SimpleNamespace(streams=streams(1e9)))))


def test_a_market_without_trades_is_no_fault_where_the_exchange_answers() -> None:
    quiet = streams(20.0, 1e6)
    checks = readiness(daemon(trading=trading(heard_s=100.0), tally=SimpleNamespace(streams=quiet)))
    assert is_ready(checks)
    assert "S1 1m for 1000000 s (1 of 2 streams are late), though the exchange answers" in checks[2].detail
    troubled = trading(heard_s=100.0, trouble="rate limited")
    assert not is_ready(readiness(daemon(trading=troubled, tally=SimpleNamespace(streams=quiet))))


def test_an_exchange_that_cannot_be_reached_at_the_start_is_no_wait_for_first_bars() -> None:
    nothing = {"tally": SimpleNamespace(streams={}), "started_at": NOW - timedelta(seconds=4)}
    assert is_ready(readiness(daemon(**nothing)))
    away = readiness(daemon(**nothing, trading=trading(trouble="it cannot be reached: no route")))
    assert failing(away) == {"feed": "no bar has come in 4 s: it cannot be reached: no route"}


def test_old_bars_of_the_past_that_is_being_fetched_are_not_called_a_quiet_market() -> None:
    side = trading(heard_s=1)
    side.feed.progress = Progress(30, 900, 12.0)
    checks = readiness(daemon(trading=side, tally=SimpleNamespace(streams=streams(5000.0))))
    assert [each.detail for each in checks if each.check == "feed"] == ["the bars of the past are fetched: 30 of 900"]
    assert is_ready(checks)


def test_bars_are_as_old_as_the_exchanges_clock_says() -> None:
    ahead = trading(offset_s=3600.0)
    assert is_ready(readiness(daemon(trading=ahead, tally=SimpleNamespace(streams=streams(-3600.0 + 20)))))
    assert not is_ready(readiness(daemon(trading=ahead)))


def test_a_process_is_only_asked_for_what_it_does() -> None:
    worker = readiness(daemon(trading=None))
    trader = readiness(daemon(rating=None, exporter=None))
    assert [each.check for each in worker] == ["process", "database", "model", "queue", "csv"]
    assert [each.check for each in trader] == ["process", "database", "feed", "journal", "disk"]


async def test_a_database_that_answers_again_is_seen_soon_however_long_it_did_not() -> None:
    clock, away = FakeClock(), asyncio.Event()
    of = Daemon(Settings(), clock=clock)

    async def unfinished() -> dict[str, int]:
        if away.is_set():
            await clock.sleep(30.0)
            raise TimeoutError
        return {"pending": 2}

    of.rating = cast(RatingSide, SimpleNamespace(queue=SimpleNamespace(unfinished=unfinished)))
    away.set()
    counting = asyncio.create_task(of._count_forever())
    await clock.advance(31.0)
    assert of.queue_unseen
    away.clear()
    await clock.advance(10.0)
    assert not of.queue_unseen
    assert of.unfinished == {"pending": 2}
    counting.cancel()
