"""OpenTelemetry traces of real daemons, taken by a collector over real HTTP."""

import asyncio
import json
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from service.daemon import Role
from service.settings import ServiceSettings
from service.traces.wanted import traces_of
from tests.daemon import Daemon, Look
from tests.otlp import Collector, Span, collector
from tests.running import running_daemon
from tests.waiting import until
from trading.clock import SystemClock
from trading.errors import SettingsError

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

WAY = {"signal", "stored", "rated", "chat baseline", "written"}


def whole(taken: Collector) -> list[str]:
    """The traces that have every span there is."""
    return [trace for trace in {span.trace for span in taken.spans} if set(taken.named(trace)) >= WAY]


async def test_one_trace_leads_from_the_bar_to_the_csv_row(database: str) -> None:
    """Its id is the signal's; each span lies below the one it belongs to, and says what was found there."""
    async with collector() as taken:
        async with running_daemon(database, service={"traces_endpoint": taken.url}) as daemon:
            await until(lambda: bool(whole(taken)))
        trace = whole(taken)[0]
        spans = taken.named(trace)
        rated = {signal.id for signal, _ in daemon.recent}
        assert rated <= {UUID(hex=span.trace) for span in taken.spans}
    assert_nested(spans)
    assert spans["signal"].values["tradent.symbol"] == "SIMBTC"
    assert spans["rated"].values["tradent.status"] == "completed"
    assert spans["rated"].values["tradent.rating"] in (1, 2, 3, 4, 5)
    call = spans["chat baseline"].values
    assert (call["gen_ai.provider.name"], call["gen_ai.request.model"]) == ("rules", "baseline")
    assert call["gen_ai.operation.name"] == "chat"
    assert spans["written"].values["tradent.file"] == "llm_signals.csv"
    assert taken.resources[0]["service.name"] == "tradent"


def assert_nested(spans: dict[str, Span]) -> None:
    first = spans["signal"]
    assert first.parent == ""
    assert spans["chat baseline"].parent == spans["rated"].id
    assert {spans[name].parent for name in ("stored", "rated", "written")} == {first.id}
    assert all(span.start_ns <= span.end_ns for span in spans.values())
    assert first.start_ns <= spans["stored"].end_ns <= spans["written"].end_ns
    assert spans["rated"].end_ns == spans["written"].start_ns <= spans["written"].end_ns


async def test_processes_that_share_a_database_make_parts_of_one_trace(database: str, tmp_path: Path) -> None:
    """A trader in a process of its own and a worker here, which know of one another by PostgreSQL alone."""
    async with collector() as taken:
        trader = Daemon(tmp_path, {
            "trading": {"feed": {"type": "simulated", "symbols": ["SIMBTC"], "timeframe": "1s"}},
            "database": {"url": database}, "service": {"port": 0},
        }, {"OTEL_EXPORTER_OTLP_ENDPOINT": taken.url})  # fmt: skip
        async with trader.start("--role", "trader"):
            await Look(database).until("SELECT EXISTS (SELECT FROM signals)")
            async with running_daemon(database, Role.WORKER, service={"traces_endpoint": taken.url}):
                await until(lambda: bool(whole(taken)))
    processes = {resource["service.instance.id"] for resource in taken.resources}
    assert len(processes) == 2
    assert_nested(taken.named(whole(taken)[0]))


async def test_a_collector_that_refuses_is_said_once_and_once_that_it_takes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from service.traces.traces import Traces

    caplog.set_level("INFO")
    async with collector() as taken:
        traces = Traces.sent_to(taken.url, SystemClock())
        for status, times, said in ((400, 2, "traces cannot be sent"), (200, 1, "traces can be sent again")):
            taken.status = status
            for number in range(times):
                before = taken.requests
                traces.written(UUID(int=number), SystemClock().now(), "llm_signals.csv")
                await until(lambda before=before: taken.requests > before)
            await until(lambda said=said: said in caplog.text)
        await traces.close()
    assert caplog.text.count("traces ca") == 2


async def test_a_collector_that_is_away_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """What is left is given two seconds, though the exporter would try for ten."""
    from service.traces.traces import Traces

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        traces = Traces.sent_to(f"http://127.0.0.1:{nobody.getsockname()[1]}", SystemClock())
        traces.written(UUID(int=1), SystemClock().now(), "llm_signals.csv")
        async with asyncio.timeout(60):
            await traces.close()
    assert "opentelemetry" not in caplog.text


async def test_nothing_of_it_is_imported_where_it_is_not_wanted() -> None:
    code = (
        "import service.daemon, sys, json; print(json.dumps([name for name in sys.modules if 'opentelemetry' in name]))"
    )
    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True
    )
    assert json.loads(ran.stdout) == []


@pytest.mark.parametrize("endpoint", ["collector:4318", "http://name:secret@collector:4318"])
def test_an_endpoint_that_cannot_be_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="traces_endpoint"):
        ServiceSettings(traces_endpoint=endpoint)


def test_without_the_extra_the_setting_is_refused_and_the_variable_only_noted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert traces_of(ServiceSettings(), SystemClock()) is None
    with pytest.raises(SettingsError, match=r"tradent\[otel\]"):
        traces_of(ServiceSettings(traces_endpoint="http://127.0.0.1:4318"), SystemClock())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert traces_of(ServiceSettings(), SystemClock()) is None
    assert "no traces" in caplog.text


async def test_rows_of_long_ago_that_are_written_again_make_no_spans() -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from service.traces.traces import Traces

    exporter, clock = InMemorySpanExporter(), SystemClock()
    traces = Traces(exporter, clock)
    traces.written(UUID(int=1), clock.now() - timedelta(hours=1), "llm_signals.csv")
    traces.written(UUID(int=2), clock.now() - timedelta(seconds=1), "llm_signals.csv")
    await traces.close()
    assert [span.context.trace_id for span in exporter.get_finished_spans() if span.context] == [2]
