"""What is stored, read over HTTP from a real PostgreSQL: pages, filters, CSV, one signal whole, sums."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson
import pytest

from database.engine import connect, create_pool
from database.journal import Journal
from database.reads import reading
from database.recorder import Recorder
from database.results import ResultWriter
from database.tasks import PostgresTaskQueue
from llm_integration.model import (
    Abstention,
    Action,
    Call,
    Claim,
    Decision,
    DecisionKind,
    Message,
    Result,
    TaskStatus,
    Verdict,
)
from service.daemon import Daemon
from service.http import forms, reads, tables
from service.http.access import Access
from service.http.counts import AFTER_FAILURE_S, BarCounts
from service.http.queries import bar_cursor, bar_place, signal_cursor, signal_place
from service.http.server import HttpServer
from service.items import bar_item, signal_item
from service.settings import Settings
from service.tokens import Tokens
from tests.daemon import Look
from tests.fake_clock import FakeClock
from tests.marketdata import START, make_bar, make_signal
from trading.clock import SystemClock
from trading.model import Bar, Side, Signal, Stream

CLOCK = SystemClock()
ALLOWED = Decision(DecisionKind.ALLOW, ("rating 4, allowed from 4 on",))
HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1", "a;=1", 'say "x", y', "two\r\nlines", "\u202e=x"]


class World:
    """The daemon's tables, filled the way it fills them, and its API over them."""

    def __init__(self, pool: asyncpg.Pool, journal: Journal, database: str) -> None:
        self.pool = pool
        self.database = database
        self.recorder = Recorder(journal, pool, CLOCK)
        self.queue = PostgresTaskQueue(pool, ResultWriter(pool, CLOCK), worker="one", max_attempts=3)
        self.claims: dict[UUID, Claim] = {}
        self.url = ""
        settings = Settings.model_construct()
        self.daemon = SimpleNamespace(room=SimpleNamespace(pool=pool), clock=CLOCK, settings=settings)

    async def store(self, *signals: Signal, bars: Sequence[Bar] = ()) -> None:
        for bar in bars:
            self.recorder.submit(bar, {}, [])
        if signals:
            self.recorder.submit(None, {}, signals)
        assert await self.recorder.drain(60)

    async def rate(self, signal: Signal, calls: Sequence[Call] = (), **changes: Any) -> Result:
        if signal.id not in self.claims:
            self.claims |= {claim.signal.id: claim for claim in await self.queue.claim(1000)}
        verdict = Verdict(4, 0.75, Action.ENTER_LONG, "the bars rise", (), "ranging", "strict_json", False)
        result = Result(
            signal.id, TaskStatus.COMPLETED, verdict, None, None, "x/y", "y", False, "v1", None, 12.5, CLOCK.now(),
            decision=ALLOWED,
        )  # fmt: skip
        result = replace(result, **{name: value for name, value in changes.items() if name != "rating"})
        if "rating" in changes:
            result = replace(result, verdict=replace(verdict, rating=changes["rating"]))
        assert await self.queue.complete(self.claims[signal.id], result, calls)
        return result

    async def get(self, path: str, expected: int = 200, /, **query: Any) -> Any:
        given = f"?{urlencode(query)}" if query else ""
        async with aiohttp.request("GET", f"{self.url}/api/v1/{path}{given}") as answer:
            body = await answer.json()
            assert answer.status == expected, body
            return body

    async def ids(self, **query: Any) -> list[str]:
        return [item["signal"] for item in (await self.get("signals", **query))["signals"]]

    async def csv(self, path: str, accept: str = "text/csv", **query: Any) -> tuple[str, Any]:
        async with aiohttp.request(
            "GET", f"{self.url}/api/v1/{path}?{urlencode(query)}", headers={"Accept": accept}
        ) as answer:
            assert answer.status == 200
            return (await answer.read()).decode(), answer.headers


@pytest.fixture
async def world(database: str, tmp_path: Path) -> AsyncIterator[World]:
    pool = await create_pool(database, size=4)
    journal = Journal(tmp_path / "journal", 64 << 20)
    journal.open()
    world = World(pool, journal, database)
    access = Access("127.0.0.1", Tokens(), CLOCK)
    server = HttpServer("127.0.0.1", 0, reads.routes(cast(Daemon, world.daemon)), access)
    await server.start()
    world.url = server.url or ""
    yield world
    await server.stop()
    journal.close()
    await pool.close()


