"""Puts the calling side together from the settings, outermost first:

Router ─► Fallback ─► Cache ─► Retry ─► Breaker ─► Hedge ─► Budget ─► Limited ─► Gate ─► Audit ─► Priced ─► Pool

From the cache to the hedge each model has its own; from the budget on, the models of a backend share one. A breaker
stands inside the retries, so that it sees every try and a hanging model costs its timeout only until it opens; and
outside the quota, so that a call it turns away waits for none, while its probes count like any other call. The gate
looks at it once more after the wait. What is audited is what went to the backend, with its cost where prices tell it.
Where texts are not to be kept, Discreet stands around each backend: its errors quote none.

Settings may change while calls are under way: then all of this is put together anew around what lasts, and the calls
under way end in what they began in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

from llm_integration.backends import SAME_EVERY_TIME, backend_class
from llm_integration.backends.wire.secrets import without_password
from llm_integration.calling.audit import Audit
from llm_integration.calling.breaker import Breaker, Gate
from llm_integration.calling.budget import Budget
from llm_integration.calling.cache import Cache, MemoryReplies, Replies, ReplyCache
from llm_integration.calling.caller import Caller, turned_away
from llm_integration.calling.discreet import Discreet
from llm_integration.calling.fallback import Candidate, Fallback
from llm_integration.calling.hedge import Hedge
from llm_integration.calling.lasting import Lasting
from llm_integration.calling.ledger import Ledger, Limits
from llm_integration.calling.limited import Limited
from llm_integration.calling.limiter import Limiter
from llm_integration.calling.pool import Pool
from llm_integration.calling.prices import Priced
from llm_integration.calling.retry import Retry
from llm_integration.calling.router import RATING_AGENT, Latencies, Router, routes_of
from llm_integration.calling.spending import Spending
from llm_integration.calling.spending_ledger import MemorySpendingLedger, SpendingLedger
from llm_integration.calling.together import Place
from llm_integration.calling_config import split_model
from llm_integration.config import BackendSettings, LLMConfig
from llm_integration.ports import Backend, BackendContext
from trading.clock import Clock

__all__ = ["Caller", "Stores", "build", "key_names", "limits_of"]
_IDENTITY = {"base_url", "servers", "headers", "region", "commands", "context_tokens"}
_CHANGING = {
    "requests_per_minute", "tokens_per_minute", "requests_per_10_seconds", "tokens_per_10_seconds", "timeout_seconds",
}  # fmt: skip
SharedLedger = Callable[[str, str | None, str | None, Limits], Ledger]


@dataclass(frozen=True, slots=True)
class Stores:
    """Where quotas, budget and replies are kept, in place of this process's memory.

    `quota` makes the ledger that all processes share, from backend, address, key and limits.
    """

    quota: SharedLedger
    spending: SpendingLedger
    replies: Replies


def key_names(config: LLMConfig) -> dict[str, str]:
    """The names under which to look for the keys of the backends in use, by backend; without those that take none."""
    names = {}
    for backend in _backends(config):
        name = _settings(config, backend).api_key_env or backend_class(backend).API_KEY_ENV
        if name is not None:
            names[backend] = name
    return names


def build(
    config: LLMConfig,
    clock: Clock,
    keys: Mapping[str, str | None],
    *,
    stores: Stores | None = None,
    run_id: str | None = None,
    before: Caller | None = None,
) -> Caller:
    """The Caller for `config.all_models`; `keys` holds the API keys by backend name, None or absent where not set.

    Models of one backend share its connections and its quota; each has a breaker of its own, since the provider behind
    one may fail while the others answer. Without `stores` this process shares with nobody. `run_id` is whose budget
    it is where a request names no run. Raises SettingsError for routes that can never be taken.

    Where it takes the place of the Caller `before`, quotas, budget and what was learnt go on: nothing changes until
    its `begin` is called; then `before` is to be let go by `retire`, once no call is under way in it.
    """
    routes = routes_of(config)
    lasting = _lasting(config, clock, stores, run_id) if before is None else before.lasting
    replies = ReplyCache(lasting.replies, clock, config.cache_ttl_seconds)
    breakers: dict[str, Breaker] = {}
    old_places = {} if before is None else before.places
    places = {
        name: _place(config, clock, name, (keys.get(name) or "").strip() or None, stores, lasting, old_places.get(name))
        for name in _backends(config)
    }
    candidates: dict[str, Candidate] = {}
    for model in config.all_models:
        name, _ = split_model(model)
        place, settings = places[name], _settings(config, name)
        hedge = Hedge(place.budget, clock, config.hedge_after_seconds, config.hedge_urgency, place.limiter.room)
        breakers[model] = Breaker(hedge, clock, model, partial(_instead, breakers), peers=breakers.values)
        if model in lasting.breakers and name in old_places and old_places[name].limiter is place.limiter:
            breakers[model].take_over(lasting.breakers[model])
        asked: Backend = Retry(breakers[model], clock, config.max_retries)
        if name not in SAME_EVERY_TIME:
            asked = Cache(asked, replies, settings.model_dump_json(include=_IDENTITY))
        candidates[model] = Candidate(model, asked, settings.timeout_seconds)

    def chain(models: Sequence[str]) -> Fallback:
        return Fallback([candidates[model] for model in models])

    def begin() -> None:
        for name, place in places.items():
            place.limiter.limit(limits_of(config, name))
        lasting.spending.change(config.budget)
        lasting.breakers.update(breakers)

    standing = partial(turned_away, breakers, places)
    router = Router(routes, chain, standing, lasting.spending.share_left, lasting.latencies)
    members = [member.model for member in config.ensemble.members]
    caller = Caller(
        backend=router,
        models=config.all_models,
        chain=chain,
        lasting=lasting,
        places=places,
        begin=begin,
        _breakers=breakers,
        _replies=replies,
        _asked=lambda: members or router.models_for(RATING_AGENT),
    )
    if before is None:
        begin()
    return caller


def _lasting(config: LLMConfig, clock: Clock, stores: Stores | None, run_id: str | None) -> Lasting:
    """What the first Caller begins with. Replies are shared only where texts may be kept."""
    open_texts = config.audit.redact != "everything"
    replies = stores.replies if stores and open_texts else MemoryReplies(clock)
    ledger = stores.spending if stores else MemorySpendingLedger(clock)
    return Lasting(Spending(config.budget, ledger, clock, run_id or uuid4().hex), replies, Latencies(clock))


def limits_of(config: LLMConfig, backend: str) -> Limits:
    """The limits of a backend, by the settings."""
    settings, metered = _settings(config, backend), backend_class(backend).METERED
    if config.quota_scope == "none":
        return Limits()
    return Limits(
        _limit(settings.requests_per_minute, config.requests_per_minute, metered),
        _limit(settings.tokens_per_minute, config.tokens_per_minute, metered),
        settings.requests_per_10_seconds,
        settings.tokens_per_10_seconds,
    )


def _place(
    config: LLMConfig,
    clock: Clock,
    name: str,
    key: str | None,
    stores: Stores | None,
    lasting: Lasting,
    before: Place | None,
) -> Place:
    """One backend with all that its models share: the one `before` where nothing of it has changed but its limits."""
    settings, kind = _settings(config, name), backend_class(name)
    limiter = _limiter(config, clock, name, key, stores, lasting)
    prices = {model: price for model, price in config.prices.items() if split_model(model)[0] == name}
    made_of = settings.model_dump(exclude=_CHANGING), key, config.max_concurrency, config.audit.redact, prices
    if before is not None and before.limiter is limiter and before.made_of == made_of:
        return before
    backend = _backend(config, clock, name, key)
    priced = Priced(backend, config.prices, metered=kind.METERED)
    gate = Gate(Audit(priced, clock, lasting.metrics), lasting.breakers)
    limited = Limited(gate, limiter, clock, settings.token_mode)
    return Place(limiter, Budget(limited, lasting.spending, clock), settings.token_mode, backend, made_of)


def _limiter(
    config: LLMConfig, clock: Clock, name: str, key: str | None, stores: Stores | None, lasting: Lasting
) -> Limiter:
    """The one limiter of this backend, address and key. One that had no limit so far shared nothing with anybody."""
    settings, limits = _settings(config, name), limits_of(config, name)
    address = ",".join(sorted(settings.servers)) or settings.base_url
    shared = stores.quota if stores is not None and config.quota_scope == "database" else None
    alone, together = (name, address, key, "alone"), (name, address, key, "together")
    if shared is None or (limits.none and together not in lasting.limiters):
        return lasting.limiter(alone, lambda: Limiter(clock, name))
    return lasting.limiter(together, lambda: Limiter(clock, name, ledger=shared(name, address, key, limits)))


def _backend(config: LLMConfig, clock: Clock, name: str, key: str | None) -> Backend:
    """The backend itself, or the pool of its servers."""
    settings, kind = _settings(config, name), backend_class(name)

    def at(base_url: str | None) -> Backend:
        backend: Backend = kind(
            BackendContext(
                name=name,
                clock=clock,
                base_url=base_url,
                api_key=key,
                api_key_env=key_names(config).get(name),
                headers=settings.headers,
                max_connections=config.max_concurrency,
                region=settings.region,
                commands=settings.commands,
                context_tokens=settings.context_tokens,
                pull=settings.pull,
                recording=settings.recording,
            )
        )
        return backend if config.audit.redact == "nothing" else Discreet(backend, config.audit.redact)

    if not settings.servers:
        return at(settings.base_url)
    return Pool([(without_password(address), at(address)) for address in settings.servers], clock)


def _instead(breakers: Mapping[str, Breaker]) -> str:
    left = next((model for model, breaker in breakers.items() if breaker.open is None), None)
    return "nothing else is left to rate" if left is None else f"{left} rates instead"


def _backends(config: LLMConfig) -> list[str]:
    return list(dict.fromkeys(split_model(model)[0] for model in config.all_models))


def _settings(config: LLMConfig, backend: str) -> BackendSettings:
    return config.backends.get(backend, BackendSettings())


def _limit(own: int | None, general: int, metered: bool) -> int:
    if own is not None:
        return own
    return general if metered else 0
