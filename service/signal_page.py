"""One signal with all that belongs to it, as text: what it is, its verdict, what the market did, each call about it."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from service.view_parts import BAD, DECISION_STYLE, DIM, LABEL, RATING_STYLE, WARN
from service.view_words import number, part, price, rows, said, usd

INDENT = "  "


def lines_of(whole: dict[str, Any], width: int | None, *, prompts: bool) -> Iterator[Text]:
    """The lines of a SignalDetail, broken at `width` where there is one; with `prompts` what was sent, too."""
    yield Text(said(whole, "signal"), "bold")
    yield Text(
        f"{said(whole, 'symbol')} {said(whole, 'timeframe')}  {said(whole, 'strategy')}  {said(whole, 'side')}  "
        f"strength {number(whole, 'strength'):.2f}  price {price(whole.get('price'))}"
    )
    yield Text(
        f"closed {_time(whole, 'close_time')}, bars of {said(whole, 'source')}, found by {said(whole, 'origin')}"
    )
    yield from _broken("", _indicators(whole), width, DIM)
    yield Text()
    yield _verdict(whole)
    for name, style in (("rationale", ""), ("abstention", WARN), ("error", BAD)):
        yield from _broken("" if name == "rationale" else f"{name}: ", said(whole, name), width, style)
    yield from _decision(whole, width)
    yield from _broken("", _cost(whole), width, DIM)
    yield from _outcome(rows(part(whole, "outcome"), "horizons"))
    calls = rows(whole, "calls")
    if not calls:
        yield Text()
        yield Text("no call was made about it, or calls of its age are deleted", DIM)
    for place, call in enumerate(calls, start=1):
        yield Text()
        yield from _call(call, f"call {place} of {len(calls)}", width, prompts=prompts)


def _verdict(whole: dict[str, Any]) -> Text:
    line = Text(said(whole, "status") or "no work is owed to it")
    rating = whole.get("rating")
    if isinstance(rating, int):
        line.append("  ").append(f"{rating} {'★' * rating}{'☆' * (5 - rating)}", RATING_STYLE.get(rating, ""))
    if isinstance(whole.get("confidence"), int | float):
        line.append(f"  confidence {number(whole, 'confidence'):.0%}")
    line.append(f"  {said(whole, 'action')}" if said(whole, "action") else "")
    return line


def _decision(whole: dict[str, Any], width: int | None) -> Iterator[Text]:
    decision = said(whole, "decision")
    if decision:
        reasons = "; ".join(said({"": reason}, "") for reason in whole.get("decision_reasons") or ())
        yield from _broken(f"{decision}: ", reasons, width, DECISION_STYLE.get(decision, ""))


def _cost(whole: dict[str, Any]) -> str:
    if not whole.get("finished_at"):
        return "not final yet"
    model = said(whole, "model")
    by = f"by {model}{', not the first choice' if whole.get('fallback') else ''}, " if model else ""
    took = f"{number(whole, 'processing_ms'):,.0f} ms"
    return f"{by}{_time(whole, 'finished_at')}, took {took}, cost {usd(whole.get('cost_usd'), 0)}"


def _outcome(horizons: Sequence[dict[str, Any]]) -> Iterator[Text]:
    """What the market did in the bars after it: to the last one's close, and the best and worst in its direction."""
    yield Text()
    if not horizons:
        yield Text("no bar of its market has been stored since", DIM)
        return
    heads = ("bars", "market", "best", "worst", "close", "until (UTC)")
    cells = [heads, *(_horizon(each) for each in horizons)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for place, row in enumerate(cells):
        line = "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        yield Text(line, LABEL if place == 0 else "")


def _horizon(each: dict[str, Any]) -> tuple[str, ...]:
    fractions = (each.get(name) for name in ("forward_return", "mfe", "mae"))
    until = _time(each, "until").removesuffix(" UTC")
    return (said(each, "bars"), *map(_percent, fractions), price(each.get("close")), until)


def _percent(fraction: Any) -> str:
    return f"{fraction:+.2%}" if isinstance(fraction, int | float) else "-"


def _indicators(whole: dict[str, Any]) -> str:
    known = part(part(whole, "snapshot"), "indicators")
    return "  ".join(f"{said({'': name}, '')} {price(value)}" for name, value in known.items() if value is not None)


def _call(call: dict[str, Any], place: str, width: int | None, *, prompts: bool) -> Iterator[Text]:
    tokens = f"{said(call, 'tokens_in') or '?'} + {said(call, 'tokens_out') or '?'} tokens"
    facts = f"{said(call, 'model')}  {_time(call, 'requested_at')}  {number(call, 'latency_ms'):,.0f} ms  {tokens}"
    yield Text(f"{place}  ", LABEL).append(f"{facts}  {usd(call.get('cost_usd'), 0)}", "")
    if said(call, "error"):
        yield from _broken("error: ", said(call, "error"), width, BAD)
    for message in rows(call, "prompt") if prompts else ():
        yield Text(f"{INDENT}{said(message, 'role')}:", DIM)
        yield from _paragraphs(message.get("content"), width)
    if call.get("reply") is not None:
        yield Text(f"{INDENT}reply:", DIM)
        yield from _paragraphs(call["reply"], width)


def _paragraphs(text: object, width: int | None) -> Iterator[Text]:
    for line in str(text).splitlines():
        yield from _broken("", said({"": line}, ""), width, "", INDENT * 2) if line.strip() else [Text()]


def _broken(first: str, text: str, width: int | None, style: str, indent: str = INDENT) -> Iterator[Text]:
    if text:
        whole = f"{indent}{first}{text}"
        for line in textwrap.wrap(whole, max(20, width), subsequent_indent=indent) if width else [whole]:
            yield Text(line, style)


def _time(of: dict[str, Any], name: str) -> str:
    return f"{said(of, name)[:19].replace('T', ' ')} UTC"
