"""Metric: one line of the table of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llm_integration.histogram import Histogram

if TYPE_CHECKING:
    from service.daemon import Daemon

Value = float | Histogram
Sample = tuple[tuple[str, ...], Value]


@dataclass(frozen=True, slots=True)
class Metric:
    """What it is called and means, and how it is read: samples are (values of `labels`, value).

    A counter's name ends in `_total`. Where there is nothing to read there are no samples; labels are bounded.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    read: Callable[[Daemon], Iterable[Sample]]
    labels: tuple[str, ...] = ()


Read = Callable[["Daemon"], Iterable[Sample]]


def gauge(name: str, help: str, read: Read, labels: Iterable[str] = ()) -> Metric:
    """What is so now."""
    return Metric("gauge", name, help, read, tuple(labels))


def counter(name: str, help: str, read: Read, labels: Iterable[str] = ()) -> Metric:
    """What has happened since the start."""
    return Metric("counter", name, help, read, tuple(labels))


def histogram(name: str, help: str, read: Read, labels: Iterable[str] = ()) -> Metric:
    """How large or long it was, since the start."""
    return Metric("histogram", name, help, read, tuple(labels))
