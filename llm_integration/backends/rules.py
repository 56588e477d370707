"""Rates signals by rule, from the indicators of their snapshots: transparent, deterministic, free, never away.

Each line below that has its indicators gives a score from -1 (against the signal) to +1 (for it). For a short the
picture is mirrored. `price` is the signal's; distances are in ATR, or their sign alone where there is no ATR.

| evidence   | weight | for a long                                                        | for an exit             |
|------------|--------|-------------------------------------------------------------------|-------------------------|
| trend      | 3      | (sma_20 - sma_50) / ATR, cut to ±1                                | flat +1, from 1 ATR -1  |
| price      | 2      | (price - sma_20) / ATR, cut to ±1                                 | at 2 ATR 0, at 3 ATR +1 |
| rsi        | 2      | below 30 +0.5; below 50 -0.25; to 70 +0.5; above -1               | beyond 30, 70 +1, or -½ |
| bands      | 2      | ½ less the place between bb_lower (0) and bb_upper (1), cut to ±½ | outside +1, or -½       |
| stochastic | 1      | k below 20 +1; above 80 -1; or ±½ as k is above or below d        | beyond 20, 80 +1, or -½ |
| volume     | 1      | volume_ratio from 1.5 +1; from 1 +0.5; from 0.7 0; below -0.5     | the same                |
| spike      | 1      | last bar's range from 2.5 ATR -1; from 1.5 -0.5; below +0.25      | from 2.5 ATR +1, or 0   |

Score = weighted mean of what is there. Rating: 5 from 0.5, 4 from 0.15, 3 from -0.15, 2 from -0.5, else 1.
Confidence = share of the whole weight that is there, times 0.5 + |score| / 2. Action: the signal's own from rating 4,
else hold. Where nothing is there, the reply states no rating, and is an abstention.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

import orjson

from llm_integration.errors import RequestRejected
from llm_integration.model import Action
from llm_integration.ports import BackendContext, Capabilities, ChatReply, ChatRequest, Health, Price
from trading.model import Side, Signal

_LARGEST = 1e15
_PERCENT = (0.0, 100.0)
_RANGES = {
    "rsi": _PERCENT,
    "stochastic_k": _PERCENT,
    "stochastic_d": _PERCENT,
    "atr": (0.0, _LARGEST),
    "volume_ratio": (0.0, _LARGEST),
}
_ACTIONS = {Side.LONG: Action.ENTER_LONG, Side.SHORT: Action.ENTER_SHORT, Side.EXIT: Action.EXIT}


class Backend:
    """The scorer behind the protocol that models answer by."""

    API_KEY_ENV: ClassVar[str | None] = None
    METERED: ClassVar[bool] = False

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The rating of each of `request.signals`, in the JSON that a model would give. Raises RequestRejected."""
        if not request.signals:
            raise RequestRejected("the rules rate signals by their indicators; they answer no other question")
        if len(request.signals) == 1 and not _asks_for_batch(request.schema):
            answer = rate(request.signals[0])
        else:
            numbered = enumerate(request.signals, start=1)
            answer = {"verdicts": [{"signal": number, **rate(signal)} for number, signal in numbered]}
        text = orjson.dumps(answer).decode()
        if request.on_delta is not None:
            request.on_delta(text)
        return ChatReply(
            text=text, model=request.model, finish_reason="stop",
            prompt_tokens=0, completion_tokens=0, cost_usd=Decimal(0), cost_source="free",
        )  # fmt: skip

    async def check(self, model: str) -> Health:
        """Always usable."""
        return Health(True, "rates by rule from the indicators; needs no key and no network")

    def capabilities(self, model: str) -> Capabilities:
        """Its reply is always the same JSON, and there at once."""
        return Capabilities(schema=True, json_object=True, streaming=False, logprobs=False, local=True)

    def price(self, model: str) -> Price | None:
        """It costs nothing."""
        return Price(Decimal(0), Decimal(0), Decimal(0), "free")

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One line of the table as it applies to a signal: `score` -1 to +1, `said` the figures it stands on."""

    name: str
    weight: float
    score: float
    said: str


def rate(signal: Signal) -> dict[str, object]:
    """The reply's fields for one signal; without rating and action where no indicator can be used."""
    seen = _Seen(signal)
    evidence = list(_weigh(seen))
    if not evidence:
        return {"rationale": "none of the indicators that the rules read has a value yet"}
    weight = sum(line.weight for line in evidence)
    score = sum(line.weight * line.score for line in evidence) / weight
    rating = 1 + sum(score >= bound for bound in (-0.5, -0.15, 0.15, 0.5))
    whole = sum(share for share, _, _ in _RULES.values())
    ordered = sorted(evidence, key=lambda line: -abs(line.weight * line.score))
    against = [line for line in ordered if line.score < 0]
    return {
        "regime": _regime(seen),
        "rationale": f"score {score:+.2f}: " + ", ".join(f"{line.said} ({line.score:+.2f})" for line in ordered),
        "risks": [f"{line.name}: {line.said}" for line in against[:4]],
        "rating": rating,
        "confidence_percent": round(100 * weight / whole * (0.5 + abs(score) / 2)),
        "action": (_ACTIONS[signal.side] if rating >= 4 else Action.HOLD).value,
    }


