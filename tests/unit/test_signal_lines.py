"""Signals as lines: what a person or a program reads is the same wherever it came from."""

import io
from typing import Any

from service.console import Console
from service.signal_lines import Printer, tabbed
from tests.unit.test_view import rating


def shown(*close_times: str) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    printer = Printer(console, json=False)
    for close_time in close_times:
        printer.show(rating(close_time=close_time), "2026-11-20T16:09:08+00:00")
    written: Any = console.file
    return written.getvalue().splitlines()


def test_a_time_of_another_year_is_told_whole() -> None:
    """As of a simulated market, or a replay; the heading comes again where the columns move, once."""
    lines = shown("2026-11-20T16:00:00+00:00", "2025-01-02T00:03:00+00:00", "2026-11-20T16:00:00+00:00")
    heads = [place for place, line in enumerate(lines) if line.startswith("time")]
    assert heads == [0, 2]
    assert lines[3].startswith("2025-01-02 00:03 SIMBTC")
    assert all(len(line) <= 100 for line in lines)


def test_a_cost_of_nothing_is_told_alike_by_the_stream_and_by_the_database() -> None:
    for nothing in (0, 0.0):
        assert tabbed(rating(cost_usd=nothing)).split("\t")[12] == "0"
    assert tabbed(rating(cost_usd=0.25)).split("\t")[12] == "0.25"
