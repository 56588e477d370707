"""What must be there in the end, worked out without a database, and how what is there differs from it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.prompts import shown_indicators
from service.settings import Settings
from tests.daemon import Daemon, Look
from trading.clock import SystemClock
from trading.feeds import feed_module
from trading.loop import TradingLoop
from trading.model import Bar, Signal
from trading.strategies import build_strategies

FINAL = {"completed", "failed", "expired", "skipped"}
BarKey = tuple[str, str, str, str]


@dataclass(frozen=True)
class Expected:
    """The bars (source, symbol, timeframe, open time) and the ids of the signals that must be there."""

    bars: frozenset[BarKey]
    signals: frozenset[str]


@dataclass(frozen=True)
class Found:
    """How what is there differs: `lost` and `doubled` count over every place; `wrong` names places and examples.

    What nobody expected counts as doubled. `statuses` counts the results.
    """

    signals: int
    lost: int
    doubled: int
    statuses: Mapping[str, int]
    wrong: tuple[str, ...]


async def expected(daemon: Daemon) -> Expected:
    """What a daemon with these settings must leave behind: its feed and its rules, run once through in memory."""
    settings = Settings.load(daemon.folder / "config.json")
    options = settings.trading.feed.model_copy(update={"speed": "max"})
    kept = _Kept()
    loop = TradingLoop(
        feed_module(options.type).Feed(options, SystemClock()),
        build_strategies(settings.trading.strategies),
        shown_indicators(settings.llm),
        settings.llm.lookback_periods,
        kept,
        None,
        SystemClock(),
    )
    await loop.run()
    return Expected(frozenset(kept.bars), frozenset(kept.signals))


async def compare(daemon: Daemon, look: Look, wanted: Expected) -> Found:
    """Look for every bar and every signal in the database and in both files, and for its one final result."""
    places: list[tuple[str, Iterable[object], Iterable[object]]] = [
        ("market_data", await _bars(look), wanted.bars),
        ("signals", await _ids(look, "SELECT id::text FROM signals"), wanted.signals),
        ("tasks", await _ids(look, "SELECT signal_id::text FROM llm_enhancement_tasks"), wanted.signals),
        ("results", await _ids(look, "SELECT signal_id::text FROM llm_analysis_results"), wanted.signals),
        *_in_files(daemon, wanted),
    ]
    lost = doubled = 0
    wrong = []
    for place, there, wanted_there in places:
        counts = Counter(there)
        missing = set(wanted_there) - counts.keys()
        extra = [one for one, count in counts.items() if count > 1 or one not in wanted_there]
        lost += len(missing)
        doubled += sum(counts[one] - (one in wanted_there) for one in extra)
        wrong += [f"{place} lacks {len(missing)}, such as {min(missing, key=str)}"] if missing else []
        wrong += [f"{place} has {len(extra)} twice or unasked, such as {extra[0]}"] if extra else []
    open_tasks = "SELECT count(*) FROM llm_enhancement_tasks t LEFT JOIN llm_analysis_results r USING (signal_id)"
    odd = await look.value(
        f"{open_tasks} WHERE t.status NOT IN {tuple(sorted(FINAL))} OR t.status IS DISTINCT FROM r.status"
    )
    wrong += [f"{odd} tasks are not final, or not as their result is"] if odd else []
    statuses = await look.rows("SELECT status, count(*) FROM llm_analysis_results GROUP BY 1 ORDER BY 1")
    return Found(len(wanted.signals), lost, doubled, {row[0]: row[1] for row in statuses}, tuple(wrong))


def _in_files(daemon: Daemon, wanted: Expected) -> list[tuple[str, Iterable[object], Iterable[object]]]:
    bars = [
        (row["source"], row["symbol"], row["timeframe"], row["open_time"][:19], row["signal_id"], row["other_signals"])
        for row in daemon.bars
    ]
    cells = [one.removeprefix("sig-") for row in bars for one in (row[4], *row[5].split()) if one]
    return [
        ("the CSV of signals", [row["signal_id"].removeprefix("sig-") for row in daemon.signals], wanted.signals),
        ("the CSV of bars", [row[:4] for row in bars], wanted.bars),
        ("signals in the CSV of bars", cells, wanted.signals),
    ]


async def _bars(look: Look) -> list[BarKey]:
    rows = await look.rows(
        "SELECT source, symbol, timeframe, to_char(open_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
        " FROM market_data"
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def _ids(look: Look, query: str) -> list[str]:
    return [row[0] for row in await look.rows(query)]


class _Kept:
    """A recorder that only notes what it is given."""

    def __init__(self) -> None:
        self.bars: list[BarKey] = []
        self.signals: list[str] = []

    def submit(self, bar: Bar | None, indicators: Mapping[str, float | None], signals: Sequence[Signal]) -> None:
        if bar is not None:
            self.bars.append((bar.source, bar.symbol, bar.timeframe, f"{bar.open_time:%Y-%m-%d %H:%M:%S}"))
        self.signals += [str(signal.id) for signal in signals]

    async def room(self) -> None:
        """There is always room."""
