"""What the trading loop pays for handing on a bar and its signals, and how soon they are committed.

`python -m bench.loop [bars]` runs whole daemons on one durable PostgreSQL, in turns with the model answering at once,
hanging, and switched off. A bar is handed on by `recorder.submit` and, where signals are rated, `store.add` for each of
its signals; committed is the time from the begin of that to the moment PostgreSQL has confirmed the commit.
"""

import asyncio
import gc
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ground import KEY_VARIABLE, Server, model_settings, percentile, postgres, write_config
from bench.model_server import model_server
from bench.table import say
from service.daemon import Daemon
from service.settings import Settings
from trading.model import Bar, Signal

MODES = ("off", "hanging", "instant")
ROUNDS = 9
SYMBOLS = 3
BARS_A_SECOND = 200
WARM_UP = 60
CONCURRENCY = 8


@dataclass(slots=True)
class Times:
    """Milliseconds of each bar of one mode."""

    handed_on: list[float] = field(default_factory=list)
    submitted: list[float] = field(default_factory=list)
    committed: list[float] = field(default_factory=list)
    rated: int = 0


class Stopwatch:
    """Stands between a daemon's loop and what it hands bars to: from the call of `submit` to that of `on_bar`."""

    def __init__(self, daemon: Daemon, times: Times) -> None:
        assert daemon.trading is not None and daemon.trading.loop is not None
        self.all_committed = asyncio.Event()
        self._recorder = daemon.trading.recorder
        self._times = times
        self._handed = 0
        self._began = 0.0
        self._submitted = 0.0
        self._under_way: list[float] = []
        self._seen = self._recorder.shipped.bars
        self._submit = self._recorder.submit
        self._on_bar = daemon.trading.loop._on_bar
        self._on_shipped = self._recorder._on_shipped
        self._recorder.submit = self.submit  # type: ignore[method-assign]
        daemon.trading.loop._on_bar = self.on_bar
        self._recorder._on_shipped = self.shipped

    def submit(self, bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal]) -> None:
        self._began = time.perf_counter()
        self._submit(bar, indicators, signals)
        self._submitted = time.perf_counter()

    def on_bar(self, bar: Bar, signals: Sequence[Signal]) -> None:
        now = time.perf_counter()
        self._handed += 1
        self._under_way.append(self._began)
        self.all_committed.clear()
        if self._handed > WARM_UP:
            self._times.handed_on.append((now - self._began) * 1e3)
            self._times.submitted.append((self._submitted - self._began) * 1e3)
        self._on_bar(bar, signals)

    def shipped(self) -> None:
        now = time.perf_counter()
        count = self._recorder.shipped.bars - self._seen
        self._seen += count
        done, self._under_way = self._under_way[:count], self._under_way[count:]
        if self._handed > WARM_UP:
            self._times.committed.extend((now - start) * 1e3 for start in done)
        if not self._under_way:
            self.all_committed.set()
        self._on_shipped()


async def one_round(path: Path, times: Times) -> None:
    """One daemon from start to end."""
    daemon = Daemon(Settings.load(path), until_idle=False)
    running = asyncio.create_task(daemon.run())
    while daemon.status is None or daemon.trading is None:
        if running.done():
            await running
        await asyncio.sleep(0.001)
    stopwatch = Stopwatch(daemon, times)
    await daemon.trading.feed_ended.wait()
    await stopwatch.all_committed.wait()
    times.rated += daemon.store.get_stats()["processed"]
    daemon.request_stop()
    await running


async def measure(server: Server, address: str, folder: Path, bars: int, rounds: int) -> dict[str, Times]:
    """All modes in turns, so that the machine's mood falls on each."""
    found = {mode: Times() for mode in MODES}
    per_symbol = max(1, bars // SYMBOLS // rounds)
    feed = {
        "symbols": [f"BENCH{number}" for number in range(SYMBOLS)],
        "timeframe": "1m", "speed": 60 * BARS_A_SECOND / SYMBOLS, "bars": per_symbol + WARM_UP // SYMBOLS,
    }  # fmt: skip
    for turn in range(rounds):
        for mode in MODES[turn % 3 :] + MODES[: turn % 3]:
            llm: dict[str, Any] = {"enabled": False}
            if mode != "off":
                llm = model_settings(f"{address}/{mode}/v1", CONCURRENCY)
            url = await server.fresh(f"loop_{mode}_{turn}")
            await one_round(write_config(folder / f"{mode}{turn}", url, feed, llm), found[mode])
    return found


def show(found: Mapping[str, Times]) -> bool:
    """Print it; whether all that is wanted was reached."""

    def line(values: list[float]) -> str:
        return f"p50 {percentile(values, 50) * 1e3:7.1f}  p99 {percentile(values, 99) * 1e3:7.1f} us"

    for mode in MODES:
        say(f"a bar handed on, model {mode}, {len(found[mode].handed_on)} bars", line(found[mode].handed_on))
        say("  to the recorder alone", line(found[mode].submitted))
    off, hanging = (percentile(found[mode].handed_on, 99) for mode in ("off", "hanging"))
    ratio = hanging / off
    alone = percentile(found["hanging"].submitted, 99) / percentile(found["off"].submitted, 99)
    met = [hanging <= 0.2, ratio <= 1.1]
    say("p99 with the model hanging", f"{hanging * 1e3:.1f} us", "<= 200 us", met[0])
    say("  against the model off", f"{ratio:.2f}, to the recorder alone {alone:.2f}", "<= 1.10", met[1])
    for mode in MODES:
        values = found[mode].committed
        reached = percentile(values, 99) <= 20
        met.append(reached)
        say(
            f"submitted to committed, model {mode}, {len(values)} bars",
            f"p50 {percentile(values, 50):6.2f}  p99 {percentile(values, 99):6.2f} ms",
            "p99 <= 20 ms",
            reached,
        )
    return all(met)


async def run(bars: int, rounds: int) -> bool:
    """Measure and print."""
    logging.basicConfig(level=logging.ERROR)
    gc.freeze()  # as the door does
    os.environ.setdefault(KEY_VARIABLE, "bench-key")
    with model_server() as address, tempfile.TemporaryDirectory(prefix="tradent-bench-") as folder:
        async with postgres() as server:
            return show(await measure(server, address, Path(folder), bars, rounds))


def main() -> int:
    """1 when a target was missed."""
    bars = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    return 0 if asyncio.run(run(bars, ROUNDS if bars >= 1000 else 1)) else 1


if __name__ == "__main__":
    sys.exit(main())
