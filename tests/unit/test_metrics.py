"""How each model does: calls, failures by kind, latency, tokens and cost."""

from decimal import Decimal

from llm_integration.calling.metrics import Metrics
from tests.unit.test_audit_file import a_call


def test_each_model_has_figures_of_its_own() -> None:
    metrics = Metrics()
    for model in ("a", "b", "a"):
        metrics.observe(a_call(model=model))
    summary = metrics.summary()
    assert {model: figures["calls"] for model, figures in summary.items()} == {"openrouter/a": 2, "openrouter/b": 1}


def test_failures_are_told_by_kind_and_lower_the_share() -> None:
    metrics = Metrics()
    for error_class in (None, "TimedOut", "TimedOut", "RateLimited"):
        metrics.observe(a_call(error_class=error_class))
    figures = metrics.summary()["openrouter/m"]
    assert figures["failures"] == {"TimedOut": 2, "RateLimited": 1}
    assert figures["succeeded_share"] == 0.25


def test_tokens_and_cost_are_those_that_were_reported() -> None:
    metrics = Metrics()
    metrics.observe(a_call(prompt_tokens=100, completion_tokens=7, cost_usd=Decimal("0.25")))
    metrics.observe(a_call(prompt_tokens=None, completion_tokens=None, cost_usd=None))
    figures = metrics.summary()["openrouter/m"]
    assert (figures["prompt_tokens"], figures["completion_tokens"], figures["cost_usd"]) == (100, 7, 0.25)
    assert figures["calls_of_unknown_cost"] == 1


def test_latencies_are_those_of_calls_that_were_answered() -> None:
    metrics = Metrics()
    for latency_ms in range(1, 102):
        metrics.observe(a_call(latency_ms=float(latency_ms)))
    metrics.observe(a_call(latency_ms=60_000.0, error_class="TimedOut"))
    figures = metrics.summary()["openrouter/m"]
    assert (figures["latency_p50_ms"], figures["latency_p95_ms"]) == (51.0, 96.0)


def test_one_call_has_its_own_latency_and_none_has_none() -> None:
    metrics = Metrics()
    metrics.observe(a_call(error_class="TimedOut"))
    assert metrics.summary()["openrouter/m"]["latency_p50_ms"] is None
    metrics.observe(a_call(latency_ms=5.0))
    assert metrics.summary()["openrouter/m"]["latency_p95_ms"] == 5.0
