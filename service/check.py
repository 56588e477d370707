"""`check`: what works and what does not, a line each."""

import sys
from collections.abc import Awaitable, Callable

from database.engine import FAILURES, connect
from database.migrate import head, pending
from database.settings import redacted
from llm_integration.calling.compose import Caller, build, key_names
from llm_integration.config import LLMConfig
from llm_integration.response_parser import LLMResponseParser
from llm_integration.settings_sources import secret
from service.check_backends import BackendCheck
from service.check_report import report
from service.prompts import rating_prompt
from service.settings import Settings
from service.store_room import reach_database
from trading.clock import SystemClock
from trading.errors import TradentError
from trading.feeds import feed_module
from trading.indicators import IndicatorSet
from trading.strategies import build_strategies

FOUND_WANTING: tuple[type[Exception], ...] = (TradentError, *FAILURES)


async def check_everything(settings: Settings) -> int:
    """Print what was found; 0 when the daemon would start and rate, 1 otherwise."""
    _say(True, "settings", "every key is known and in range")
    passed = [
        await _step("strategies", lambda: _strategies(settings)),
        await _step("feed", lambda: _feed(settings)),
        await _step("database", lambda: _database(settings)),
    ]
    if settings.llm.enabled:
        passed.append(await _step("prompt", lambda: _prompt(settings)))
        passed.append(await _models(settings))
    else:
        _say(True, "models", "llm.enabled is false: nothing is rated")
    return 0 if all(passed) else 1


async def check_backends(settings: Settings, *, paid: bool, as_json: bool) -> int:
    """Ask every model that is configured, and show how each did; 0 when any can be used, 1 otherwise."""
    prompt = rating_prompt(settings.llm)
    asked_anew = settings.llm.model_copy(update={"hedge_after_seconds": 0.0, "cache_ttl_seconds": 0.0})
    caller = _caller(asked_anew)
    parser = LLMResponseParser()
    try:
        measuring = BackendCheck(settings.llm, prompt, lambda model: caller.chain([model]), parser, paid=paid)
        plans = [await measuring.look(model) for model in settings.llm.all_models]
        for plan in plans:
            sys.stderr.write(f"{plan.model}: {plan.said}\n")
        found = [(plan, await measuring.measure(plan) if plan.asks else None) for plan in plans]
    finally:
        await caller.close()
        await parser.close()
    report(found, as_json=as_json)
    return 0 if any(plan.health.usable for plan in plans) else 1


async def _step(name: str, look: Callable[[], Awaitable[str]]) -> bool:
    try:
        found = await look()
    except FOUND_WANTING as error:
        _say(False, name, str(error) or type(error).__name__)
        return False
    _say(True, name, found)
    return True


async def _strategies(settings: Settings) -> str:
    strategies = build_strategies(settings.trading.strategies)
    IndicatorSet([*settings.llm.indicators_to_include, *(name for one in strategies for name in one.indicators)])
    return ", ".join(strategy.name for strategy in strategies) or "none: no signal will be found"


async def _feed(settings: Settings) -> str:
    feed = feed_module(settings.trading.feed.type).Feed(settings.trading.feed, SystemClock())
    await feed.close()
    return f"{settings.trading.feed.type}, its bars say {feed.source!r}"


async def _prompt(settings: Settings) -> str:
    prompt = rating_prompt(settings.llm)
    return f"{prompt.name}, version {prompt.version}, answered as {prompt.contract}"


async def _database(settings: Settings) -> str:
    async with reach_database(settings.database) as url:
        connection = await connect(url, settings.database)
        try:
            server = await connection.fetchval("SHOW server_version")
        finally:
            await connection.close()
        missing = await pending(url)
    where = settings.database.redacted_url
    state = f"{len(missing)} migrations are due, `run` applies them" if missing else f"up to date at {head()}"
    return f"{where if where == 'embedded' else redacted(url)}, PostgreSQL {server}, {state}"


async def _models(settings: Settings) -> bool:
    caller = _caller(settings.llm)
    try:
        checked = await caller.check()
    finally:
        await caller.close()
    for model, health in checked:
        _say(health.usable, model, health.detail)
    return any(health.usable for _, health in checked)


def _caller(config: LLMConfig) -> Caller:
    """What asks the models, with a quota of its own."""
    return build(config, SystemClock(), {name: secret(variable) for name, variable in key_names(config).items()})


def _say(good: bool, name: str, found: str) -> None:
    sys.stdout.write(f"{'ok  ' if good else 'FAIL'}  {name}: {found}\n")
