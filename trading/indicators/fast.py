"""The indicators computed by us, by name: parameters, outputs and how each is built.

Names, parameter order, defaults and formulas are pandas-ta-classic's; only the output names are ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trading.indicators import cumulative, running, sliding
from trading.indicators.columns import CLOSE, Columns
from trading.indicators.talib_functions import ta

LONGEST = 5000


class Calculation(Protocol):
    """One indicator on one stream, shown every bar in order.

    `bars` is how many bars it must have been shown before its values are those of the whole history. `running` is
    False where only the columns count, so that bars nobody asks about may be left out.
    """

    bars: int
    running: bool

    def update(self, columns: Columns) -> tuple[float, ...]:
        """Its outputs at the bar just pushed; NaN is "not enough bars"."""
        ...


@dataclass(frozen=True, slots=True)
class Parameter:
    """One number in an indicator's name; `default` None means that the one who builds it knows."""

    name: str
    default: float | None
    whole: bool = True
    least: float = 1
    most: float = 1e9


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an indicator is made. `parts` names its outputs in order, "" is the one under the plain name."""

    parameters: tuple[Parameter, ...]
    parts: tuple[str, ...]
    build: Callable[..., Calculation]


def _length(default: int, name: str = "length", least: int = 1) -> Parameter:
    return Parameter(name, default, least=least)


def _number(name: str, default: float, most: float = 1e9) -> Parameter:
    return Parameter(name, default, whole=False, least=1e-6, most=most)


def _one(build: Callable[..., Calculation], *parameters: Parameter) -> Recipe:
    return Recipe(parameters, ("",), build)


def _t3(length: int, a: float) -> Calculation:
    third = -6.0 * a**2 - 3.0 * a - 3.0 * a**3
    return running.EmaChain(
        length, (0.0, 0.0, a**3 + 3.0 * a**2 + 3.0 * a + 1.0, third, 3.0 * a**2 + 3.0 * a**3, -(a**3))
    )


def _donchian(lower_length: int, upper_length: int | None) -> Calculation:
    return sliding.donchian(lower_length, upper_length or lower_length)


def _adx(length: int, signal: int | None) -> Calculation:
    return running.Adx(length, signal or length)


_BAR: Mapping[str, Callable[[Columns], float]] = {
    "hl2": lambda c: (c.high + c.low) / 2.0,
    "medprice": lambda c: (c.high + c.low) / 2.0,
    "hlc3": lambda c: (c.high + c.low + c.close) / 3.0,
    "typprice": lambda c: (c.high + c.low + c.close) / 3.0,
    "ohlc4": lambda c: (c.open + c.high + c.low + c.close) / 4.0,
    "avgprice": lambda c: (c.open + c.high + c.low + c.close) / 4.0,
    "wcp": lambda c: (c.high + c.low + 2.0 * c.close) / 4.0,
    "true_range": running.true_range,
}
_CLOSES: Mapping[str, tuple[Any, int]] = {
    "wma": (ta.WMA, 10),
    "linreg": (ta.LINEARREG, 14),
    "linregintercept": (ta.LINEARREG_INTERCEPT, 14),
    "tsf": (ta.TSF, 14),
    "midpoint": (ta.MIDPOINT, 2),
}
_CHANGES: Mapping[str, Callable[[float, float], float]] = {
    "mom": lambda now, then: now - then,
    "roc": lambda now, then: 100.0 * (now - then) / then,
    "rocp": lambda now, then: (now - then) / then,
    "rocr": lambda now, then: now / then,
    "rocr100": lambda now, then: 100.0 * now / then,
}

FAST: Mapping[str, Recipe] = {
    "sma": _one(lambda length: sliding.mean(CLOSE, length), _length(10)),
    "ema": _one(running.Ema, _length(10)),
    "rma": _one(lambda length: running.Ema(length, wilder=True), _length(10)),
    "dema": _one(lambda length: running.EmaChain(length, (2.0, -1.0)), _length(10)),
    "tema": _one(lambda length: running.EmaChain(length, (3.0, -3.0, 1.0)), _length(10)),
    "t3": _one(_t3, _length(10), _number("a", 0.7, 0.999999)),
    "trix": Recipe((_length(30), _length(9, "signal")), ("", "signal"), running.Trix),
    "rsi": _one(running.Rsi, _length(14)),
    "atr": _one(running.Atr, _length(14)),
    "natr": _one(lambda length: running.Atr(length, percent=True), _length(14)),
    "macd": Recipe(
        (_length(12, "fast"), _length(26, "slow"), _length(9, "signal")), ("", "histogram", "signal"), running.Macd
    ),
    "kc": Recipe((_length(20), _number("scalar", 2.0)), ("lower", "", "upper"), running.Keltner),
    "supertrend": Recipe(
        (_length(7), _number("multiplier", 3.0)), ("", "direction", "long", "short"), running.Supertrend
    ),
    "adx": Recipe((_length(14, least=2), Parameter("signal", None)), ("", "plus_di", "minus_di"), _adx),
    "bbands": Recipe(
        (_length(5, least=2), _number("std", 2.0)), ("lower", "", "upper", "bandwidth", "percent"), sliding.bollinger
    ),
    "stdev": _one(sliding.deviation, _length(30, least=2), Parameter("ddof", 0, least=0)),
    "variance": _one(sliding.variance, _length(30, least=2), Parameter("ddof", 0, least=0)),
    "zscore": _one(sliding.zscore, _length(30, least=2), Parameter("std", 1.0, whole=False, least=1.0)),
    "stoch": Recipe((_length(14, "k"), _length(3, "d"), _length(3, "smooth_k")), ("", "d"), sliding.stochastic),
    "stochf": Recipe((_length(5, "k"), _length(3, "d")), ("", "d"), sliding.stochastic_fast),
    "willr": _one(sliding.williams, _length(14)),
    "donchian": Recipe(
        (_length(20, "lower_length"), Parameter("upper_length", None)), ("lower", "", "upper"), _donchian
    ),
    "cci": _one(sliding.cci, _length(14, least=2), _number("c", 0.015)),
    "aroon": Recipe((_length(14, least=2),), ("down", "up", ""), sliding.aroon),
    "midprice": _one(sliding.midprice, _length(2, least=2)),
    "vwma": _one(sliding.volume_weighted, _length(10)),
    "volume_ratio": _one(sliding.volume_ratio, _length(20)),
    "obv": _one(lambda: cumulative.Sum(cumulative.on_balance)),
    "ad": _one(lambda: cumulative.Sum(cumulative.accumulation)),
    "pvt": _one(lambda: cumulative.Sum(cumulative.price_volume, first=False)),
    "nvi": _one(lambda: cumulative.Sum(cumulative.on_less_volume, 1000.0)),
    "pvi": _one(lambda: cumulative.Sum(cumulative.on_more_volume, 1000.0)),
    "wad": _one(lambda: cumulative.Sum(cumulative.price_accumulation)),
    "adosc": _one(cumulative.Oscillator, _length(3, "fast"), _length(10, "slow")),
    "vwap": _one(cumulative.Vwap),
    **{name: _one(lambda form=form: sliding.of_bar(form)) for name, form in _BAR.items()},
    **{
        name: _one(lambda length, function=function: sliding.of_closes(length, function), _length(default, least=2))
        for name, (function, default) in _CLOSES.items()
    },
    **{
        name: _one(lambda length, form=form: sliding.change(length, form), _length(10))
        for name, form in _CHANGES.items()
    },
}

ALIASES: Mapping[str, tuple[str, str, tuple[float, ...]]] = {
    "bb_upper": ("bbands", "upper", (20, 2.0)),
    "bb_middle": ("bbands", "", (20, 2.0)),
    "bb_lower": ("bbands", "lower", (20, 2.0)),
    "stochastic_k": ("stoch", "", (14, 3, 3)),
    "stochastic_d": ("stoch", "d", (14, 3, 3)),
}
