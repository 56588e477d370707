"""The live view: what a person must see is there at every size, and nothing shown can take the terminal over."""

import asyncio
import io
import re
import threading
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from service.narration import summary_facts
from service.status import require_ours
from service.view import Painter, picture, show_status
from service.view_layout import layout
from service.view_words import cut, fitted, moment, size, span, usd, wrapped
from trading.errors import TradentError

SIZES = [(200, 60), (120, 40), (80, 24), (60, 20)]
NO_KEY = "OPENROUTER_API_KEY is not set; make a key at https://openrouter.ai/keys"
HOSTILE = "\x1b[2J\x1b]0;taken\x07[red]a[/red]\r\nb\x9b31m\u202egnp\u2066\x00\x07\ud800 \x1bP1;2|x\x1b\\end"


def rating(**changes: Any) -> dict[str, Any]:
    return {
        "signal": "sig-1", "symbol": "SIMBTC", "timeframe": "5s", "close_time": "2026-11-20T16:09:05+00:00",
        "strategy": "ma_cross_10_30", "side": "long", "price": 50_522.9, "status": "completed", "rating": 4,
        "confidence": 0.66, "action": "enter_long", "rationale": "trend and volume agree", "abstention": None,
        "error": None, "model": "rules/baseline", "fallback": True, "cost_usd": 0.0, "processing_ms": 0.3,
        "finished_at": "2026-11-20T16:09:05.1+00:00",
    } | changes  # fmt: skip


def vitals(**changes: Any) -> dict[str, Any]:
    """What a healthy daemon without a key says of itself."""
    usage = {"waiting": 0, "blocked_s": 0.0}
    return {
        "version": "0.1.0", "role": "all", "phase": "running", "started_at": "2026-11-20T15:00:00+00:00",
        "now": "2026-11-20T16:09:08+00:00", "uptime_s": 4148.0, "memory_mib": 120.5, "memory_peak_mib": 180.0,
        "database": "embedded", "postgresql_away": False,
        "feed": {
            "source": "simulated", "simulated": True, "ended": False, "bars": 369, "signals": 128, "dropped": 0,
            "strategy_errors": 0, "guard": {"good": 369, "duplicate": 2, "gap": 0},
            "streams": [
                {"symbol": f"SIM{name}", "timeframe": "5s", "bars": 123, "close_time": "2026-11-20T16:09:05+00:00",
                 "close": 50_522.9, "close_before": 50_500.0}
                for name in ("BTC", "ETH", "SOL")
            ],
        },
        "recorder": {"bars": 369, "signals": 128, "refused": 0, "journal_bytes": 0},
        "signals": {"completed": 126, "failed": 1, "expired": 0, "abstained": 3, "average_processing_ms": 12.0,
                    "rating_distribution": {"1": 0, "2": 38, "3": 47, "4": 39, "5": 4}},
        "queue": {"pending": 5, "processing": 2},
        "models": {
            "enabled": True, "rates": "rules/baseline",
            "checked": [{"model": "openrouter/x", "usable": False, "detail": NO_KEY},
                        {"model": "rules/baseline", "usable": True, "detail": "rates by rule"}],
            "limits": {"openrouter": {"requests": 3, "tokens": 12_000, "requests_limit": 14, "tokens_limit": 950_000,
                                      **usage},
                       "rules": {"requests": 128, "tokens": 430_886, "requests_limit": 0, "tokens_limit": 0, **usage}},
        },
        "cost": {"since_start_usd": 0.0123, "since_start_unknown": 0, "today_usd": 1.5, "today_unknown": 2},
        "recent": [rating() for _ in range(20)],
        "csv": {"directory": "out", "files": {"llm_signals.csv": {"rows": 128, "bytes": 9}}, "trouble": None},
        "status_url": "http://127.0.0.1:8710",
    } | changes  # fmt: skip


def seen(shown: dict[str, Any], width: int = 120, height: int = 40, warnings: Any = ()) -> str:
    return "\n".join(line.plain for line in layout(shown, warnings, width, height, fill=True))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_matters_is_seen_on_every_screen(width: int, height: int) -> None:
    """The simulated market, the missing key, counts, quota, money, symbols, ratings and warnings are never dropped."""
    screen = seen(vitals(), width, height, [(30, "2026-11-20T16:09:05Z WARNING recorder: late bars count=2")])
    plain = re.sub(r"\s+", " ", screen)
    for fact in (
        "Tradent 0.1.0", "SIMULATED MARKET", "openrouter/x cannot be used:", "OPENROUTER_API_KEY is not set",
        "rules/baseline rates instead", "SIMBTC", "SIMETH", "SIMSOL", "50,522.90", "123 rated", "7 pending",
        "1 failed", "3/14 requests", "12k/950k tokens", "no limit", "since start $0.0123",
        "today $1.50 + 2 unpriced", "4 ★★★★☆", "16:09:05 WARNING recorder: late bars",
    ):  # fmt: skip
        assert fact in plain, fact