class _Seen:
    """A signal with its indicators at hand; what is missing, no number or out of its range is None."""

    def __init__(self, signal: Signal) -> None:
        self.price = signal.price
        self.exit = signal.side is Side.EXIT
        self.mirror = -1.0 if signal.side is Side.SHORT else 1.0
        self._indicators = signal.snapshot.indicators
        self._bars = signal.snapshot.bars

    def value(self, name: str) -> float | None:
        value = self._indicators.get(name)
        low, high = _RANGES.get(name, (-_LARGEST, _LARGEST))
        return value if value is not None and low <= value <= high else None

    def pair(self, first: str, second: str) -> tuple[float, float] | None:
        one, two = self.value(first), self.value(second)
        return None if one is None or two is None else (one, two)

    def in_atr(self, distance: float) -> float:
        """A distance in ATR; where there is none, its sign."""
        atr = self.value("atr")
        if atr is not None and atr > 0:
            return distance / atr
        return math.copysign(1.0, distance) if distance else 0.0

    def spike(self) -> float | None:
        """The last bar's range in ATR."""
        atr = self.value("atr")
        if atr is None or atr <= 0 or not self._bars:
            return None
        return (self._bars[-1].high - self._bars[-1].low) / atr


_Rule = Callable[[_Seen], "tuple[float, str] | None"]


def _weigh(seen: _Seen) -> Iterable[Evidence]:
    for name, (weight, for_entry, for_exit) in _RULES.items():
        found = (for_exit if seen.exit else for_entry)(seen)
        if found is not None:
            yield Evidence(name, weight, max(-1.0, min(1.0, found[0])), found[1])


def _trend(seen: _Seen) -> tuple[float, str] | None:
    pair = seen.pair("sma_20", "sma_50")
    if pair is None:
        return None
    return seen.mirror * seen.in_atr(pair[0] - pair[1]), f"sma_20 {pair[0]:.6g} against sma_50 {pair[1]:.6g}"


def _trend_over(seen: _Seen) -> tuple[float, str] | None:
    found = _trend(seen)
    return found and (1 - 2 * min(1.0, abs(found[0])), found[1])


def _price(seen: _Seen) -> tuple[float, str] | None:
    average = seen.value("sma_20")
    if average is None:
        return None
    return seen.mirror * seen.in_atr(seen.price - average), f"price {seen.price:.6g} against sma_20 {average:.6g}"


def _price_over(seen: _Seen) -> tuple[float, str] | None:
    found = _price(seen) if seen.value("atr") else None
    return found and (abs(found[0]) - 2, found[1])