def named(*signals: Signal) -> list[str]:
    return [f"sig-{signal.id}" for signal in signals]


def a_call(signal: Signal, **changes: Any) -> Call:
    call = Call(
        uuid4(), (signal.id,), "openrouter", "x/y", None, 1, "v1", (Message("user", "rate <b>this</b>"),), {},
        "the reply", None, None, 700, 80, Decimal("0.0021"), 0.0, 900.0, CLOCK.now(), CLOCK.now(), 200, None, None,
    )  # fmt: skip
    return replace(call, **changes)


async def test_an_empty_database_has_empty_answers(world: World) -> None:
    assert await world.get("signals") == {"signals": [], "next_cursor": None}
    assert await world.get("bars", symbol="BTC/USDT") == {"bars": [], "next_cursor": None}
    assert await world.get("streams") == {"streams": []}
    stats = await world.get("stats")
    assert stats["ratings"] == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}
    assert stats["queue"] == {"pending": 0, "processing": 0}
    assert stats["latency_ms"] == {"p50": None, "p95": None, "p99": None}
    assert (await world.get("costs"))["days"] == []


async def test_a_signal_is_told_before_and_after_it_is_rated(world: World) -> None:
    signal = make_signal(3)
    await world.store(signal)
    (item,) = (await world.get("signals"))["signals"]
    forms.SignalItem.model_validate(item)
    assert (item["status"], item["rating"], item["fallback"], item["origin"]) == ("pending", None, None, "loop")
    await world.rate(signal, cost_usd=Decimal("0.0021"))
    (item,) = (await world.get("signals"))["signals"]
    forms.SignalItem.model_validate(item)
    assert item | {"finished_at": None} == {
        "signal": f"sig-{signal.id}", "source": "test", "symbol": "BTC/USDT", "timeframe": "1m",
        "close_time": "2026-01-05T09:04:00Z", "strategy": "ma_cross", "side": "long", "strength": 0.5, "price": 100.25,
        "origin": "loop", "status": "completed", "rating": 4, "confidence": 0.75, "action": "enter_long",
        "rationale": "the bars rise", "abstention": None, "error": None, "model": "x/y", "fallback": False,
        "cost_usd": 0.0021, "processing_ms": 12.5, "finished_at": None, "decision": "allow",
        "decision_reasons": ["rating 4, allowed from 4 on"],
    }  # fmt: skip


async def test_a_stored_signal_is_told_as_its_event_was(world: World) -> None:
    """To the last digit of a time, whole seconds and microseconds that end in 0 too."""
    for number, microsecond in enumerate((0, 130_670, 7)):
        signal = make_signal(number)
        await world.store(signal)
        changes = {"finished_at": datetime(2026, 1, 5, 10, 0, 1, microsecond, UTC), "cost_usd": Decimal("0.0021")}
        result = await world.rate(signal, **changes)
        told = orjson.dumps(signal_item(signal, result), option=orjson.OPT_UTC_Z)
        assert (await world.get("signals", limit=1))["signals"] == [orjson.loads(told)]


async def test_each_filter_keeps_what_it_names(world: World) -> None:
    first = make_signal(1, "BTC/USDT", "ma_cross", Side.LONG)
    second = make_signal(2, "ETH/USDT", "rsi", Side.SHORT)
    third = make_signal(3, "BTC/USDT", "rsi", Side.EXIT)
    await world.store(first, second, third)
    await world.rate(first, rating=2)
    await world.rate(second, rating=5, decision=Decision(DecisionKind.REVIEW, ("rated by a fallback, x/y",)))
    for query, kept in (
        ({"decision": "allow"}, (first,)),
        ({"decision": "deny"}, ()),
        ({}, (third, second, first)),
        ({"symbol": "BTC/USDT"}, (third, first)),
        ({"timeframe": "1m"}, (third, second, first)),
        ({"timeframe": "5m"}, ()),
        ({"strategy": "rsi"}, (third, second)),
        ({"side": "short"}, (second,)),
        ({"status": "completed"}, (second, first)),
        ({"status": "processing"}, (third,)),
        ({"rating_min": 3}, (second,)),
        ({"rating_max": 3}, (first,)),
        ({"rating_min": 1, "rating_max": 5}, (second, first)),
        ({"since": "2026-01-05T09:03:00Z"}, (third, second)),
        ({"until": "2026-01-05T09:03:00Z"}, (first,)),
        ({"since": "2026-01-05T10:03:00+01:00", "until": "2026-01-05T09:04:00"}, (second,)),
        ({"symbol": "BTC/USDT", "strategy": "rsi", "side": "exit"}, (third,)),
        ({"limit": 1}, (third,)),
    ):  # fmt: skip
        assert (query, await world.ids(**query)) == (query, named(*kept))


