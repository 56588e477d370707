"""What PromQL expressions name: metrics and labels, found by their form."""

import re
from collections.abc import Iterator

from service.metrics.table import all_metrics

OF_TARGETS = {"instance", "job", "le"}
_SELECTOR = re.compile(r"\b(tradent_\w+|gen_ai_client_\w+)(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_LABEL = re.compile(r"(\w+)\s*[=!]")


def unknown(expression: str) -> list[str]:
    """The names in an expression that /metrics does not tell: metrics, and labels that a metric does not have."""
    known = {
        name: {*metric.labels, *OF_TARGETS} for metric in all_metrics() for name in _series_of(metric.name, metric.kind)
    }
    grouped = [label.strip() for group in _GROUPED.findall(expression) for label in group.split(",")]
    selectors = _SELECTOR.findall(_GROUPED.sub("", expression))
    wrong = [name for name, _ in selectors if name not in known]
    found = [(name, selector) for name, selector in selectors if name in known]
    for name, selector in found:
        wrong += [f"{name}{{{label}}}" for label in _LABEL.findall(selector) if label not in known[name]]
    labels = {*OF_TARGETS, *(label for name, _ in found for label in known[name])}
    return wrong + [f"by ({label})" for label in grouped if label not in labels]


def _series_of(name: str, kind: str) -> Iterator[str]:
    if kind == "histogram":
        yield from (f"{name}_{part}" for part in ("bucket", "sum", "count"))
    else:
        yield name