def _rsi(seen: _Seen) -> tuple[float, str] | None:
    rsi = seen.value("rsi")
    if rsi is None:
        return None
    level = rsi if seen.mirror > 0 else 100 - rsi
    score = 0.5 if level < 30 else -0.25 if level < 50 else 0.5 if level <= 70 else -1.0
    return score, f"rsi {rsi:.4g}"


def _rsi_over(seen: _Seen) -> tuple[float, str] | None:
    rsi = seen.value("rsi")
    return None if rsi is None else (1.0 if rsi < 30 or rsi > 70 else -0.5, f"rsi {rsi:.4g}")


def _place_in_bands(seen: _Seen) -> float | None:
    pair = seen.pair("bb_lower", "bb_upper")
    return (seen.price - pair[0]) / (pair[1] - pair[0]) if pair and pair[1] > pair[0] else None


def _bands(seen: _Seen) -> tuple[float, str] | None:
    place = _place_in_bands(seen)
    if place is None:
        return None
    return seen.mirror * max(-0.5, min(0.5, 0.5 - place)), f"price at {100 * place:.4g} % of the bands"


def _bands_over(seen: _Seen) -> tuple[float, str] | None:
    place = _place_in_bands(seen)
    if place is None:
        return None
    return (1.0 if place < 0 or place > 1 else -0.5), f"price at {100 * place:.4g} % of the bands"


def _stochastic(seen: _Seen) -> tuple[float, str] | None:
    pair = seen.pair("stochastic_k", "stochastic_d")
    if pair is None:
        return None
    k, d = pair if seen.mirror > 0 else (100 - pair[0], 100 - pair[1])
    score = 1.0 if k < 20 else -1.0 if k > 80 else 0.5 * ((k > d) - (k < d))
    return score, f"stochastic k {pair[0]:.4g}, d {pair[1]:.4g}"


def _stochastic_over(seen: _Seen) -> tuple[float, str] | None:
    k = seen.value("stochastic_k")
    return None if k is None else (1.0 if k < 20 or k > 80 else -0.5, f"stochastic k {k:.4g}")


def _volume(seen: _Seen) -> tuple[float, str] | None:
    ratio = seen.value("volume_ratio")
    if ratio is None:
        return None
    score = 1.0 if ratio >= 1.5 else 0.5 if ratio >= 1 else 0.0 if ratio >= 0.7 else -0.5
    return score, f"volume {ratio:.4g} of its average"


def _spike(seen: _Seen) -> tuple[float, str] | None:
    spike = seen.spike()
    if spike is None:
        return None
    return (-1.0 if spike >= 2.5 else -0.5 if spike >= 1.5 else 0.25), f"last bar {spike:.3g} ATR high"


def _spike_over(seen: _Seen) -> tuple[float, str] | None:
    spike = seen.spike()
    return None if spike is None else (1.0 if spike >= 2.5 else 0.0, f"last bar {spike:.3g} ATR high")


_RULES: Mapping[str, tuple[float, _Rule, _Rule]] = {
    "trend": (3, _trend, _trend_over),
    "price": (2, _price, _price_over),
    "rsi": (2, _rsi, _rsi_over),
    "bands": (2, _bands, _bands_over),
    "stochastic": (1, _stochastic, _stochastic_over),
    "volume": (1, _volume, _volume),
    "spike": (1, _spike, _spike_over),
}


def _regime(seen: _Seen) -> str:
    spike, averages = seen.spike(), seen.pair("sma_20", "sma_50")
    if spike is not None and spike >= 2.5:
        return "volatile"
    if averages is None:
        return "unclear"
    lead = seen.in_atr(averages[0] - averages[1])
    if abs(lead) < 0.5:
        return "ranging"
    if lead * (seen.price - averages[0]) <= 0:
        return "unclear"
    return "trending_up" if lead > 0 else "trending_down"


def _asks_for_batch(schema: Mapping[str, object] | None) -> bool:
    properties = schema.get("properties") if schema else None
    return isinstance(properties, Mapping) and "verdicts" in properties