async def test_a_plus_that_came_as_a_blank_is_one(world: World) -> None:
    signal = make_signal(1)
    await world.store(signal)
    async with aiohttp.request("GET", f"{world.url}/api/v1/signals?since=2026-01-05T10:02:00+01:00") as answer:
        assert [item["signal"] for item in (await answer.json())["signals"]] == named(signal)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("signals", {"side": "up"}, "side = 'up': "),
    ("signals", {"status": "done"}, "status = 'done': "),
    ("signals", {"decision": "maybe"}, "decision = 'maybe': "),
    ("signals", {"rating_min": 6}, "rating_min = '6': "),
    ("signals", {"limit": 501}, "limit = '501': "),
    ("signals", {"since": "yesterday"}, "since = 'yesterday': expected a time such as"),
    ("signals", {"until": "2026-02-30"}, "until = '2026-02-30': there is no such time"),
    ("signals", {"since": "0001-01-01T00:00:00+23:00"}, "since = '0001-01-01T00:00:00+23:00': there is no such"),
    ("signals", {"cursor": "nonsense"}, "cursor = '"),
    ("signals", {"cursor": bar_cursor(START)}, "cursor = '"),
    ("signals", {"page": 2}, "'page' is no parameter here; there are: symbol"),
    ("bars", {}, "symbol: Field required"),
    ("bars", {"symbol": "X", "limit": 0}, "limit = '0': "),
    ("bars", {"symbol": "X", "cursor": signal_cursor(START, uuid4())}, "cursor = '"),
    ("stats", {"since": "soon"}, "since = 'soon'"),
    ("costs", {"days": 0}, "days = '0'"),
]


async def test_what_cannot_be_asked_is_answered_with_400_and_its_name(world: World) -> None:
    for path, query, said in WRONG:
        error = (await world.get(path, 400, **query))["error"]
        assert error.startswith(said), (path, query, error)


async def test_pages_show_each_signal_once_while_others_come_in(world: World) -> None:
    """Newer ones, older ones, and ones of the very same bar; those that were there are all seen."""
    there = [make_signal(n, strategy=f"s{k}") for n in range(10, 20) for k in range(3)]
    await world.store(*there)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 4}
    for turn in range(100):
        page = await world.get("signals", **query)
        seen += [item["signal"] for item in page["signals"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
        await world.store(
            make_signal(30 + turn), make_signal(turn % 10), make_signal(19 - turn, strategy=f"late{turn}")
        )
    assert len(seen) == len(set(seen))
    assert set(named(*there)) <= set(seen)


async def test_the_last_page_says_that_it_is_the_last(world: World) -> None:
    await world.store(*(make_signal(n) for n in range(4)))
    page = await world.get("signals", limit=2)
    page = await world.get("signals", limit=2, cursor=page["next_cursor"])
    assert (len(page["signals"]), page["next_cursor"]) == (2, None)


def test_cursors_keep_microseconds_and_any_time() -> None:
    signal = uuid4()
    for time in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)):
        assert signal_place(signal_cursor(time, signal)) == (time, signal)
        assert bar_place(bar_cursor(time)) == time
    assert bar_place("f" * 11) == datetime.max.replace(tzinfo=UTC)


def test_the_csv_has_a_column_for_each_key_of_a_signal_and_a_bar() -> None:
    assert list(tables.SIGNALS.names) == list(forms.SignalItem.model_fields)
    assert list(tables.BARS.names) == list(forms.BarItem.model_fields)


def test_events_tell_a_signal_as_the_lists_do() -> None:
    assert list(signal_item(make_signal(1))) == list(forms.SignalItem.model_fields)
    assert set(bar_item(make_bar(1))) > set(forms.BarItem.model_fields)