@pytest.mark.parametrize(("width", "height"), [*SIZES, (30, 8), (10, 3), (1, 1)])
def test_the_view_never_outgrows_its_screen(width: int, height: int) -> None:
    """No line is wider, and there are no more lines, than the terminal has room for."""
    lines = layout(vitals(), [(40, "2026-11-20T16:09:05Z ERROR x: " + "long " * 99)] * 9, width, height, fill=True)
    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width


def test_a_wide_screen_shows_why() -> None:
    screen = seen(vitals())
    assert "trend and volume agree" in screen
    assert "ma_cross_10_30" in screen
    assert "66%" in screen
    assert "enter_long" in screen


@pytest.mark.parametrize("width", [60, 100])
def test_a_migration_shows_how_far_it_is_and_how_long_what_is_under_way_takes(width: int) -> None:
    told = {"done": 6, "total": 9, "revision": "0015", "so_far_s": 70.0, "work": "index on signals, reading",
            "share": 0.42, "left_s": 75.5}  # fmt: skip
    starting = {"phase": "starting", "feed": {}, "recorder": {}, "models": {}, "recent": [], "csv": {}, "cost": {}}
    shown = seen(vitals(upgrade=told, **starting), width)
    for fact in ("migration 0015", "6 of 9 done", "42%", "0:01:15 left of it"):
        assert fact in shown, fact
    unknown = seen(vitals(upgrade=told | {"share": None, "left_s": None}, **starting), width)
    assert "index on signals" in unknown
    assert "%" not in unknown
    assert "left" not in unknown
    waits = seen(vitals(upgrade=told | {"by": "another process, PostgreSQL's 4711 for ::1"}, **starting), width)
    assert "waits for its migration" in waits
    assert "0015" not in waits


def test_the_bars_are_as_long_as_the_ratings_are_many() -> None:
    assert "1 ▁ 0   2 ▆ 38   3 █ 47   4 ▇ 39   5 ▁ 4" in seen(vitals())


def test_postgresql_away_csv_and_exchange_trouble_and_no_model_are_said_in_red() -> None:
    models = vitals()["models"] | {"rates": None}
    away = vitals(postgresql_away=True, csv={"trouble": "the disk is full"}, models=models)
    away["recorder"]["journal_bytes"] = 1_200_000
    unlisted = {"ETHUSDT": "did you mean ETH/USDT?"}
    away["feed"] |= {"source": "binance", "live": {"trouble": "it limits our requests: 429", "unlisted": unlisted}}
    lines = layout(away, (), 60, 20)
    red = [line.plain for line in lines if str(line.style) == "bold red"]
    assert red[0].startswith("! PostgreSQL AWAY")
    assert red[1] == "! CSV STOPPED: the disk is full"
    assert red[2] == "! binance: it limits our requests: 429"
    assert red[3] == "! no bars of ETHUSDT: did you mean ETH/USDT?"
    assert red[4] == "! NO MODEL can be used: signals wait"
    assert "journal (1.2 MB)" in seen(away)


def test_what_is_fine_raises_no_alarm() -> None:
    assert "! " not in seen(vitals())


def test_a_trader_says_that_workers_rate() -> None:
    shown = seen(vitals(role="trader", models={"enabled": False}, csv={}, recent=[]))
    assert "workers rate what this trader finds" in shown
    assert "128 found" in shown
    assert "no model" not in shown.lower()


def test_rating_switched_off_says_so() -> None:
    assert "llm.enabled is false: nothing is rated" in seen(vitals(models={"enabled": False}))
    assert "llm.enabled" not in seen(vitals(phase="ended", models={"enabled": None})), "stopped before it was looked at"


def test_a_worker_shows_no_market() -> None:
    shown = seen(vitals(role="worker", feed={}, recorder={}))
    assert "MARKET" not in shown
    assert "SIMULATED" not in shown
    assert "123 rated" in shown


def test_a_real_market_is_not_called_simulated() -> None:
    feed = vitals()["feed"] | {"source": "binance", "simulated": False}
    assert "SIMULATED" not in seen(vitals(feed=feed))


def test_money_that_is_not_known_is_no_zero() -> None:
    cost = {"since_start_usd": 0.0, "since_start_unknown": 7, "today_usd": None, "today_unknown": None}
    shown = seen(vitals(cost=cost))
    assert "since start unknown (7 unpriced)" in shown
    assert "today unknown" in shown
    assert "$0" not in shown


