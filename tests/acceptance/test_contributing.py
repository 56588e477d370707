"""The examples of CONTRIBUTING.md work as they stand: saved under their names, they are found and do their work."""

import importlib
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType

import pytest

import llm_integration.backends
import trading.feeds
import trading.strategies
from llm_integration.model import Message
from llm_integration.ports import BackendContext, ChatRequest
from tests.servers import Answer, ChatServer, completion
from trading.clock import SystemClock
from trading.model import Bar, Side
from trading.window import BarWindow

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
EXAMPLE = re.compile(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)
EXAMPLES = dict(EXAMPLE.findall(PAGE.read_text(encoding="utf-8")))


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The examples saved in a folder that the packages look into."""
    for name, package in (("trading/strategies", trading.strategies), ("trading/feeds", trading.feeds)):
        _save(name, package, tmp_path, monkeypatch)
    _save("llm_integration/backends", llm_integration.backends, tmp_path, monkeypatch)
    yield tmp_path
    for name in ("trading.strategies.inside_bar", "trading.feeds.jsonl", "llm_integration.backends.house"):
        sys.modules.pop(name, None)


def _save(name: str, package: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = folder / name
    place.mkdir(parents=True)
    for path, code in EXAMPLES.items():
        if path.startswith(f"{name}/"):
            (folder / path).write_text(code, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(place)])
    importlib.invalidate_caches()


def test_there_is_an_example_of_each() -> None:
    assert sorted(path.rpartition("/")[0] for path in EXAMPLES) == [
        "llm_integration/backends",
        "trading/feeds",
        "trading/strategies",
    ]


def test_the_strategy_fires_on_the_bar_that_leaves_the_mother_bar(saved: Path) -> None:
    module = importlib.import_module("trading.strategies.inside_bar")
    strategy = module.Strategy(module.Options())
    window = BarWindow([], history=strategy.history, lookback=3)
    events = []
    for minute, (high, low, close) in enumerate([(12, 8, 10), (11, 9, 10), (14, 10, 13)]):
        time = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
        window.push(Bar("X", "1m", time, 10, high, low, close, 1, "test"))
        events.append(strategy.evaluate(window))

    assert [event and event.side for event in events] == [None, None, Side.LONG]


async def test_the_feed_gives_the_lines_of_its_file(saved: Path) -> None:
    from trading.feeds import feed_module, feed_names

    line = '{"symbol": "X", "time": "2026-01-01T00:00:00Z", "open": 1, "high": 2, "low": 1, "close": 2, "volume": 3}'
    (saved / "bars.jsonl").write_text(f"{line}\n", encoding="utf-8")
    module = feed_module("jsonl")
    feed = module.Feed(module.Options(path=saved / "bars.jsonl"), SystemClock())

    assert "jsonl" in feed_names()
    assert [bar.close async for bar in feed.bars({})] == [2.0]


async def test_the_backend_asks_its_server(saved: Path) -> None:
    from llm_integration.backends import backend_class, backend_names

    assert "house" in backend_names()
    async with ChatServer(default=_echo) as server:
        backend = backend_class("house")(BackendContext("house", SystemClock(), base_url=server.base_url))
        reply = await backend.chat(ChatRequest((Message("system", "Rate."), Message("user", "This.")), "big"))
        await backend.close()

    assert reply.text == "asked big: Rate.\n\nThis."


async def test_the_backend_is_all_that_the_calling_side_asks_for(saved: Path) -> None:
    """It goes through routes, budget, quota and audit, and says nothing that they do not understand."""
    from llm_integration.calling.compose import build
    from llm_integration.config import LLMConfig

    async with ChatServer(default=_echo) as server:
        house = {"base_url": server.base_url}
        config = LLMConfig(model="house/big", fallback_models=[], backends={"house": house}, budget={"daily_usd": 1})
        caller = build(config, SystemClock(), {})
        pieces: list[str] = []
        reply = await caller.backend.chat(ChatRequest((Message("user", "This."),), "", on_delta=pieces.append))
        await caller.close()

    assert (reply.answered_by, reply.cost_usd, pieces) == ("house/big", Decimal("0.000125"), ["asked big: This."])


def _echo(body: dict[str, str]) -> Answer:
    return Answer(completion(f"asked {body['model']}: {body['prompt']}"))
