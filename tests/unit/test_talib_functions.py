"""TA-Lib without pandas: what a process saves that needs none, and that those who need both have both."""

import subprocess
import sys


def run(program: str) -> str:
    """What a fresh Python prints for `program`."""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_the_default_indicators_load_no_pandas() -> None:
    program = (
        "import sys; from trading.indicators import IndicatorSet; IndicatorSet(['rsi', 'stochastic_k', 'wma_10'])"
        ".start(); print('pandas' in sys.modules)"
    )
    assert run(program) == "False"


def test_every_candle_is_computed_after_all() -> None:
    program = (
        "from trading.indicators import IndicatorSet, classic; "
        "candles = [name for name in classic.names() if name.startswith('cdl_')]; "
        "print(len(candles) > 60, set(candles) <= set(IndicatorSet(candles).columns))"
    )
    assert run(program) == "True True"


def test_talib_s_own_package_still_takes_pandas_series() -> None:
    program = (
        "import trading.indicators, pandas, talib; print(type(talib.SMA(pandas.Series([1.0, 2.0, 3.0]), 2)).__name__)"
    )
    assert run(program) == "Series"