async def test_csv_holds_no_formula_and_no_broken_line(world: World) -> None:
    """Whatever a model writes: a ' goes in front, breaks become blanks, and each signal is one line."""
    for number, text in enumerate(HOSTILE):
        signal = make_signal(number)
        await world.store(signal)
        verdict = Verdict(4, 0.5, Action.HOLD, text, (), None, "strict_json", False)
        await world.rate(signal, verdict=verdict, model=text)
    body, headers = await world.csv("signals")
    assert body.startswith("\ufeffsignal,source,symbol,")
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="signals.csv"' in headers["Content-Disposition"]
    rows = list(csv.DictReader(io.StringIO(body.lstrip("\ufeff"), newline="")))
    assert len(rows) == len(HOSTILE) == body.count("\r\n") - 1
    for row in rows:
        for cell in (row["rationale"], row["model"]):
            assert not cell.lstrip().startswith(("=", "+", "-", "@", "＝"))
            assert not set(cell) & set("\r\n\t\u202e")
    assert {row["close_time"] for row in rows} == {f"2026-01-05 09:{n + 1:02}:00" for n in range(len(HOSTILE))}
    assert {row["price"] for row in rows} == {"100.25"}


async def test_csv_is_paged_like_json(world: World) -> None:
    await world.store(*(make_signal(n) for n in range(3)), bars=[make_bar(n) for n in range(3)])
    body, headers = await world.csv("signals", limit=2)
    rest, last = await world.csv("signals", limit=2, cursor=headers["X-Next-Cursor"])
    assert (body.count("\r\n"), rest.count("\r\n"), "X-Next-Cursor" in last) == (3, 2, False)
    body, _ = await world.csv("bars", symbol="BTC/USDT")
    assert body.splitlines()[1] == "2026-01-05 09:00:00,100,101.25,99.25,100.25,12.5"


async def test_csv_is_given_to_whoever_prefers_it(world: World) -> None:
    for accept, wanted in (
        ("text/csv", True),
        ("text/csv, */*;q=0.1", True),
        ("text/csv;q=0.9, application/json;q=0.5", True),
        ("text/csv;q=0.3, application/*;q=0.9", False),
        ("text/csv;q=0.3, */*", False),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/csv;q=0.5", False),
        ("text/csv;q=0", False),
        ("text/html", False),
        ("", False),
        ("text/csv;q=many", False),
    ):
        body, headers = await world.csv("signals", accept)
        given = headers["Content-Type"].partition(";")[0], body.startswith("\ufeff")
        assert given == (("text/csv", True) if wanted else ("application/json", False)), accept
        assert headers["Vary"] == "Accept"


async def test_a_signal_is_told_whole_by_either_form_of_its_id(world: World) -> None:
    signal = make_signal(3)
    await world.store(signal)
    failed = a_call(signal, reply=None, error="HTTP 500", cost_usd=None, prompt_tokens=None)
    await world.rate(signal, [failed, a_call(signal)])
    whole = await world.get(f"signals/sig-{signal.id}")
    assert whole == await world.get(f"signals/{signal.id}")
    forms.SignalDetail.model_validate(whole)
    assert whole["snapshot"]["indicators"] == {"rsi": 28.5, "atr": None}
    assert len(whole["snapshot"]["bars"]) == 3
    assert whole["outcome"] is None
    first, second = whole["calls"]
    assert (first["reply"], first["error"], first["cost_usd"], first["tokens_in"]) == (None, "HTTP 500", None, None)
    assert second | {"requested_at": None} == {
        "model": "openrouter/x/y", "requested_at": None, "prompt": [{"role": "user", "content": "rate <b>this</b>"}],
        "reply": "the reply", "tokens_in": 700, "tokens_out": 80, "cost_usd": 0.0021, "latency_ms": 900.0,
        "error": None,
    }  # fmt: skip


