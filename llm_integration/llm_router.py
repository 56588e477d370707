"""Which model an agent's question would go to, and with what parameters, for programs that do the calling themselves.

Nothing is sent and no key is read: a server's health, latencies and what is left of the budget are not known here, so
that routes which ask about health or budget do not hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_integration.calling.router import DEFAULT_KIND, Facts, choose, kind_of, routes_of
from llm_integration.calling_config import split_model
from llm_integration.config import BackendSettings, LLMConfig
from llm_integration.library.settings import client_config


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a request goes: model strings in order, the first choice first; `why` names the route."""

    models: Sequence[str]
    kind: str
    why: str


def route(
    agent: str | None = None,
    kind: str = DEFAULT_KIND,
    urgency: float = 0.0,
    complexity: float = 0.0,
    prompt_tokens: int | None = None,
    *,
    config: LLMConfig | None = None,
) -> Routed:
    """Where the routes send such a request; an agent that is known by name brings its kind with it.

    `urgency` and `complexity` are 0 to 1. Without `config` the settings are those that `get_llm_client` would take: the
    environment over `configs/llm.yaml` over `config.json`. Raises SettingsError.
    """
    settings = config or client_config({})
    kind = kind_of(agent, kind)
    facts = Facts(kind, agent, urgency, complexity, prompt_tokens)
    chosen, why = choose(routes_of(settings), facts)
    return Routed(tuple(chosen.models), kind, why)


def get_llm_config(agent: str | None = None, *, config: LLMConfig | None = None) -> dict[str, object]:
    """What to call a model with for `agent`, such as "MarketAnalyst".

    `backend`, `model` (its name on the wire), `model_string` (both), `fallbacks` (model strings), `temperature`,
    `max_tokens`, `timeout` (seconds), `kind`, and `route`, which says why. Raises SettingsError.
    """
    settings = config or client_config({})
    routed = route(agent, config=settings)
    first, *fallbacks = routed.models
    backend, model = split_model(first)
    own = settings.backends.get(backend, BackendSettings())
    return {
        "backend": backend,
        "model": model,
        "model_string": first,
        "fallbacks": fallbacks,
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "timeout": own.timeout_seconds or settings.timeout_seconds,
        "kind": routed.kind,
        "route": routed.why,
    }
