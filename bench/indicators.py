"""What the ten default indicators cost per bar, against pandas-ta-classic computing them anew over 500 bars.

`python -m bench.indicators` prints both and their ratio, measured in turns in one run so that the machine's mood
falls on both.
"""

import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pandas_ta_classic as classic

from bench.table import say
from trading.model import Bar
from trading.window import BarWindow

NAMES = (
    "rsi", "atr", "sma_20", "sma_50", "volume_ratio", "bb_upper", "bb_lower", "bb_middle", "stochastic_k",
    "stochastic_d",
)  # fmt: skip
WINDOW = 500
ROUNDS = 15


def bars(count: int) -> list[Bar]:
    """A random walk."""
    numbers = np.random.default_rng(11)
    close = 100.0 * np.exp(np.cumsum(numbers.normal(0.0, 0.001, count)))
    reach = np.abs(numbers.normal(0.0, 0.05, (2, count)))
    volume = numbers.uniform(1e3, 1e4, count)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    return [
        Bar(
            "BENCH", "1m", start + timedelta(minutes=i), float(close[i]), float(close[i] + reach[0, i]),
            float(close[i] - reach[1, i]), float(close[i]), float(volume[i]), "bench",
        )
        for i in range(count)
    ]  # fmt: skip


def recompute(frame: pd.DataFrame) -> None:
    """The ten, as one would ask the library for them at every bar."""
    classic.rsi(frame.close, length=14)
    classic.atr(frame.high, frame.low, frame.close, length=14)
    classic.sma(frame.close, length=20)
    classic.sma(frame.close, length=50)
    frame.volume / classic.sma(frame.volume, length=20)
    classic.bbands(frame.close, length=20, std=2.0)
    classic.stoch(frame.high, frame.low, frame.close)


def per_call_us(work: Callable[[], None], times: int) -> float:
    """Microseconds of CPU that one of `times` turns took."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / times * 1e6


def main() -> int:
    """Print both costs and the ratio of their medians; 1 when it is below 100."""
    warnings.simplefilter("ignore")
    rows = bars(WINDOW + ROUNDS * 2000)
    frame = pd.DataFrame(
        [(row.open, row.high, row.low, row.close, row.volume) for row in rows[:WINDOW]],
        columns=["open", "high", "low", "close", "volume"],
    )
    window = BarWindow(NAMES)
    window.prime(rows[:WINDOW])
    recompute(frame)
    ours, theirs = [], []

    def again() -> None:
        for _ in range(10):
            recompute(frame)

    for turn in range(ROUNDS):
        batch = rows[WINDOW + turn * 2000 : WINDOW + (turn + 1) * 2000]

        def push(batch: list[Bar] = batch) -> None:
            for row in batch:
                window.push(row)
                for name in NAMES:
                    window.value(name)

        ours.append(per_call_us(push, len(batch)))
        theirs.append(per_call_us(again, 10))
    ratio = float(np.median(theirs) / np.median(ours))
    say(f"{len(NAMES)} indicators at a bar, in a window", f"{np.median(ours):.1f} us")
    say(f"  by pandas-ta-classic over {WINDOW} bars", f"{np.median(theirs):.0f} us")
    say("  times cheaper", f"{ratio:.0f}", ">= 100", ratio >= 100.0)
    return 0 if ratio >= 100.0 else 1


if __name__ == "__main__":
    sys.exit(main())
