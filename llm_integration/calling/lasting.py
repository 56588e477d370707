"""What outlives a change of settings: quotas, budget, and what was learnt of models. A change never gives a second."""

from collections.abc import Callable
from dataclasses import dataclass, field

from llm_integration.calling.breaker import Breaker
from llm_integration.calling.cache import Replies
from llm_integration.calling.limiter import Limiter
from llm_integration.calling.metrics import Metrics
from llm_integration.calling.router import Latencies
from llm_integration.calling.spending import Spending

QuotaKey = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Lasting:
    """`limiters` are by backend, address and key: one each as long as the process lives, also while nothing uses it.

    `breakers` are those that hold now, by model string: what is behind a quota looks at them.
    """

    spending: Spending
    replies: Replies
    latencies: Latencies
    metrics: Metrics = field(default_factory=Metrics)
    limiters: dict[QuotaKey, Limiter] = field(default_factory=dict)
    breakers: dict[str, Breaker] = field(default_factory=dict)

    def limiter(self, key: QuotaKey, made: Callable[[], Limiter]) -> Limiter:
        """The limiter of that quota."""
        if key not in self.limiters:
            self.limiters[key] = made()
        return self.limiters[key]
