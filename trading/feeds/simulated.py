"""The simulated feed: a market of plainly fictional symbols, the same for the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from trading.clock import Clock
from trading.model import Bar, Stream, timeframe_seconds

if TYPE_CHECKING:
    from trading.feeds.simulation.market import SimulatedMarket

SOURCE = "simulated"
ACCELERATED_START = datetime(2025, 1, 1, tzinfo=UTC)
_BREATH = 20

Symbol = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]


class Options(BaseModel):
    """A market made up from a seed. Every row of it says that it is simulated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["simulated"] = "simulated"
    symbols: tuple[Symbol, ...] = Field(
        ("SIMBTC", "SIMETH", "SIMSOL"), min_length=1, description="What is traded; any names, each its own market."
    )
    symbol: Symbol | None = Field(None, description="A single symbol, in place of `symbols`.")
    timeframe: str = Field("5s", description="Length of a bar: a count and s, m, h, d or w.")
    speed: Annotated[float, Field(gt=0, le=1e9)] | Literal["max"] = Field(
        1, description='1 runs in real time; other numbers are a multiple of it; "max" does not wait at all.'
    )
    seed: int = Field(7, description="The same seed gives the same market.")
    bars: int | None = Field(
        None,
        ge=1,
        description="Bars per symbol, counted from `start` and across restarts; unset: endless. In real time without "
        "`start` they are counted from the first bar of each run.",
    )
    start: AwareDatetime | None = Field(
        None, description="When the market begins. Unset: in real time `history` bars ago, otherwise 2025-01-01 UTC."
    )
    history: int = Field(
        120, ge=0, le=100_000, description="In real time: the most bars given at once at the start or after a gap."
    )

    @field_validator("timeframe")
    @classmethod
    def _known_timeframe(cls, timeframe: str) -> str:
        timeframe_seconds(timeframe)
        return timeframe

    @model_validator(mode="after")
    def _one_list_of_symbols(self) -> Self:
        if self.symbol is not None and "symbols" in self.model_fields_set:
            raise ValueError("symbol and symbols are both set; keep one of them")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"symbols names one of {', '.join(self.names)} twice; name each once")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return self.symbols if self.symbol is None else (self.symbol,)


class Feed:
    """Bars of a SimulatedMarket per symbol, those that close together given together, in the order of `symbols`.

    A restart gives the same bars for the same times, behind the last stored one.
    """

    source = SOURCE
    waits = True

    def __init__(self, options: Options, clock: Clock) -> None:
        from trading.feeds.simulation.market import SimulatedMarket  # noqa: PLC0415 - loads NumPy, settings do without

        self._options = options
        self._clock = clock
        self._step_s = timeframe_seconds(options.timeframe)
        self._markets = [SimulatedMarket(options.seed, name, options.timeframe) for name in options.names]

    async def bars(self, after: Mapping[Stream, datetime]) -> AsyncIterator[Bar]:
        real_time = self._options.speed == 1
        begin = self._first_index(real_time)
        oldest = self._closed_index() - self._options.history + 1 if real_time else begin
        firsts = [max(begin, oldest, self._behind(after, market)) for market in self._markets]
        end = None if self._options.bars is None else begin + self._options.bars
        numbers = _count(min(firsts), end)
        waited = self._wait_real(numbers) if real_time else self._wait_scaled(numbers)
        async for number in waited:
            for market, first in zip(self._markets, firsts, strict=True):
                if number >= first:
                    yield market.bar(number)

    async def close(self) -> None:
        """Nothing is held open."""

    def _first_index(self, real_time: bool) -> int:
        """The number of the series' first bar."""
        start = self._options.start
        if start is None:
            if real_time:
                return self._closed_index() - self._options.history + 1
            start = ACCELERATED_START
        return -int(-start.timestamp() // self._step_s)

    def _closed_index(self) -> int:
        """The number of the last bar that has closed by now."""
        return int(self._clock.now().timestamp() // self._step_s) - 1

    def _behind(self, after: Mapping[Stream, datetime], market: SimulatedMarket) -> int:
        stored = after.get(Stream(SOURCE, market.symbol, market.timeframe))
        return 0 if stored is None else int(stored.timestamp() // self._step_s) + 1

    async def _wait_real(self, numbers: Iterator[int]) -> AsyncIterator[int]:
        """Each number once its bar has closed by the time of day."""
        for given, number in enumerate(numbers):
            while (wait_s := (number + 1) * self._step_s - self._clock.now().timestamp()) > 0:
                await self._clock.sleep(wait_s)
            await _breathe(given, len(self._markets))
            yield number

    async def _wait_scaled(self, numbers: Iterator[int]) -> AsyncIterator[int]:
        """Each number once its bar has closed on a clock that runs `speed` times as fast, from the first one on."""
        begun = self._clock.monotonic()
        pause_s = 0.0 if self._options.speed == "max" else self._step_s / self._options.speed
        for given, number in enumerate(numbers):
            while pause_s and (wait_s := begun + (given + 1) * pause_s - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait_s)
            await _breathe(given, len(self._markets))
            yield number


def _count(first: int, end: int | None) -> Iterator[int]:
    number = first
    while end is None or number < end:
        yield number
        number += 1


async def _breathe(given: int, symbols: int) -> None:
    """Let others run now and then: about every twenty bars."""
    if given % max(1, _BREATH // symbols) == 0:
        await asyncio.sleep(0)
