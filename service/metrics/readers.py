"""Where the metrics are read: each function gives samples of one part of the daemon, none where it has no such part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from llm_integration.calling.limiter import Usage
from llm_integration.calling.metrics import ModelMetrics
from llm_integration.histogram import Histogram
from service.genai import provider_and_model
from service.metrics.metric import Sample
from service.readiness import feed_ages, is_ready, readiness
from service.safe_text import visible
from service.submit_times import BOUNDS_MS
from trading.feeds.base import LiveFeed

if TYPE_CHECKING:
    from service.daemon import Daemon
    from service.trading_side import TradingSide
    from trading.loop import TradingLoop

MOST_STREAMS = 100
OTHER = "other"
SUBMIT_STEP = 12


def one(read: Callable[[Daemon], float | None]) -> Callable[[Daemon], Iterable[Sample]]:
    """The one sample of a metric without labels; None is no sample."""

    def samples(daemon: Daemon) -> Iterator[Sample]:
        value = read(daemon)
        if value is not None:
            yield (), value

    return samples


def of_trading(read: Callable[[TradingSide], float]) -> Callable[[Daemon], Iterable[Sample]]:
    """One sample of the trading side."""
    return one(lambda daemon: None if daemon.trading is None else read(daemon.trading))


def of_loop(read: Callable[[TradingLoop], float]) -> Callable[[Daemon], Iterable[Sample]]:
    """One sample of the trading loop."""

    def value(daemon: Daemon) -> float | None:
        loop = None if daemon.trading is None else daemon.trading.loop
        return None if loop is None else read(loop)

    return one(value)


def judged_bars(daemon: Daemon) -> Iterator[Sample]:
    """Bars by what the guard found."""
    if daemon.trading is not None and daemon.trading.loop is not None:
        for cause, count in daemon.trading.loop.guard.counts.items():
            yield (cause.value,), count


def feed_age(daemon: Daemon) -> Iterator[Sample]:
    """By stream; beyond MOST_STREAMS of them the rest is told by the one that is furthest behind."""
    ages = [((visible(symbol), timeframe), age_s) for (symbol, timeframe), age_s in feed_ages(daemon).items()]
    yield from ages[:MOST_STREAMS]
    if rest := ages[MOST_STREAMS:]:
        yield (OTHER, OTHER), max(age_s for _, age_s in rest)


def feed_connected(daemon: Daemon) -> float | None:
    """Whether a live feed's source answers."""
    feed = None if daemon.trading is None else daemon.trading.feed
    return float(feed.state.connected) if isinstance(feed, LiveFeed) else None


def submit_seconds(daemon: Daemon) -> Iterator[Sample]:
    """How long the loop took to hand bars over; every twelfth of the steps it is kept in."""
    if daemon.trading is None:
        return
    times = daemon.trading.timed.times
    ends = range(SUBMIT_STEP - 1, len(BOUNDS_MS), SUBMIT_STEP)
    bounds = tuple(float(f"{BOUNDS_MS[end] / 1000:.3g}") for end in ends)
    counts = [sum(times.counts[end - SUBMIT_STEP + 1 : end + 1]) for end in ends]
    counts.append(sum(times.counts) - sum(counts))
    yield (), Histogram(bounds, counts, times.total_ms / 1000)


def results(daemon: Daemon) -> Iterator[Sample]:
    """Results by status."""
    stats = daemon.store.get_stats()
    for status in ("completed", "failed", "expired", "skipped"):
        yield (status,), stats[status]


def decisions(daemon: Daemon) -> Iterator[Sample]:
    """What policy made of verdicts."""
    for decision, count in daemon.store.get_stats()["decisions"].items():
        yield (decision,), count


def ratings(daemon: Daemon) -> Iterator[Sample]:
    """Verdicts by rating."""
    for rating, count in daemon.store.get_stats()["rating_distribution"].items():
        yield (str(rating),), count


def queue_tasks(daemon: Daemon) -> Iterator[Sample]:
    """Tasks that are not final, of all processes."""
    for status in ("pending", "processing"):
        if daemon.rating is not None:
            yield (status,), daemon.unfinished.get(status, 0)


def of_limits(read: Callable[[Usage], float]) -> Callable[[Daemon], Iterable[Sample]]:
    """A sample for each backend's quota."""

    def samples(daemon: Daemon) -> Iterator[Sample]:
        if daemon.rating is not None:
            for name, usage in daemon.rating.caller.limits().items():
                yield (name,), read(usage)

    return samples


def _models(daemon: Daemon) -> dict[tuple[str, str], list[ModelMetrics]]:
    """What calls came to, by provider and model; models that no setting names are together."""
    found: dict[tuple[str, str], list[ModelMetrics]] = {}
    if daemon.rating is None:
        return found
    named = {*daemon.rating.caller.models, *daemon.settings.llm.all_models}
    for model, metrics in daemon.rating.caller.metrics.models().items():
        provider, name = provider_and_model(model)
        key = (provider, visible(name)) if model in named else (OTHER, OTHER)
        found.setdefault(key, []).append(metrics)
    return found


def call_durations(daemon: Daemon) -> Iterator[Sample]:
    """Calls by model and error."""
    for (provider, model), several in _models(daemon).items():
        yield from _together("chat", provider, model, by_key=[metrics.durations_s for metrics in several])


def call_tokens(daemon: Daemon) -> Iterator[Sample]:
    """Tokens of calls that told them."""
    for (provider, model), several in _models(daemon).items():
        yield from _together("chat", provider, model, by_key=[metrics.tokens for metrics in several])


def model_costs(daemon: Daemon) -> Iterator[Sample]:
    """US dollars by model."""
    for labels, several in _models(daemon).items():
        yield labels, float(sum(metrics.cost_usd for metrics in several))


def _together(*labels: str, by_key: list[dict[str, Histogram]]) -> Iterator[Sample]:
    """Histograms added up by their keys, which are the last label."""
    for key in sorted({key for one in by_key for key in one}):
        same = [one[key] for one in by_key if key in one]
        if len(same) == 1:
            yield (*labels, key), same[0]
            continue
        added = Histogram(same[0].bounds)
        for histogram in same:
            added.add(histogram)
        yield (*labels, key), added


def checks(daemon: Daemon) -> Iterator[Sample]:
    """Each check of /readyz."""
    for check in readiness(daemon):
        yield (check.check,), float(check.ok)


def ready(daemon: Daemon) -> float:
    """Whether all of them are passed."""
    return float(is_ready(readiness(daemon)))
