"""How each model does: calls, failures by kind, latency, tokens and cost since the start of the process."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import quantiles
from typing import Any

from llm_integration.histogram import Histogram
from llm_integration.model import Call

DURATION_BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BOUNDS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
_WINDOW = 500


@dataclass(slots=True)
class ModelMetrics:
    """One model's figures; tokens and cost are of the calls that report them. Latencies are those of late, in ms.

    `durations_s` are kept by the class of the error, "" where there was none; `tokens` as "input" and "output". Their
    bounds are those that OpenTelemetry's conventions for generative AI ask for.
    """

    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unknown_cost: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    durations_s: dict[str, Histogram] = field(default_factory=dict)
    tokens: dict[str, Histogram] = field(default_factory=dict)

    def count(self, call: Call) -> None:
        """A call that was made."""
        self.calls += 1
        duration_s = self.durations_s.setdefault(call.error_class or "", Histogram(DURATION_BOUNDS_S))
        duration_s.observe(call.latency_ms / 1000)
        if call.error_class is not None:
            self.failures[call.error_class] += 1
            return
        self.latencies_ms.append(call.latency_ms)
        for kind, tokens in (("input", call.prompt_tokens), ("output", call.completion_tokens)):
            if tokens is not None:
                self.tokens.setdefault(kind, Histogram(TOKEN_BOUNDS)).observe(tokens)
        self.prompt_tokens += call.prompt_tokens or 0
        self.completion_tokens += call.completion_tokens or 0
        if call.cost_usd is None:
            self.unknown_cost += 1
        else:
            self.cost_usd += call.cost_usd

    def summary(self) -> dict[str, Any]:
        """Plain values; shares and latencies are None where there are no calls to tell them by."""
        failed = sum(self.failures.values())
        latencies = sorted(self.latencies_ms)
        cuts = quantiles(latencies, n=20, method="inclusive") if len(latencies) > 1 else latencies * 19
        return {
            "calls": self.calls,
            "succeeded_share": round(1 - failed / self.calls, 4) if self.calls else None,
            "failures": dict(self.failures),
            "latency_p50_ms": round(cuts[9], 1) if cuts else None,
            "latency_p95_ms": round(cuts[18], 1) if cuts else None,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost_usd": float(self.cost_usd),
            "calls_of_unknown_cost": self.unknown_cost,
        }


class Metrics:
    """What calls came to, by model string; as many models as the settings name. `on_call` is told of each call."""

    def __init__(self) -> None:
        self._models: dict[str, ModelMetrics] = {}
        self.on_call: Callable[[Call], None] | None = None

    def observe(self, call: Call) -> None:
        """A call was made."""
        self._models.setdefault(f"{call.backend}/{call.model}", ModelMetrics()).count(call)
        if self.on_call is not None:
            self.on_call(call)

    def models(self) -> dict[str, ModelMetrics]:
        """Each model's figures themselves, by model string."""
        return dict(self._models)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Each model's figures, by model string."""
        return {model: metrics.summary() for model, metrics in self._models.items()}
