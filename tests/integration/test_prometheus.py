"""/metrics of a real daemon, read as Prometheus reads it."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from llm_integration.calling.metrics import Metrics
from llm_integration.histogram import Histogram
from service.daemon import Daemon, Role
from service.metrics.collector import registry_of
from service.metrics.readers import call_durations, call_tokens, feed_age
from service.metrics.table import all_metrics
from service.settings import Settings
from tests.promtool import promtool
from tests.running import running_daemon, url_of
from tests.unit.test_audit_file import a_call
from tests.unit.test_readiness import daemon as stand_in
from tests.unit.test_readiness import streams
from tests.waiting import until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
async def running(database: str) -> AsyncIterator[Daemon]:
    async with running_daemon(database) as daemon:
        await until(lambda: bool(daemon.recent))
        yield daemon


async def scrape(daemon: Daemon, **headers: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url_of(daemon, "/metrics"), headers=headers) as got:
        assert got.status == 200
        return await got.text()


def samples_of(text: str) -> Samples:
    """Every sample, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_the_daemon_did_is_counted(running: Daemon) -> None:
    samples = samples_of(await scrape(running))
    assert samples["tradent_ready", ()] == 1
    assert samples["tradent_postgresql_away", ()] == 0
    assert samples["tradent_build_info", (("version", running.vitals()["version"]),)] == 1
    bars, rated = samples["tradent_bars_total", ()], samples["tradent_results_total", (("status", "completed"),)]
    assert samples["tradent_submit_seconds_count", ()] == bars > 0
    assert samples["tradent_bars_judged_total", (("cause", "good"),)] == bars
    assert samples["tradent_signal_to_verdict_seconds_count", ()] == rated > 0
    assert samples["tradent_signal_to_verdict_seconds_bucket", (("le", "+Inf"),)] == rated
    calls = sum(
        value for (name, _), value in samples.items() if name == "gen_ai_client_operation_duration_seconds_count"
    )
    assert calls >= rated
    assert 0 < samples["tradent_submit_seconds_sum", ()] < bars
    assert samples["tradent_memory_bytes", ()] > 1e7


async def test_openmetrics_is_spoken_to_who_asks_for_it(running: Daemon) -> None:
    text = await scrape(running, Accept="application/openmetrics-text; version=1.0.0")
    names = {family.name for family in read_openmetrics(text)}
    assert {"tradent_bars", "tradent_submit_seconds"} <= names


async def test_prometheus_tool_finds_no_fault_in_it(running: Daemon) -> None:
    promtool("check", "metrics", text=await scrape(running))


async def test_a_worker_tells_nothing_of_a_market(database: str) -> None:
    async with running_daemon(database, Role.WORKER) as worker:
        names = {name for name, _ in samples_of(await scrape(worker))}
    assert "tradent_queue_tasks" in names
    assert not names & {"tradent_bars_total", "tradent_journal_bytes", "tradent_submit_seconds_count"}


async def test_a_daemon_that_waits_for_its_database_tells_that_it_is_not_ready() -> None:
    samples = samples_of(generate_latest(registry_of(Daemon(Settings.model_construct()))).decode())
    assert samples["tradent_ready", ()] == 0
    assert samples["tradent_check_ok", (("check", "database"),)] == 0
    assert samples["tradent_results_total", (("status", "completed"),)] == 0


def test_every_metric_is_explained_on_its_page() -> None:
    explained = set(re.findall(r"^\| `(\w+)`", PAGE.read_text("utf-8"), re.MULTILINE))
    names = [metric.name for metric in all_metrics()]
    assert len(set(names)) == len(names)
    assert {name for name in explained if name.startswith(("tradent_", "gen_ai_"))} == set(names)


def test_names_say_kind_and_unit() -> None:
    for metric in all_metrics():
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.help.endswith(".")


def rating_of(metrics: Metrics) -> Any:
    """The rating side of a daemon whose settings name one model, `openrouter/m`."""
    rating = stand_in().rating
    assert rating is not None
    vars(rating.caller).update(models=["openrouter/m"], metrics=metrics)
    return rating


def test_models_that_no_setting_names_are_told_together() -> None:
    """Labels stay as few as the settings name, whatever is asked."""
    metrics = Metrics()
    for model in ("m", "x", "y"):
        metrics.observe(a_call(model=model, latency_ms=500.0, prompt_tokens=10, completion_tokens=2))
    metrics.observe(a_call(model="m", error_class="TimedOut", latency_ms=60_000.0))
    daemon = stand_in(rating=rating_of(metrics))
    vars(daemon.settings.llm)["all_models"] = ["openrouter/m"]

    told = {labels: value for labels, value in call_durations(daemon) if isinstance(value, Histogram)}
    tokens = {labels: value.total for labels, value in call_tokens(daemon) if isinstance(value, Histogram)}

    assert {labels[1:]: sum(value.counts) for labels, value in told.items()} == {
        ("openrouter", "m", ""): 1, ("openrouter", "m", "TimedOut"): 1, ("other", "other", ""): 2,
    }  # fmt: skip
    assert tokens["chat", "openrouter", "m", "input"] == 10
    assert tokens["chat", "other", "other", "output"] == 4


def test_streams_beyond_a_hundred_are_told_by_the_one_furthest_behind() -> None:
    daemon = stand_in()
    vars(daemon.tally)["streams"] = streams(*range(150))
    ages = dict(feed_age(daemon))
    assert len(ages) == 101
    assert ages["other", "other"] == 149
