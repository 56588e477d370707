"""`check`: what works and what does not."""

import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from database.engine import connect
from database.migrate import head, pending
from database.settings import redacted
from llm_integration.calling.compose import Caller, build, key_names
from llm_integration.config import LLMConfig
from llm_integration.response_parser import LLMResponseParser
from llm_integration.settings_sources import secret
from service import exit_codes
from service.check_backends import BackendCheck
from service.check_report import report
from service.findings import Finding, looked, note, well, wrong
from service.prompts import rating_prompt
from service.settings import Settings
from service.store_room import reach_database
from trading.clock import SystemClock
from trading.errors import TradentError
from trading.feeds import feed_module
from trading.feeds.base import AskedFeed
from trading.indicators import IndicatorSet
from trading.strategies import build_strategies


async def check_everything(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the daemon would start and rate."""
    async for finding in check_rules(settings):
        yield finding
    async for finding in check_market(settings):
        yield finding
    yield await looked("database", lambda: _database(settings))
    async for finding in check_models(settings):
        yield finding


async def check_rules(settings: Settings) -> AsyncIterator[Finding]:
    """What the settings name, as far as it can be seen without asking anybody."""
    yield well("settings", "every key is known and in range")
    yield await looked("strategies", lambda: _strategies(settings))
    yield await looked("feed", lambda: _feed(settings))
    if settings.llm.enabled:
        yield await looked("prompt", lambda: _prompt(settings))


async def check_market(settings: Settings) -> AsyncIterator[Finding]:
    """What the exchange says of the symbols, where bars come from one."""
    with suppress(TradentError):  # what keeps the feed from being made is found with the settings' names
        feed = feed_module(settings.trading.feed.type).Feed(settings.trading.feed, SystemClock())
        try:
            if isinstance(feed, AskedFeed):
                yield await looked("exchange", feed.look)
        finally:
            await feed.close()


async def check_models(settings: Settings) -> AsyncIterator[Finding]:
    """What each model says, asked for nothing that costs; where one can be used, it is enough, and others are notes."""
    if not settings.llm.enabled:
        yield well("models", "llm.enabled is false: nothing is rated")
        return
    caller = _caller(settings.llm)
    try:
        checked = await caller.check()
    finally:
        await caller.close()
    otherwise = note if any(health.usable for _, health in checked) else wrong
    for model, health in checked:
        yield (well if health.usable else otherwise)(model, health.detail)


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
    return exit_codes.OK if any(plan.health.usable for plan in plans) else exit_codes.FAILED


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a look at the database finds. `ahead_s`: its clock, less this host's; `missing`: migrations that are due."""

    where: str
    version: str
    missing: int
    size_bytes: int
    ahead_s: float

    def __str__(self) -> str:
        state = f"{self.missing} migrations are due, `run` applies them" if self.missing else f"up to date at {head()}"
        return f"{self.where}, PostgreSQL {self.version}, {state}"


async def database_facts(settings: Settings) -> DatabaseFacts:
    """Look at it; started for as long as that takes where it is our own and no daemon runs."""
    async with reach_database(settings.database, make=True) as url:
        connection = await connect(url, settings.database)
        try:
            version = await connection.fetchval("SHOW server_version")
            size_bytes = await connection.fetchval("SELECT pg_database_size(current_database())")
            before = datetime.now(UTC)
            shown = await connection.fetchval("SELECT clock_timestamp()")
            ahead_s = (shown - before - (datetime.now(UTC) - before) / 2).total_seconds()
        finally:
            await connection.close()
        missing = len(await pending(url))
    where = settings.database.redacted_url
    return DatabaseFacts(where if where == "embedded" else redacted(url), version, missing, size_bytes, ahead_s)


async def _database(settings: Settings) -> str:
    return str(await database_facts(settings))


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


def _caller(config: LLMConfig) -> Caller:
    """What asks the models, with a quota of its own."""
    return build(config, SystemClock(), {name: secret(variable) for name, variable in key_names(config).items()})
