"""How `check --backends` shows what it found: a table on a terminal, lines elsewhere, or JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from rich.table import Table
from rich.text import Text

from service.check_backends import Measured, Plan
from service.console import Console
from service.safe_text import visible

Found = tuple[Plan, Measured | None]
MODES = {"schema": "schema", "json": "JSON", "line": "ACTION | confidence | reason"}
_NOT_KNOWN = "not known"
_HEADINGS = ("model", "fits", "p50", "p95", "tokens/s", "long prompt", "USD/1000", "ask for")


def report(found: Sequence[Found], *, as_json: bool) -> None:
    """Show it on the standard output."""
    if as_json:
        sys.stdout.write(json.dumps([_plain(plan, measured) for plan, measured in found], indent=2) + "\n")
        return
    if sys.stdout.isatty():
        Console().print(table(found))
    for plan, measured in found:
        sys.stdout.write("\n".join(lines(plan, measured)) + "\n")


def lines(plan: Plan, measured: Measured | None) -> list[str]:
    """One model in words: whether it can be used, and what was measured."""
    told = [f"{'ok  ' if plan.health.usable else 'FAIL'}  {plan.model}: {visible(plan.health.detail)}"]
    if measured is None:
        return [*told, f"      {plan.said}"] if plan.health.usable else told
    for one in measured.tried:
        told.append(f"      asked for {MODES[one.mode]}: {one.valid} of {one.asked} replies fit")
        told += [f"        no reply: {visible(error)}" for error in one.errors[:3]]
    if measured.p50_ms is not None and measured.p95_ms is not None:
        speed = _speed(measured.tokens_per_second)
        told.append(f"      latency: p50 {_time(measured.p50_ms)}, p95 {_time(measured.p95_ms)}; tokens/s: {speed}")
        told.append(f"      context: {visible(measured.context_said)}")
        price = _money(measured.usd_per_thousand)
        told.append(f"      a thousand ratings: {price}; this check: {_money(measured.spent_usd)}")
    return [*told, f"      {recommendation(measured)}"]


def recommendation(measured: Measured) -> str:
    """How to ask the model from now on, in words."""
    if measured.recommended is None:
        return "recommended: another model; none of its replies can be used"
    mode = MODES[measured.recommended]
    if measured.good:
        return f"recommended: ask for {mode}"
    return f"recommended: another model; where it must be this one, ask for {mode}: fewer than 9 of 10 replies fit"


def table(found: Sequence[Found]) -> Table:
    """All models side by side."""
    made = Table()
    for heading in _HEADINGS:
        made.add_column(heading, justify="left" if heading in ("model", "ask for", "long prompt") else "right")
    for plan, measured in found:
        made.add_row(*(Text(cell) for cell in _cells(plan, measured)))
    return made


def _cells(plan: Plan, measured: Measured | None) -> tuple[str, ...]:
    if measured is None:
        return (visible(plan.model), "not asked" if plan.health.usable else "cannot be used", *[""] * 6)
    best = max(measured.tried, key=lambda one: one.share)
    return (
        visible(plan.model), f"{best.valid} of {best.asked}", _time(measured.p50_ms), _time(measured.p95_ms),
        _speed(measured.tokens_per_second), measured.context, _money(measured.usd_per_thousand),
        measured.recommended if measured.recommended and measured.good else "another model",
    )  # fmt: skip


def _plain(plan: Plan, measured: Measured | None) -> dict[str, Any]:
    """One model as JSON: figures as numbers, what is not known as null."""
    whole: dict[str, Any] = {
        "model": plan.model, "usable": plan.health.usable, "detail": plan.health.detail, "plan": plan.said,
        "asked": measured is not None,
    }  # fmt: skip
    if measured is not None:
        whole |= {key: float(value) if isinstance(value, Decimal) else value for key, value in asdict(measured).items()}
    return whole


def _time(latency_ms: float | None) -> str:
    if latency_ms is None:
        return _NOT_KNOWN
    return f"{latency_ms:.0f} ms" if latency_ms < 1000 else f"{latency_ms / 1000:.1f} s"


def _speed(tokens_per_second: float | None) -> str:
    return _NOT_KNOWN if tokens_per_second is None else f"{tokens_per_second:.0f}"


def _money(amount: Decimal | None) -> str:
    return _NOT_KNOWN if amount is None else f"${amount:.4f}"
