"""Indicators by name: what a configuration may ask for, checked at once, and computed bar by bar.

    IndicatorSet(("rsi", "macd_12_26_9", "bb_upper"))    IndicatorError here, not at the first bar
        .columns       ("rsi", "macd_12_26_9", "macd_12_26_9.histogram", "macd_12_26_9.signal", "bb_upper")
        .start()       a Run: one stream's calculations, shown every bar in order

An indicator of several outputs gives one column under the plain name and one `name.part` for each other; a part may
also be asked for alone.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import chain

from trading.indicators.columns import Columns
from trading.indicators.fast import ALIASES, FAST, Calculation
from trading.indicators.names import Name, parse, read_parameters, select, unknown

Builder = Callable[[], Calculation]
Key = tuple[object, ...]


class IndicatorSet:
    """The indicators of one stream, each computed once however many names ask for it.

    `columns` are the names of the values, in the order asked; `needed_bars` is how many bars a stream must have shown
    before all values are those of its whole history. Raises IndicatorError for what is not known.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._builders: list[Builder] = []
        self._offsets: list[int] = []
        self._positions: dict[str, int] = {}
        seen: dict[Key, int] = {}
        width = 0
        for text in names:
            key, builder, parts, selected = _resolve(text)
            if key not in seen:
                seen[key] = width
                self._builders.append(builder)
                width += parts
            for column, position in selected.items():
                self._positions[column] = seen[key] + position
        self.columns: tuple[str, ...] = tuple(self._positions)
        self.needed_bars: int = max((builder().bars for builder in self._builders), default=1)

    def start(self) -> "Run":
        """Fresh calculations for one stream."""
        return Run([build() for build in self._builders])

    def position(self, column: str) -> int | None:
        """Where in a Run's values a column stands; None for a column that was not asked for."""
        return self._positions.get(column)


class Run:
    """The calculations of one stream. Every bar must be shown, in order, by `update` or, unasked, by `follow`."""

    def __init__(self, calculations: list[Calculation]) -> None:
        self._calculations = calculations
        self._running = [calculation for calculation in calculations if calculation.running]

    def update(self, columns: Columns) -> tuple[float, ...]:
        """All outputs at the bar just pushed into `columns`; NaN before the warm-up."""
        return tuple(chain.from_iterable([calculation.update(columns) for calculation in self._calculations]))

    def follow(self, columns: Columns) -> None:
        """Let the bar count without asking for values."""
        for calculation in self._running:
            calculation.update(columns)


def known_indicators() -> tuple[str, ...]:
    """Every name that may be asked for, without parameters."""
    from trading.indicators import classic  # noqa: PLC0415 # its library is loaded only when it is needed

    return tuple(sorted({*FAST, *ALIASES, *classic.names()}))


@lru_cache(maxsize=1024)
def _resolve(text: str) -> tuple[Key, Builder, int, dict[str, int]]:
    name = parse(text)
    if name.stem in ALIASES:
        stem, part, given = ALIASES[name.stem]
        if name.part is not None:
            select(name, ("",))
        key, builder, parts = _fast(stem, name, given)
        return key, builder, len(parts), {text: parts.index(part)}
    if name.stem in FAST:
        key, builder, parts = _fast(name.stem, name)
        return key, builder, len(parts), select(name, parts)
    from trading.indicators import classic  # noqa: PLC0415 # its library is loaded only when it is needed

    recipe = classic.recipe(name)
    if recipe is None:
        raise unknown(name, known_indicators())
    return (name.stem, *name.numbers), recipe.build, len(recipe.parts), select(name, recipe.parts)


def _fast(stem: str, name: Name, given: tuple[float, ...] = ()) -> tuple[Key, Builder, tuple[str, ...]]:
    recipe = FAST[stem]
    values = read_parameters(name, recipe.parameters, given)
    return (stem, *values), lambda: recipe.build(*values), recipe.parts