async def test_a_signal_is_told_with_what_the_market_did_next(world: World) -> None:
    """Once a bar has closed after its own; an exit has no best and no worst."""
    long, leaving = make_signal(0), make_signal(0, side=Side.EXIT)
    await world.store(long, leaving, bars=[make_bar(0)])
    assert (await world.get(f"signals/{long.id}"))["outcome"] is None
    await world.store(bars=[make_bar(n, close=100.25 + n) for n in range(1, 6)])
    whole = await world.get(f"signals/{long.id}")
    forms.SignalDetail.model_validate(whole)
    first, fifth = whole["outcome"]["horizons"]
    assert (first["bars"], first["until"], first["close"]) == (1, "2026-01-05T09:02:00Z", 101.25)
    assert fifth == {
        "bars": 5, "until": "2026-01-05T09:06:00Z", "close": 105.25, "forward_return": pytest.approx(5 / 100.25),
        "mfe": pytest.approx(6 / 100.25), "mae": 0.0,
    }  # fmt: skip
    told = await world.get(f"signals/{leaving.id}")
    forms.SignalDetail.model_validate(told)
    assert told["outcome"]["horizons"][1] == fifth | {"mfe": None, "mae": None}


async def test_a_signal_that_is_not_there_is_404(world: World) -> None:
    assert "there is no signal sig-" in (await world.get(f"signals/sig-{uuid4()}", 404))["error"]
    assert "an id is sig- and a UUID" in (await world.get("signals/x", 404))["error"]


async def test_bars_come_oldest_first_and_earlier_ones_by_the_cursor(world: World) -> None:
    await world.store(bars=[make_bar(n, volume=None if n == 4 else 12.5) for n in range(5)])
    page = await world.get("bars", symbol="BTC/USDT", limit=2)
    assert [bar["open_time"] for bar in page["bars"]] == ["2026-01-05T09:03:00Z", "2026-01-05T09:04:00Z"]
    assert page["bars"][1]["volume"] is None
    forms.BarPage.model_validate(page)
    page = await world.get("bars", symbol="BTC/USDT", limit=3, cursor=page["next_cursor"])
    assert [bar["open_time"][14:16] for bar in page["bars"]] == ["00", "01", "02"]
    assert page["next_cursor"] is None
    query = {"symbol": "BTC/USDT", "since": "2026-01-05T09:01:00Z", "until": "2026-01-05T09:03:00Z"}
    assert [bar["open_time"][14:16] for bar in (await world.get("bars", **query))["bars"]] == ["01", "02"]


async def test_a_symbol_of_several_streams_must_be_told_apart(world: World) -> None:
    longer = [replace(make_bar(n), timeframe="5m", open_time=START + n * timedelta(minutes=5)) for n in range(2)]
    await world.store(bars=[make_bar(0), *longer])
    said = (await world.get("bars", 400, symbol="BTC/USDT"))["error"]
    assert "source=test timeframe=1m, source=test timeframe=5m" in said
    assert len((await world.get("bars", symbol="BTC/USDT", timeframe="5m"))["bars"]) == 2
    assert len((await world.get("bars", symbol="BTC/USDT", timeframe="1m", source="test"))["bars"]) == 1


async def test_streams_are_told_with_their_last_bar(world: World) -> None:
    await world.store(bars=[*(make_bar(n) for n in range(3)), make_bar(0, "ETH/USDT")])
    told = await world.get("streams")
    forms.Streams.model_validate(told)
    assert [(each["symbol"], each["bars"], each["last_open_time"]) for each in told["streams"]] == [
        ("BTC/USDT", 3, "2026-01-05T09:02:00Z"), ("ETH/USDT", 1, "2026-01-05T09:00:00Z"),
    ]  # fmt: skip


