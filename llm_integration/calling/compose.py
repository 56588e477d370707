"""Puts the calling side together from the settings: Fallback of Retry of Breaker of Limited of Audit of a backend.

A breaker stands inside the retries, so that it sees every try and a hanging model costs its timeout only until it
opens; and outside the quota, so that a call it turns away waits for none, while its probes count like any other call.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from llm_integration.backends import backend_class
from llm_integration.calling.audit import Audit
from llm_integration.calling.breaker import Breaker
from llm_integration.calling.fallback import Candidate, Fallback
from llm_integration.calling.limiter import Limited, Limiter, Usage
from llm_integration.calling.retry import Retry
from llm_integration.calling_config import split_model
from llm_integration.config import BackendSettings, LLMConfig
from llm_integration.ports import Backend, BackendContext, Health
from trading.clock import Clock

_DEADLINE_S = 300.0


class Caller:
    """What the rating side calls models through: `backend` answers, the rest tells how it stands."""

    def __init__(self, fallback: Fallback, breakers: Mapping[str, Breaker], limiters: Mapping[str, Limiter]) -> None:
        self.backend: Backend = fallback
        self._fallback = fallback
        self._breakers = breakers
        self._limiters = limiters

    async def check(self) -> list[tuple[str, Health]]:
        """Each model string's health, asked now, first choice first; unusable ones are passed over from here on.

        What was found is for the caller to show: only later changes are logged.
        """
        return await self._fallback.check_all()

    def standing(self) -> list[tuple[str, str | None]]:
        """Each model string, in order, and why it is passed over at present: None where it is not. Asks nobody."""
        return [
            (model, breaker.open or self._limiters[breaker.name].blocked()) for model, breaker in self._breakers.items()
        ]

    def limits(self) -> dict[str, Usage]:
        """The last minute's requests and tokens of each backend, by its name."""
        return {name: limiter.usage() for name, limiter in self._limiters.items()}

    def seed(self, used: Iterable[tuple[str, float, int]]) -> None:
        """Count what was asked before a restart: (backend, age in seconds, tokens) of each call of the last minute."""
        for backend, age_s, tokens in used:
            if backend in self._limiters:
                self._limiters[backend].seed([(age_s, tokens)])

    async def close(self) -> None:
        """Let go of connections; whoever waits for a quota gets NotUsable."""
        await self._fallback.close()


def key_names(config: LLMConfig) -> dict[str, str]:
    """The names under which to look for the keys of the backends in use, by backend; without those that take none."""
    names = {}
    for backend in _backends(config):
        name = _settings(config, backend).api_key_env or backend_class(backend).API_KEY_ENV
        if name is not None:
            names[backend] = name
    return names


def build(config: LLMConfig, clock: Clock, keys: Mapping[str, str | None]) -> Caller:
    """The Caller for `config.models`; `keys` holds the API keys by backend name, None or absent where not set.

    Models of one backend share its connections and its quota; each has a breaker of its own, since the provider behind
    one may fail while the others answer.
    """
    names = key_names(config)
    limiters: dict[str, Limiter] = {}
    limited: dict[str, Limited] = {}
    for name in _backends(config):
        settings, kind = _settings(config, name), backend_class(name)
        context = BackendContext(
            name=name,
            clock=clock,
            base_url=settings.base_url,
            api_key=(keys.get(name) or "").strip() or None,
            api_key_env=names.get(name),
            headers=settings.headers,
            max_connections=config.max_concurrency,
            region=settings.region,
            commands=settings.commands,
            context_tokens=settings.context_tokens,
            pull=settings.pull,
            recording=settings.recording,
        )
        limiters[name] = Limiter(
            clock,
            name,
            _limit(settings.requests_per_minute, config.requests_per_minute, kind.METERED),
            _limit(settings.tokens_per_minute, config.tokens_per_minute, kind.METERED),
        )
        limited[name] = Limited(Audit(kind(context), clock), limiters[name], clock)
    breakers: dict[str, Breaker] = {}
    candidates = []
    for model in config.models:
        name, _ = split_model(model)
        breakers[model] = Breaker(limited[name], clock, model, partial(_instead, breakers))
        retry = Retry(breakers[model], clock, config.max_retries, deadline_s=_DEADLINE_S)
        candidates.append(Candidate(model, retry, _settings(config, name).timeout_seconds))
    return Caller(Fallback(candidates), breakers, limiters)


def _instead(breakers: Mapping[str, Breaker]) -> str:
    left = next((model for model, breaker in breakers.items() if breaker.open is None), None)
    return "nothing else is left to rate" if left is None else f"{left} rates instead"


def _backends(config: LLMConfig) -> list[str]:
    return list(dict.fromkeys(split_model(model)[0] for model in config.models))


def _settings(config: LLMConfig, backend: str) -> BackendSettings:
    return config.backends.get(backend, BackendSettings())


def _limit(own: int | None, general: int, metered: bool) -> int:
    if own is not None:
        return own
    return general if metered else 0