@pytest.mark.parametrize(
    ("budget", "used", "said"),
    [(5.0, 1.62, "32% of $5.00 a day"), (5.0, 5.0, "100% of $5.00 a day"), (0.0, 0.0, "100% of $0.00 a day")],
)
def test_a_days_budget_is_seen_by_how_much_of_it_is_gone(budget: float, used: float, said: str) -> None:
    cost = vitals()["cost"] | {"budget_usd": budget, "budget_used_usd": used}
    assert said in seen(vitals(cost=cost))


@pytest.mark.parametrize("unknown", [{}, {"budget_usd": None, "budget_used_usd": None},
                                     {"budget_usd": 5.0, "budget_used_usd": None}])  # fmt: skip
def test_no_budget_and_one_not_known_are_not_shown(unknown: dict[str, Any]) -> None:
    assert "a day" not in seen(vitals(cost=vitals()["cost"] | unknown))


def test_how_a_signal_without_a_rating_ended_is_seen() -> None:
    ends = [
        rating(rating=None, abstention="the reply was cut off", rationale=None),
        rating(status="failed", rating=None, error="no model answered", rationale=None),
        rating(status="expired", rating=None, error="waited for too long", rationale=None),
    ]
    shown = seen(vitals(recent=ends))
    for words in ("abstained", "the reply was cut off", "failed", "no model answered", "expired"):
        assert words in shown


def test_many_symbols_leave_room_for_the_ratings() -> None:
    """A hundred symbols are shortened to some, and the rest are counted."""
    feed = vitals()["feed"]
    feed["streams"] = [feed["streams"][0] | {"symbol": f"S{place}"} for place in range(100)]
    shown = seen(vitals(feed=feed), 80, 24)
    assert "more" in shown
    assert shown.count("★★★★☆") >= 3


def test_a_block_by_the_server_is_seen() -> None:
    shown = vitals()
    shown["models"]["limits"]["openrouter"] |= {"blocked_s": 31.0, "waiting": 4}
    assert "blocked by the server for 31 s" in seen(shown)
    assert "4 waiting" in seen(shown)


def test_text_from_outside_is_shown_and_not_obeyed() -> None:
    """Neither markup nor control sequences of a model, a feed or an error reach the terminal."""
    shown = vitals(recent=[rating(rationale=HOSTILE, symbol=HOSTILE, model=HOSTILE, strategy=HOSTILE)])
    shown["models"]["checked"][0]["detail"] = HOSTILE
    shown["feed"]["streams"][0]["symbol"] = HOSTILE
    shown["csv"]["trouble"] = HOSTILE
    out = io.StringIO()
    console = Console(file=out, width=200, height=60, force_terminal=True, color_system=None)
    for line in layout(shown, [(30, "2026-11-20T16:09:05Z WARNING x: [bold]m[/bold]")], 200, 60):
        console.print(line)
    written = out.getvalue()
    assert "[red]a[/red] b" in written
    assert "[bold]m[/bold]" in written
    assert "taken" not in written
    assert re.sub("\x1b\\[[0-9;]*m", "", written).replace("\n", "").isprintable()


@pytest.mark.parametrize("missing", [*vitals(), "everything"])
@pytest.mark.parametrize("value", [None, 5, "text", [], {}, [None], {"a": None}])
def test_a_missing_or_strange_part_is_left_out(missing: str, value: Any) -> None:
    """The view of an older or newer daemon, or of one that is only starting, shows what it knows."""
    shown = vitals()
    without = {} if missing == "everything" else {name: part for name, part in shown.items() if name != missing}
    for width, height in SIZES:
        assert layout(without, (), width, height)
        assert layout(shown | {missing: value}, (), width, height)


def test_strange_values_deep_inside_are_left_out() -> None:
    def spoil(part: Any, value: Any) -> Any:
        if isinstance(part, dict):
            return {name: spoil(inner, value) for name, inner in part.items()}
        return [spoil(inner, value) for inner in part] if isinstance(part, list) else value

    for value in (None, "text", -1, 1e300, True):
        assert layout(spoil(deepcopy(vitals()), value), (), 80, 24)


def test_the_picture_is_drawn_on_a_console_as_large_as_it_is_now() -> None:
    console = Console(file=io.StringIO(), width=60, height=20, force_terminal=True, record=True)
    console.print(picture((orjson.dumps(vitals()), ()), console))
    assert max(map(cell_len, console.export_text().splitlines())) <= 60


def test_status_is_plain_text_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    show_status(orjson.dumps(vitals()), Console(file=out))
    assert "\x1b" not in out.getvalue()
    assert "123 rated" in out.getvalue()
    assert all(line == line.rstrip() for line in out.getvalue().splitlines())


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b""])
def test_another_programs_answer_is_not_taken_for_a_daemons(answer: bytes) -> None:
    with pytest.raises(TradentError, match=r"service\.port"):
        require_ours(answer)