async def test_bars_that_take_too_long_to_count_are_not_told_as_they_were_counted_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a failure that says nothing of how long it takes is no reason to count them no more."""
    stream, clock = Stream("test", "BTC/USDT", "1m"), FakeClock()
    outcomes: list[Any] = [
        {stream: 1}, asyncpg.QueryCanceledError(), asyncpg.ConnectionDoesNotExistError(), {stream: 2},
    ]  # fmt: skip

    async def counted(connection: object) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("service.http.counts.bar_counts", counted)
    counts = BarCounts(clock)
    async with world.pool.acquire() as connection:
        assert await counts.now(connection) == {stream: 1}
        await clock.advance(2)
        assert await counts.now(connection) is None
        await clock.advance(AFTER_FAILURE_S)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await counts.now(connection)
        assert await counts.now(connection) == {stream: 2}


async def test_stats_sum_up_the_results_since_a_time(world: World) -> None:
    signals = [make_signal(n, "BTC/USDT" if n % 2 else "ETH/USDT") for n in range(5)]
    await world.store(*signals)
    await world.rate(signals[0], rating=5, cost_usd=Decimal("0.5"), call_id=uuid4())
    await world.rate(signals[1], rating=5, call_id=uuid4())
    doubt = Decision(DecisionKind.REVIEW, ("no verdict: no action",))
    await world.rate(signals[2], verdict=None, abstention=Abstention("no action"), model="other/z", decision=doubt)
    await world.rate(signals[3], verdict=None, status=TaskStatus.FAILED, error="gone", model=None, decision=None)
    stats = await world.get("stats", since="2026-01-01")
    forms.Stats.model_validate(stats)
    assert stats["ratings"] == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 2}
    assert stats["statuses"] == {"completed": 3, "failed": 1}
    assert stats["decisions"] == {"allow": 2, "review": 1}
    assert stats["abstentions"] == {"no action": 1}
    assert stats["queue"] == {"pending": 0, "processing": 1}
    assert [(each["model"], each["results"], each["unknown"]) for each in stats["by_model"]] == [
        ("x/y", 2, 1), ("other/z", 1, 0),
    ]  # fmt: skip
    assert [(each["symbol"], each["ratings"], each["mean_rating"]) for each in stats["by_symbol"]] == [
        ("BTC/USDT", 1, 5.0), ("ETH/USDT", 1, 5.0),
    ]  # fmt: skip
    assert 0 <= stats["latency_ms"]["p50"] <= stats["latency_ms"]["p99"]
    assert (await world.get("stats", since="2999-01-01"))["statuses"] == {}


async def test_costs_are_told_by_day_and_by_model(world: World) -> None:
    signal = make_signal(1)
    await world.store(signal)
    ago = timedelta(days=2)
    calls = [
        a_call(signal), a_call(signal, model="dear", cost_usd=Decimal(2)), a_call(signal, cost_usd=None),
        a_call(signal, cost_usd=None, error_class="Timeout", error="too slow"),
        a_call(signal, started_at=CLOCK.now() - ago, finished_at=CLOCK.now() - ago),
    ]  # fmt: skip
    await world.rate(signal, calls)
    costs = await world.get("costs")
    forms.Costs.model_validate(costs)
    assert [(round(day["usd"], 4), day["calls"], day["unknown"]) for day in costs["days"]] == [
        (0.0021, 1, 0), (2.0021, 4, 1),
    ]  # fmt: skip
    assert round(costs["today_usd"], 4) == 2.0021
    assert [each["model"] for each in costs["by_model"]] == ["openrouter/dear", "openrouter/x/y"]
    assert len((await world.get("costs", days=1))["days"]) == 1
    assert costs["budget_usd"] is None
    world.daemon.settings = Settings(llm={"budget": {"daily_usd": 2.5}})
    assert (await world.get("costs"))["budget_usd"] == 2.5


async def test_before_the_database_is_there_the_answer_is_503(world: World) -> None:
    world.daemon.room = None
    assert "ask again" in (await world.get("signals", 503))["error"]


async def test_reading_is_bounded_in_time_and_writes_nothing(world: World) -> None:
    with pytest.raises(asyncpg.QueryCanceledError):
        async with reading(world.pool, limit_s=0.05) as connection:
            await connection.execute("SELECT pg_sleep(30)")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with reading(world.pool) as connection:
            await connection.execute("DELETE FROM signals")


async def test_reading_leaves_half_of_the_connections_to_the_daemon(world: World) -> None:
    """However many ask while PostgreSQL is slow, the daemon's own statements get through."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'signals'::regclass"
    watcher = await connect(world.database)
    async with world.pool.acquire() as first, world.pool.acquire() as second:
        await asyncio.gather(first.execute("SELECT 1"), second.execute("SELECT 1"))
    try:
        async with watcher.transaction():
            await watcher.execute("LOCK TABLE signals")
            asked = [asyncio.create_task(world.get("signals")) for _ in range(6)]
            await Look(world.database).until(waiting.replace("count(*)", "count(*) >= 2"))
            async with world.pool.acquire(timeout=180), world.pool.acquire(timeout=60):
                assert await watcher.fetchval(waiting) == 2
        assert [answer["signals"] for answer in await asyncio.gather(*asked)] == [[]] * 6
    finally:
        await watcher.close()
