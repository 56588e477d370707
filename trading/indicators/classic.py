"""Every other indicator, by a call to pandas-ta-classic over the last bars.

The library is imported when the first such indicator is configured. Each is tried once on made-up bars when it is
configured: a wrong parameter is found there, and its outputs and warm-up are learnt from what comes back.
"""

import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from trading.errors import IndicatorError
from trading.indicators.columns import CLOSE, HIGH, LOW, OPEN, VOLUME, Array, Columns
from trading.indicators.fast import LONGEST, Parameter
from trading.indicators.names import Name, read_parameters

_COLUMNS = {"open_": OPEN, "high": HIGH, "low": LOW, "close": CLOSE, "volume": VOLUME}
_NUMBERS = frozenset({
    "a", "accelerationinitlong", "accelerationinitshort", "accelerationlong", "accelerationmaxlong",
    "accelerationmaxshort", "accelerationshort", "af", "af0", "annualization", "base", "bb_std", "c", "coef",
    "distribution_offset", "divisor", "factor", "fast_w", "fastlimit", "gamma", "initial", "kc_scalar",
    "kc_scalar_narrow", "kc_scalar_normal", "kc_scalar_wide", "max_af", "medium_w", "multiplier", "na", "nb", "nc",
    "nd", "offsetonreverse", "percent", "phase", "q", "scalar", "sigma", "slow_w", "slowlimit", "startvalue", "std",
    "vcoef", "wick_mult", "x",
})  # fmt: skip
_NOT_NUMBERS = frozenset({
    "anchor", "append_span", "as_angle", "as_dataframe", "asbool", "asc", "asint", "centered", "channel_eval",
    "cumulative", "drift", "fastmatype", "full", "include_chikou", "interval", "kind", "levels", "ln", "mamode",
    "method", "mode", "name", "offset", "price_position", "refined", "signalmatype", "slowmatype", "stds", "strict",
    "talib", "thirds", "timeframe", "to_degrees", "tvmode", "use_tr", "vertical", "virgin_cpr", "width_analysis",
})  # fmt: skip
_FIXED: Mapping[str, Mapping[str, object]] = {"dpo": {"centered": False}, "ichimoku": {"include_chikou": False}}
_REFUSED: Mapping[str, str] = {
    "aobv": "its level depends on where the history starts; take obv",
    "beta": "it needs a second symbol",
    "correl": "it needs a second symbol",
    "drawdown": "it depends on where the history starts",
    "long_run": "it compares two other indicators",
    "ma": "it is a choice between averages; name one, as in ema_20",
    "mavp": "it needs a series of periods",
    "short_run": "it compares two other indicators",
    "tos_stdevall": "it fits a line through the whole history, later bars included",
    "tsignals": "it reads another indicator",
    "vp": "it is a profile over prices, not a value per bar",
    "xsignals": "it reads another indicator",
}
_SLOW: Mapping[str, int] = {"mama": 3000}
_BANDS = ("lower", "", "upper")
_SIGNAL = ("", "signal")
_MACD = ("", "histogram", "signal")
PARTS: Mapping[str, tuple[str, ...]] = {
    "aberration": ("", "upper", "lower", "atr"), "accbands": _BANDS, "adxr": ("", "plus_di", "minus_di"),
    "amat": ("", "short"), "brar": ("", "br"), "cdl_z": ("open", "high", "low", ""), "ce": ("", "short"),
    "cksp": ("", "short"),
    "cpr": ("top", "", "bottom", "r1", "r2", "s1", "s2", "width", "width_percent", "width_class", "position"),
    "dm": ("", "minus"), "eri": ("", "bear"), "fisher": _SIGNAL, "ha": ("open", "high", "low", ""),
    "hilo": ("", "long", "short"), "ht_phasor": ("", "quadrature"), "ht_sine": ("", "lead"),
    "hwc": ("", "upper", "lower"), "ichimoku": ("senkou_a", "senkou_b", "", "kijun"), "kdj": ("", "d", "j"),
    "kst": _SIGNAL, "kvo": _SIGNAL, "macdext": ("", "signal", "histogram"), "macdfix": _MACD, "mama": ("", "fama"),
    "mmar": ("", "line2", "line3", "line4", "line5", "line6"), "msw": ("", "lead"), "ppo": _MACD,
    "psar": ("", "long", "short", "af", "reversal"), "pvo": _MACD,
    "qqe": ("", "rsi_ma", "long", "short", "basis_long", "basis_short", "direction"),
    "rainbow": ("", *(f"line{number}" for number in range(2, 11))), "rvgi": ("histogram", "", "signal"),
    "smi": ("", "signal", "oscillator"), "squeeze": ("", "on", "off", "none"),
    "squeeze_pro": ("", "on_wide", "on_normal", "on_narrow", "off", "none"), "stc": ("", "macd", "stoch"),
    "stochrsi": ("", "d"), "td_seq": ("", "down"), "thermo": ("", "average", "long", "short"),
    "trixh": ("", "signal", "histogram"), "tsi": _SIGNAL, "vortex": ("", "minus"), "vwmacd": _MACD,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClassicRecipe:
    """A call that has been tried: its outputs, the bars it is given, the first bar at which each output counts."""

    call: "_Call"
    parts: tuple[str, ...]
    bars: int
    warm_up: tuple[int, ...]

    def build(self) -> "Classic":
        return Classic(self)


class Classic:
    """One indicator of the library on one stream, computed anew over the last `bars` at every bar."""

    running = False

    def __init__(self, recipe: ClassicRecipe) -> None:
        self._recipe = recipe
        self.bars = recipe.bars
        self._least = min(recipe.warm_up) + 1
        self._nothing = (nan,) * len(recipe.parts)

    def update(self, columns: Columns) -> tuple[float, ...]:
        recipe = self._recipe
        if columns.count < self._least or (recipe.call.reads_volume and columns.volume != columns.volume):
            return self._nothing
        table = recipe.call.of(lambda column: columns.tail(column, recipe.bars))
        if table is None:
            return self._nothing
        return tuple(
            float(value) if columns.count > first else nan
            for value, first in zip(table[-1], recipe.warm_up, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Call:
    function: Callable[..., Any]
    inputs: tuple[str, ...]
    arguments: Mapping[str, object]
    joined: bool

    @property
    def reads_volume(self) -> bool:
        return "volume" in self.inputs

    def of(self, column: Callable[[int], Array]) -> Array | None:
        """The outputs as a table, one row per bar; None while the library has too few bars."""
        answer = self.answer(column)
        if answer is None:
            return None
        table: Array = answer.to_numpy(dtype=np.float64, na_value=nan).reshape(len(answer), -1)
        if self.joined:
            primary = np.where(np.isnan(table[:, 0]), table[:, 1], table[:, 0])
            table = np.column_stack((primary, table))
        return table

    def answer(self, column: Callable[[int], Array]) -> Any:
        series = {name: pd.Series(column(_COLUMNS[name])) for name in self.inputs}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            answer = self.function(**series, **self.arguments)
        return answer[0] if isinstance(answer, tuple) else answer


def names() -> tuple[str, ...]:
    """The names that can be asked for here."""
    library = _library()
    plain = (name for group in library.Category.values() for name in group if name not in _REFUSED)
    return tuple(sorted({*plain, *(f"cdl_{pattern}" for pattern in library.ALL_PATTERNS)} - {"cdl_pattern"}))


@lru_cache(maxsize=256)
def recipe(name: Name) -> ClassicRecipe | None:
    """The call that `name` means; None when the library has no such indicator. Raises IndicatorError."""
    if name.stem in _REFUSED:
        raise IndicatorError(f"{name.text!r} cannot be computed bar by bar: {_REFUSED[name.stem]}")
    if name.stem not in names():
        return None
    library = _library()
    fixed = dict(_FIXED.get(name.stem, {}))
    if name.stem in {entry for group in library.Category.values() for entry in group}:
        function = getattr(library, name.stem)
    else:
        function, fixed["name"] = library.cdl_pattern, name.stem.removeprefix("cdl_")
    inputs, parameters = _signature(function)
    if "name" in fixed:
        parameters = ()
    values = read_parameters(name, parameters)
    given = {parameter.name: value for parameter, value in zip(parameters, values, strict=True) if value is not None}
    return _tried(name, _Call(function, inputs, {**given, **fixed}, name.stem == "psar"))


def _library() -> Any:
    return importlib.import_module("pandas_ta_classic")


def _signature(function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[Parameter, ...]]:
    inputs, parameters = [], []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in _COLUMNS:
            if name != "open_" or parameter.default is inspect.Parameter.empty:
                inputs.append(name)
        elif parameter.kind is not inspect.Parameter.VAR_KEYWORD and name not in _NOT_NUMBERS:
            whole = name not in _NUMBERS
            parameters.append(Parameter(name, None, whole=whole, least=1 if whole and name != "ddof" else 0))
    return tuple(inputs), tuple(parameters)


def _tried(name: Name, call: _Call) -> ClassicRecipe:
    longest = max((value for value in call.arguments.values() if isinstance(value, int)), default=1)
    cells = _made_up(1000 + 8 * longest)
    try:
        answer = call.answer(lambda column: cells[column])
        labels = [str(label) for label in answer.columns] if isinstance(answer, pd.DataFrame) else [str(answer.name)]
        table = call.of(lambda column: cells[column])
    except Exception as error:
        raise IndicatorError(f"{name.text!r} cannot be computed: {type(error).__name__}: {error}") from error
    if table is None or np.isnan(table).all():
        raise IndicatorError(f"{name.text!r} gives no values; check its parameters")
    parts = PARTS.get(name.stem, ("",))
    if len(parts) != table.shape[1]:
        raise IndicatorError(f"{name.text!r} has {table.shape[1]} outputs where {len(parts)} are known")
    lengths = [int(number) for label in labels for number in re.findall(r"(?<=_)\d+(?=_|$)", label)]
    longest = max([longest, *(length for length in lengths if length <= LONGEST)])
    bars = max(1000, 40 * longest, _SLOW.get(name.stem, 0))
    return ClassicRecipe(call, parts, bars, _warm_up(name, call, table, longest))


def _warm_up(name: Name, call: _Call, table: Array, longest: int) -> tuple[int, ...]:
    """The first bar at which each output counts. One that has a number from the first bar on counts from where its
    siblings do, or from its longest parameter on."""
    firsts = []
    for values in table.T:
        missing = np.flatnonzero(np.isnan(values))
        dense = not len(missing) or missing[-1] < len(values) // 2
        firsts.append((int(missing[-1]) + 1 if len(missing) else 0) if dense else int(np.argmin(np.isnan(values))))
    if "name" in call.arguments:
        return (_candle_lookback(name.stem),)
    late = max(firsts) or (longest if longest > 1 else 0)
    return tuple(first or late for first in firsts)


def _candle_lookback(stem: str) -> int:
    library = importlib.import_module("talib.abstract")
    return int(library.Function(stem.replace("_", "").upper()).lookback)


def _made_up(bars: int) -> Array:
    """Open, high, low, close and volume of a random walk, the same at every start; only to try a call on."""
    numbers = np.random.default_rng(1)
    close = 100.0 * np.exp(np.cumsum(numbers.normal(0.0, 0.01, bars)))
    opened = np.concatenate(([100.0], close[:-1]))
    reach = np.abs(numbers.normal(0.0, 0.5, (2, bars)))
    high, low = np.maximum(opened, close) + reach[0], np.minimum(opened, close) - reach[1]
    return np.vstack((opened, high, low, close, numbers.uniform(1e3, 1e4, bars)))