async def test_a_terminal_that_takes_nothing_holds_nobody_up() -> None:
    """While a write hangs, frames are handed over without waiting; then the newest is painted, those before are not."""
    entered, painted, released = asyncio.Event(), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            loop.call_soon_threadsafe(entered.set)
            released.wait(30)
            if "up 0:01:39" in text:
                loop.call_soon_threadsafe(painted.set)
            return super().write(text)

    out = Stuck()
    painter = Painter(Console(file=out, width=80, height=24, force_terminal=True, color_system=None), lambda: None)
    painter.start()
    async with asyncio.timeout(30):
        await entered.wait()
        for uptime in range(100):
            painter.show((orjson.dumps(vitals(uptime_s=uptime)), ()))
        released.set()
        await painted.wait()
        await painter.stop()
    assert "up 0:00:50" not in out.getvalue()
    assert "\x1b[?1049l" in out.getvalue(), "the screen is given back"


async def test_a_frame_is_painted_once() -> None:
    """Between frames the painter rests."""
    painted: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            for uptime in re.findall(r"up 0:00:\d\d", text):
                loop.call_soon_threadsafe(painted.put_nowait, uptime)
            return super().write(text)

    painter = Painter(Console(file=Watched(), width=80, height=24, force_terminal=True), lambda: None)
    painter.start()
    shown = []
    async with asyncio.timeout(30):
        for uptime in range(20):
            painter.show((orjson.dumps(vitals(uptime_s=uptime)), ()))
            shown.append(await painted.get())
        await painter.stop()
    assert shown == [f"up 0:00:{uptime:02}" for uptime in range(20)]
    assert painted.empty()


async def test_a_view_that_fails_gives_the_terminal_back_to_the_log() -> None:
    left = asyncio.Event()
    loop = asyncio.get_running_loop()
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)

    def leave() -> None:
        loop.call_soon_threadsafe(left.set)

    painter = Painter(console, leave)
    painter.start()
    painter.show((b"no JSON", ()))
    async with asyncio.timeout(30):
        await left.wait()
        await painter.stop()


@given(st.text(), st.integers(0, 30))
def test_a_text_is_cut_to_its_width(text: str, width: int) -> None:
    assert cell_len(cut(text, width)) <= width
    assert all(cell_len(line) <= width for line in wrapped(text, width, 3))
    assert len(wrapped(text, width, 3)) <= 3


def test_figures_are_written_as_people_read_them() -> None:
    assert (span(83), span(273_906)) == ("0:01:23", "3d 04:05:06")
    assert (size(0), size(999_999), size(2_500_000_000)) == ("0 B", "1.0 MB", "2.5 GB")
    assert (usd(0.00042, 0), usd(12, 1)) == ("$0.0004", "$12.00 + 1 unpriced")
    assert moment("2019-03-01T10:15:00+00:00", "2026-11-20T16:09:08+00:00") == "2019-03-01 10:15"
    assert moment("2026-11-19T10:15:00+00:00", "2026-11-20T16:09:08+00:00") == "11-19 10:15"
    assert fitted("漢字漢字", 5) == "漢字…"


def test_how_far_a_replay_has_come_is_shown_until_it_is_through() -> None:
    feed = vitals()["feed"]
    progress = {"done": 12_000, "total": 50_000, "left_s": 200.4}
    lines = seen(vitals(feed=feed | {"progress": progress}), 80, 24)
    assert "24% replayed  12k of 50k bars  0:03:20 left" in lines
    assert "SIMSOL" in lines
    for through in (None, progress | {"done": 50_000}, progress | {"total": 0}):
        assert "replayed" not in seen(vitals(feed=feed | {"progress": through}), 80, 24)


def test_how_far_the_backfill_of_an_exchange_has_come_is_shown_before_its_first_bar_too() -> None:
    feed = vitals()["feed"] | {"progress": {"done": 1_200, "total": 5_000, "left_s": 20.4}, "live": {"connected": True}}
    assert "24% backfilled  1,200 of 5,000 bars  0:00:20 left" in seen(vitals(feed=feed), 80, 24)
    feed |= {"streams": [], "progress": {"done": 0, "total": 5_000, "left_s": None}}
    lines = seen(vitals(feed=feed), 80, 24)
    assert "0% backfilled  0 of 5,000 bars" in lines
    assert "no bar yet" in lines


def test_how_far_a_replay_has_come_is_summed_up_in_the_log() -> None:
    feed = vitals()["feed"] | {"progress": {"done": 12_000, "total": 50_000, "left_s": 200.4}}
    facts = summary_facts(vitals(feed=feed))
    assert (facts["replayed"], facts["left_s"]) == ("24%", 200)
    facts = summary_facts(vitals(feed=feed | {"live": {"connected": True}}))
    assert (facts["backfilled"], facts["left_s"]) == ("24%", 200)
    assert "replayed" not in summary_facts(vitals())
