"""Says which models a request goes to, in order, and why: the first route whose condition holds.

A condition on what is not known does not hold: the prompt's size where it was not estimated, the budget left where
none is set, whether a model can be used where nobody calls it. Latency is the exception: a model nobody has measured
of late passes, since it is measured by being asked; once it proves slow it is passed over until that is forgotten.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import nextafter
from statistics import median

from llm_integration.calling_config import RouteCondition, RouteSettings
from llm_integration.config import LLMConfig
from llm_integration.model import Call
from llm_integration.ports import Backend, Capabilities, ChatReply, ChatRequest, Health, Price
from trading.clock import Clock
from trading.errors import SettingsError

DEFAULT_KIND = ChatRequest((), "").kind
RATING_AGENT = "TradingDecisionAgent"
AGENT_KINDS: Mapping[str, str] = {
    "MarketAnalyst": "analysis",
    "GlobalMarketAnalyst": "analysis",
    "LiquidityAnalyst": "analysis",
    "PatternRecognitionAnalyst": "analysis",
    RATING_AGENT: "decision",
    "RiskManager": "decision",
    "StrategyManager": "decision",
    "PortfolioManager": "decision",
}
_LONGEST_EXPLANATION = 240
_LONGEST_WORD = 60


def kind_of(agent: str | None, kind: str = DEFAULT_KIND) -> str:
    """A request's task kind: as it says; where it says nothing else than the default, its agent's."""
    return AGENT_KINDS.get(agent or "", kind) if kind == DEFAULT_KIND else kind


@dataclass(frozen=True, slots=True)
class Facts:
    """What routes look at. `prompt_tokens` and `budget_left` (share of the day's USD) are None where not known.

    `standing` holds each model that is called, and why it cannot be used just now (None: it can); `latency_ms` the
    median of each that was measured of late.
    """

    kind: str = DEFAULT_KIND
    agent: str | None = None
    urgency: float = 0.0
    complexity: float = 0.0
    prompt_tokens: int | None = None
    budget_left: float | None = None
    standing: Mapping[str, str | None] = field(default_factory=dict)
    latency_ms: Mapping[str, float] = field(default_factory=dict)


def routes_of(config: LLMConfig) -> list[RouteSettings]:
    """The routes as set, or the hybrid ones where none are; what none of them matches goes to `config.models`.

    Hybrid, where there is a local model: analysis goes to it first, and all else while less than
    `llm.local_below_budget` of the day's budget is left. Raises SettingsError where a condition names a model that
    nobody calls, or a route comes after one that asks nothing: they could never hold.
    """
    called = set(config.all_models)
    mistakes = [
        f"llm.routes: {route.name} asks about {model}, which no route, fallback or ensemble calls; expected one of "
        f"{', '.join(config.all_models)}"
        for route in config.routes
        for model in dict.fromkeys([*route.when.usable, *route.when.unusable, *route.when.max_latency_ms])
        if model not in called
    ]
    for place, route in enumerate(config.routes[:-1]):
        if route.when == RouteCondition():
            after = ", ".join(later.name for later in config.routes[place + 1 :])
            mistakes.append(f"llm.routes: {route.name} asks nothing, so that {after} would never be taken; put it last")
            break
    if mistakes:
        raise SettingsError(mistakes)
    return [*(config.routes or _hybrid(config)), RouteSettings(name="default", models=list(config.models))]


def _hybrid(config: LLMConfig) -> list[RouteSettings]:
    if config.local_model is None:
        return []
    models = list(dict.fromkeys([config.local_model, *config.models]))
    below = config.local_below_budget
    analysis = RouteSettings(name="analysis-local", when=RouteCondition(kind=["analysis"]), models=models)
    if not below:
        return [analysis]
    # Conditions are "at most"; the setting says "below".
    little = RouteCondition(max_budget_left=nextafter(below, 0.0))
    return [analysis, RouteSettings(name="budget-local", when=little, models=models)]


def choose(routes: Sequence[RouteSettings], facts: Facts) -> tuple[RouteSettings, str]:
    """The first route whose condition holds, and what it stood on. Raises LookupError where none does."""
    for route in routes:
        if holds(route.when, facts):
            return route, _explanation(route, facts)
    raise LookupError("no route matches; the last one must ask nothing")


def holds(when: RouteCondition, facts: Facts) -> bool:
    """Whether everything that `when` asks is so."""
    return (
        (not when.kind or facts.kind in when.kind)
        and (not when.agent or facts.agent in when.agent)
        and _between(facts.urgency, when.min_urgency, when.max_urgency)
        and _between(facts.complexity, when.min_complexity, when.max_complexity)
        and _between(facts.prompt_tokens, when.min_prompt_tokens, when.max_prompt_tokens)
        and _between(facts.budget_left, when.min_budget_left, when.max_budget_left)
        and all(facts.standing.get(model, "unknown") is None for model in when.usable)
        and all(facts.standing.get(model) is not None for model in when.unusable)
        and all(facts.latency_ms.get(model, 0.0) <= most for model, most in when.max_latency_ms.items())
    )


def _between(value: float | None, low: float | None, high: float | None) -> bool:
    if low is None and high is None:
        return True
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def _explanation(route: RouteSettings, facts: Facts) -> str:
    """What the request is, and the figures of every condition that was asked, in one short line."""
    when, said = route.when, [f"kind={facts.kind[:_LONGEST_WORD]}"]
    if facts.agent is not None:
        said.append(f"agent={facts.agent[:_LONGEST_WORD]}")
    if facts.prompt_tokens is not None:
        said.append(f"prompt {facts.prompt_tokens} tokens")
    if (when.min_urgency, when.max_urgency) != (None, None):
        said.append(f"urgency {facts.urgency:.2f}")
    if (when.min_complexity, when.max_complexity) != (None, None):
        said.append(f"complexity {facts.complexity:.2f}")
    if facts.budget_left is not None and (when.min_budget_left, when.max_budget_left) != (None, None):
        said.append(f"{100 * facts.budget_left:.1f} % of the day's budget left")
    said += [f"{model} can be used" for model in when.usable]
    said += [f"{model} cannot be used" for model in when.unusable]
    said += [_median_of(model, facts) for model in when.max_latency_ms]
    line = _printable(f"{route.name}: {', '.join(said)}")
    return line if len(line) <= _LONGEST_EXPLANATION else line[: _LONGEST_EXPLANATION - 1] + "…"


def _median_of(model: str, facts: Facts) -> str:
    latency_ms = facts.latency_ms.get(model)
    return f"{model} not measured of late" if latency_ms is None else f"{model} median {latency_ms:.0f} ms"


def _printable(text: str) -> str:
    """Names from outside may hold what does not belong in a line of text."""
    return "".join(character if character.isprintable() else "?" for character in text)


class Latencies:
    """The median latency of each model's last `window` calls that were answered, none of them older than `age_s`."""

    def __init__(self, clock: Clock, *, window: int = 32, age_s: float = 900.0) -> None:
        self._clock = clock
        self._window = window
        self._age_s = age_s
        self._seen: dict[str, deque[tuple[float, float]]] = {}

    def observe(self, call: Call) -> None:
        """Count a call; those that failed or were not sent say nothing."""
        if call.error_class is None and not call.cached:
            model = f"{call.backend}/{call.model}"
            seen = self._seen.setdefault(model, deque(maxlen=self._window))
            seen.append((self._clock.monotonic(), call.latency_ms))

    def medians(self) -> dict[str, float]:
        """Milliseconds by model string; without those not measured of late."""
        since = self._clock.monotonic() - self._age_s
        late = {
            model: [latency_ms for at, latency_ms in seen if at >= since] for model, seen in list(self._seen.items())
        }
        return {model: median(each) for model, each in late.items() if each}


class Router:
    """A Backend that sends each request to the models of the first route that matches, and says why in its `route`.

    The last of `routes` must ask nothing. `chain` gives the Backend that asks models in order, a Fallback; it is asked
    once for each list. `standing` tells of every model that is called why a call would be turned away just now (None:
    it would not; so too where a probe is due, or a model that routes avoid would never be tried again), `budget_left`
    the share of the day's USD (None: no limit). What calls take is learnt from those that pass by.
    """

    name = "router"

    def __init__(
        self,
        routes: Sequence[RouteSettings],
        chain: Callable[[Sequence[str]], Backend],
        standing: Callable[[], Mapping[str, str | None]],
        budget_left: Callable[[], float | None],
        latencies: Latencies,
    ) -> None:
        if not routes or routes[-1].when != RouteCondition():
            raise ValueError("the last route must ask nothing, or a request may find none")
        self._routes = tuple(routes)
        self._chain = cache(chain)
        self._standing = standing
        self._budget_left = budget_left
        self._latencies = latencies

    async def chat(self, request: ChatRequest) -> ChatReply:
        """The reply of the route's models. Raises BackendError."""
        request = replace(request, kind=kind_of(request.agent, request.kind))
        route, explanation = choose(self._routes, self._facts(request))
        return await self._of(route).chat(replace(request, route=explanation, record=self._watched(request.record)))

    def models_for(self, agent: str) -> Sequence[str]:
        """The models that a request of `agent` would go to now, in order, if nothing else is known of it."""
        facts = Facts(
            kind=kind_of(agent),
            agent=agent,
            budget_left=self._budget_left(),
            standing=self._standing(),
            latency_ms=self._latencies.medians(),
        )
        return choose(self._routes, facts)[0].models

    async def check(self, model: str = "") -> Health:
        """Usable while any model of any route is."""
        return await self._whole().check(model)

    def capabilities(self, model: str = "") -> Capabilities:
        """Those of the last route's first choice."""
        return self._of(self._routes[-1]).capabilities(model)

    def price(self, model: str = "") -> Price | None:
        """That of the last route's first choice."""
        return self._of(self._routes[-1]).price(model)

    async def close(self) -> None:
        """Close the models of every route."""
        await self._whole().close()

    def _facts(self, request: ChatRequest) -> Facts:
        prompt_tokens = request.estimated_tokens - request.max_tokens
        return Facts(
            kind=request.kind,
            agent=request.agent,
            urgency=request.urgency,
            complexity=request.complexity,
            prompt_tokens=prompt_tokens if prompt_tokens > 0 else None,
            budget_left=self._budget_left(),
            standing=self._standing(),
            latency_ms=self._latencies.medians(),
        )

    def _watched(self, record: Callable[[Call], None]) -> Callable[[Call], None]:
        def watch(call: Call) -> None:
            self._latencies.observe(call)
            record(call)

        return watch

    def _of(self, route: RouteSettings) -> Backend:
        return self._chain(tuple(route.models))

    def _whole(self) -> Backend:
        return self._chain(tuple(dict.fromkeys(model for route in self._routes for model in route.models)))
