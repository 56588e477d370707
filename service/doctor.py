"""`doctor`: what is wrong and what to do, whether the daemon runs or not."""

import os
import platform
from collections.abc import AsyncIterator

from llm_integration.calling.compose import key_names
from llm_integration.settings_sources import secret
from service.check import DatabaseFacts, check_market, check_models, check_rules, database_facts
from service.doctor_daemon import Heard, daemon_findings
from service.doctor_host import clock_kept, systemd_runs, unit_finding
from service.doctor_places import csv_finding, disk_findings, journal_findings
from service.findings import Finding, looked, note, well, wrong
from service.http.access import Access
from service.settings import Settings
from service.tokens import TOKEN_NAMES
from service.version import VERSION
from service.view_words import size
from trading.clock import SystemClock

AHEAD_S, FAR_AHEAD_S = 2.0, 30.0


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Look at everything the daemon needs. What a running daemon knows better, it is asked for."""
    yield program()
    async for finding in check_rules(settings):
        yield finding
    yield await looked("access", lambda: _access(settings))
    async for finding in _database(settings):
        yield finding
    yield await clock_kept()
    for finding in disk_findings(settings):
        yield finding
    heard = Heard()
    async for finding in daemon_findings(settings, heard):
        yield finding
    for finding in journal_findings(settings, running=heard.anything):
        yield finding
    if not heard.anything:
        yield csv_finding(settings)
        async for finding in check_market(settings):
            yield finding
        async for finding in check_models(settings):
            yield finding
    yield await looked("secrets", lambda: _secrets(settings))
    yield await unit_finding(systemd=systemd_runs())


async def examine_without_settings(mistakes: list[str]) -> AsyncIterator[Finding]:
    """What can be looked at where the settings are wrong."""
    yield program()
    for mistake in mistakes:
        yield wrong("settings", mistake)
    yield await clock_kept()
    yield await unit_finding(systemd=systemd_runs())


def program() -> Finding:
    """Which program this is, and on what."""
    return well(
        "program", f"Tradent {VERSION}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    )


async def _access(settings: Settings) -> str:
    tokens = Access.of(settings.service, SystemClock()).tokens
    return f"{settings.service.host}, {'with tokens' if tokens else 'open to every program on this host'}"


async def _secrets(settings: Settings) -> str:
    """Where each comes from, as this process sees it; never what it is."""
    by_source: dict[str, list[str]] = {}
    for name in dict.fromkeys([*key_names(settings.llm).values(), *TOKEN_NAMES.values()]):
        by_source.setdefault(_source(name), []).append(name)
    return "; ".join(f"{source}: {', '.join(names)}" for source, names in by_source.items())


def _source(name: str) -> str:
    if os.environ.get(name, "").strip():
        return "in this environment"
    return "among the credentials" if secret(name) else "not set here"


async def _database(settings: Settings) -> AsyncIterator[Finding]:
    known: list[DatabaseFacts] = []

    async def look() -> str:
        known.append(await database_facts(settings))
        return f"{known[0]}, {size(known[0].size_bytes)}"

    yield await looked("database", look)
    for facts in known:
        if abs(facts.ahead_s) >= AHEAD_S:
            way = "ahead of" if facts.ahead_s > 0 else "behind"
            told = f"PostgreSQL's is {abs(facts.ahead_s):.0f} s {way} this host's; set the one that is wrong by NTP"
            yield (wrong if abs(facts.ahead_s) >= FAR_AHEAD_S else note)("clock", told)
