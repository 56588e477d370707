"""Makes Prometheus' families of the daemon's own counters, when somebody asks and not before."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from llm_integration.histogram import Histogram
from service.metrics.metric import Metric, Sample
from service.metrics.table import all_metrics

if TYPE_CHECKING:
    from service.daemon import Daemon


def registry_of(daemon: Daemon) -> CollectorRegistry:
    """A registry of this daemon alone."""
    registry = CollectorRegistry()
    registry.register(DaemonCollector(daemon))
    return registry


class DaemonCollector(Collector):
    """Reads the daemon; keeps nothing."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._metrics = all_metrics()

    def describe(self) -> list[Family]:
        """Nothing: a registry would read the daemon to learn the names."""
        return []

    def collect(self) -> Iterator[Family]:
        """Every metric that has something to tell."""
        for metric in self._metrics:
            samples = list(metric.read(self._daemon))
            if samples:
                yield _family(metric, samples)


def _family(metric: Metric, samples: list[Sample]) -> Family:
    if metric.kind == "histogram":
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in samples:
            if isinstance(value, Histogram):
                buckets = [
                    ("+Inf" if bound == inf else repr(float(bound)), count) for bound, count in value.cumulative()
                ]
                family.add_metric(labels, buckets, value.total)
        return family
    plain: CounterMetricFamily | GaugeMetricFamily = (
        CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        if metric.kind == "counter"
        else GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    )
    for labels, value in samples:
        if not isinstance(value, Histogram):
            plain.add_metric(labels, value)
    return plain
