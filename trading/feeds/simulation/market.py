"""The simulated market of one symbol: any bar at any time, without those before it."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from trading.model import Bar, timeframe_seconds

Floats = NDArray[np.float64]

BLOCK = 1024
YEARLY_VOLATILITY = 0.7
MOST_VOLATILITY = 0.03
SPREAD = 0.7
_YEAR_S = 365.25 * 86400
_KEPT_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class Regime:
    """How a stretch of the market moves: drift and volatility in units of a bar's volatility.

    `pull` draws the level back to where the stretch began; `stay` is the chance to go on for one more bar.
    """

    drift: float
    volatility: float
    pull: float
    stay: float
    volume: float


REGIMES = (
    Regime(drift=0.22, volatility=0.8, pull=0.0, stay=0.985, volume=1.2),
    Regime(drift=-0.22, volatility=0.85, pull=0.0, stay=0.985, volume=1.3),
    Regime(drift=0.0, volatility=0.6, pull=0.06, stay=0.99, volume=0.7),
    Regime(drift=0.0, volatility=1.9, pull=0.02, stay=0.97, volume=2.2),
)
_BASE_PRICES = {"SIMBTC": 60_000.0, "SIMETH": 3_000.0, "SIMSOL": 150.0, "SIMXRP": 0.6}


class SimulatedMarket:
    """Bars of one symbol, numbered from 1970 on: bar `i` opens `i` timeframes after the epoch.

    A block of 1024 bars is a regime-switching random walk, bent so that it begins and ends on levels that depend on
    the block's number alone (noise on a doubling ladder of scales); so blocks join without a jump, and each bar opens
    where the one before closed.
    """

    def __init__(self, seed: int, symbol: str, timeframe: str) -> None:
        self.symbol = symbol
        self.timeframe = timeframe
        self.step_s = timeframe_seconds(timeframe)
        self._name = f"{seed}\x1f{symbol}\x1f{timeframe}"
        self._sigma = min(YEARLY_VOLATILITY * math.sqrt(self.step_s / _YEAR_S), MOST_VOLATILITY)
        self._base = _BASE_PRICES.get(symbol) or round(10 ** self._rng("base").uniform(0.0, 3.0), 2)
        self._decimals = 5 - math.floor(math.log10(self._base))
        self._scales = _scales(self._sigma * math.sqrt(BLOCK))
        self._blocks: OrderedDict[int, list[tuple[float, float, float, float, float]]] = OrderedDict()

    def bar(self, index: int) -> Bar:
        """The bar of that number."""
        number, offset = divmod(index, BLOCK)
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = self._make(number)
            while len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        open_, high, low, close, volume = block[offset]
        opened = datetime.fromtimestamp(index * self.step_s, UTC)
        return Bar(self.symbol, self.timeframe, opened, open_, high, low, close, volume, "simulated")

    def _rng(self, part: str) -> np.random.Generator:
        digest = blake2b(f"{self._name}\x1f{part}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))

    def _anchor(self, number: int) -> float:
        """The logarithm of the level at the start of a block, relative to the base price."""
        level = 0.0
        for octave, scale in enumerate(self._scales):
            cell, place = divmod(number, 2**octave)
            left, right = (float(self._rng(f"{octave}:{cell + side}").standard_normal()) for side in (0, 1))
            level += scale * (left + (right - left) * place / 2**octave)
        return level

    def _make(self, number: int) -> list[tuple[float, float, float, float, float]]:
        rng = self._rng(f"block:{number}")
        regimes = _regimes(rng)
        noise = rng.standard_normal(BLOCK)
        walk = _walk(regimes, noise) * self._sigma
        start, end = self._anchor(number), self._anchor(number + 1)
        ramp = np.arange(1, BLOCK + 1) / BLOCK
        levels = np.empty(BLOCK + 1)
        levels[0] = start
        levels[1:] = start + walk - ramp * (walk[-1] - (end - start))
        levels[-1] = end
        prices = self._base * np.exp(levels)
        opens, closes = prices[:-1], prices[1:]
        reach = self._sigma * 0.5 * np.array([REGIMES[regime].volatility for regime in regimes])
        highs = np.maximum(opens, closes) * np.exp(reach * np.abs(rng.standard_normal(BLOCK)))
        lows = np.minimum(opens, closes) * np.exp(-reach * np.abs(rng.standard_normal(BLOCK)))
        activity = np.array([REGIMES[regime].volume for regime in regimes]) * (0.6 + 0.5 * np.abs(noise))
        volumes = 2_000.0 * self.step_s / self._base * activity * np.exp(0.35 * rng.standard_normal(BLOCK))
        columns = [np.round(values, self._decimals).tolist() for values in (opens, highs, lows, closes)]
        return list(zip(*columns, np.maximum(np.round(volumes, 4), 0.0001).tolist(), strict=True))


def _scales(block_sigma: float) -> list[float]:
    """How far the level wanders on each scale, the smallest first; their sum is bounded so that no price runs away."""
    scales: list[float] = []
    room = SPREAD
    for octave in range(24):
        scale = min(0.7 * block_sigma * 2 ** (octave / 2), room)
        if scale <= 0:
            break
        scales.append(scale)
        room -= scale
    return scales


def _regimes(rng: np.random.Generator) -> list[int]:
    """The regime of each bar of a block, by a Markov chain."""
    chances = rng.random(BLOCK).tolist()
    choices = rng.integers(1, len(REGIMES), BLOCK).tolist()
    regime = int(rng.integers(len(REGIMES)))
    regimes = []
    for chance, choice in zip(chances, choices, strict=True):
        if chance > REGIMES[regime].stay:
            regime = (regime + choice) % len(REGIMES)
        regimes.append(regime)
    return regimes


def _walk(regimes: list[int], noise: Floats) -> Floats:
    """The walk after each bar, in units of a bar's volatility."""
    level = centre = 0.0
    before = -1
    levels = []
    for number, shock in zip(regimes, noise.tolist(), strict=True):
        if number != before:
            centre, before = level, number
        regime = REGIMES[number]
        level += regime.drift + regime.volatility * shock - regime.pull * (level - centre)
        levels.append(level)
    return np.array(levels)
