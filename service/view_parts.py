"""The parts of the live view, each made from the vitals alone: what can be missing is left out, never guessed."""

import math
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from service.view_words import (
    Fact,
    count,
    cut,
    facts_line,
    fitted,
    moment,
    number,
    part,
    price,
    rows,
    said,
    size,
    span,
    usd,
    wrapped,
)

GUTTER = 9
BAD, WARN, GOOD, DIM, LABEL = "bold red", "yellow", "green", "dim", "bold cyan"
BUDGET_LOW = 0.9
PROGRESS_CELLS = 20
_BARS = "▁▂▃▄▅▆▇█"
_GUARD_FINE = frozenset({"good", "already_stored"})
DECISION_STYLE = {"allow": "green", "deny": "red", "review": "yellow"}
RATING_STYLE = {1: "bold red", 2: "red", 3: "", 4: "green", 5: "bold green"}


def header(vitals: dict[str, Any], width: int) -> list[Text]:
    """Who this is, since when, on which market and database."""
    database = said(vitals, "database")
    phase = said(vitals, "phase")
    memory = number(vitals, "memory_mib") or number(vitals, "memory_peak_mib")
    feed = part(vitals, "feed")
    facts = [
        Fact(f"Tradent {said(vitals, 'version')}", "bold"),
        Fact(phase if phase != "running" else "", WARN),
        Fact("SIMULATED MARKET" if feed.get("simulated") else "", "bold black on yellow"),
        Fact(said(vitals, "role"), "", 2),
        Fact(f"up {span(number(vitals, 'uptime_s'))}", "", 1),
        Fact("embedded PostgreSQL" if database == "embedded" else database, "", 3),
        Fact(f"{memory:.0f} MiB" if memory else "", DIM, 4),
        Fact(f"{moment(vitals.get('now'), vitals.get('now'))} UTC" if vitals.get("now") else "", DIM, 5),
    ]
    return [facts_line(facts, width)]


def alerts(vitals: dict[str, Any], width: int) -> list[Text]:
    """What is wrong now, in red."""
    feed, recorder = part(vitals, "feed"), part(vitals, "recorder")
    journal = number(recorder, "journal_bytes")
    wrong = []
    if vitals.get("paused"):
        wrong.append(_paused(part(vitals, "pause"), vitals.get("now")))
    if vitals.get("postgresql_away"):
        wait = f"; bars and signals wait in the journal ({size(journal)})" if recorder else ""
        wrong.append(f"PostgreSQL AWAY: it cannot be reached{wait}")
    if said(part(vitals, "csv"), "trouble"):
        wrong.append(f"CSV STOPPED: {said(part(vitals, 'csv'), 'trouble')}")
    if said(part(feed, "live"), "trouble"):
        wrong.append(f"{said(feed, 'source')}: {said(part(feed, 'live'), 'trouble')}")
    wrong += [f"no bars of {name}: {words}" for name, words in part(part(feed, "live"), "unlisted").items()]
    models = part(vitals, "models")
    if models.get("enabled") and rows(models, "checked") and not models.get("rates"):
        wrong.append("NO MODEL can be used: signals wait")
    for name, what in (
        ("dropped", "bars dropped: the journal was full"),
        ("strategy_errors", "times a strategy failed on a bar: see the log"),
    ):
        if number(feed, name):
            wrong.append(f"{count(number(feed, name))} {what}")
    if number(recorder, "refused"):
        wrong.append(
            f"{count(number(recorder, 'refused'))} records that PostgreSQL refuses were set aside: see the log"
        )
    return [Text(cut(f"! {line}", width), "bold red", no_wrap=True) for line in wrong]


def upgrade(vitals: dict[str, Any], width: int) -> list[Text]:
    """How far the database is brought up to date, while it is; the time left is that of what is under way."""
    told = part(vitals, "upgrade")
    if not told:
        return []
    share, left = told.get("share"), told.get("left_s")
    whole = [
        Fact(f"migration {said(told, 'revision')}", "bold"),
        Fact(f"{number(told, 'done'):.0f} of {number(told, 'total'):.0f} done"),
        Fact(f"{span(number(told, 'so_far_s'))} so far", "", 1),
    ]
    if told.get("by"):
        whole[:2] = [Fact("waits for its migration", "bold"), Fact(f"by {said(told, 'by')}")]
    lines = [facts_line(whole, width - GUTTER)]
    if told.get("work"):
        now = [
            Fact(_gauge(share, PROGRESS_CELLS) if isinstance(share, int | float) else "", "", 2),
            Fact(f"{share:.0%}" if isinstance(share, int | float) else "", "bold"),
            Fact(said(told, "work"), "", 1),
            Fact(f"{span(left)} left of it" if isinstance(left, int | float) else ""),
        ]
        lines.append(facts_line(now, width - GUTTER))
    return _labelled("DATABASE", lines)


def _paused(pause: dict[str, Any], now: Any) -> str:
    by = f" by {said(pause, 'who')}" if said(pause, "who") else ""
    why = f" ({said(pause, 'reason')})" if said(pause, "reason") else ""
    since = f" since {moment(pause.get('since'), now)} UTC" if pause.get("since") else ""
    return f"PAUSED{since}{by}{why}: nothing is rated; `tradent resume` goes on"


def models(vitals: dict[str, Any], width: int) -> list[Text]:
    """Which model rates, and which cannot be used and why."""
    known = part(vitals, "models")
    if not known.get("enabled"):
        if known.get("enabled") is None or vitals.get("phase") == "starting":
            return []
        trader = vitals.get("role") == "trader"
        reason = "not here: workers rate what this trader finds" if trader else "llm.enabled is false: nothing is rated"
        return _labelled("MODELS", [Text(cut(reason, width - GUTTER), WARN if not trader else "")])
    lines: list[Text] = []
    rates = known.get("rates")
    for one in rows(known, "checked"):
        model = said(one, "model")
        if not one.get("usable"):
            refusal = wrapped(f"✗ {model} cannot be used: {said(one, 'detail')}", width - GUTTER, 3)
            lines += [Text(line, BAD) for line in refusal]
        elif one.get("model") == rates:
            first = not lines
            lines.append(Text(cut(f"✓ {model} rates{'' if first else ' instead (↳)'}", width - GUTTER), GOOD))
        else:
            lines.append(Text(cut(f"· {model} stands by", width - GUTTER), DIM))
    return _labelled("MODELS", lines)


def market(vitals: dict[str, Any], width: int, most: int | None = None) -> list[Text]:
    """A line per symbol, several side by side where there is room; at most `most` lines."""
    feed = part(vitals, "feed")
    streams = rows(feed, "streams")
    room = width - GUTTER
    if not feed:
        return []
    fetched = _progress(feed, room)
    if not streams:
        return _labelled("MARKET", [*fetched, Text(cut(f"{said(feed, 'source')}: no bar yet", room), DIM)])
    cells = [_stream(one, vitals.get("now")) for one in streams]
    cell_width = max(cell.cell_len for cell in cells)
    across = max(1, (room + 3) // (cell_width + 3))
    lines = []
    for start in range(0, len(cells), across):
        line = Text()
        for cell in cells[start : start + across]:
            if line:
                line.append("   ")
            line.append_text(cell)
            line.append(" " * (cell_width - cell.cell_len))
        line.truncate(room)
        lines.append(line)
    most = None if most is None else most - len(fetched)
    if most is not None and len(lines) > most:
        hidden = len(cells) - across * max(0, most - 1)
        lines = [*lines[: max(0, most - 1)], Text(f"… and {hidden} more", DIM)][: max(0, most)]
    return _labelled("MARKET", [*fetched, *lines])


def _progress(feed: dict[str, Any], room: int) -> list[Text]:
    """How far a replay or a backfill has come; nothing where there is none, or it is through."""
    progress = part(feed, "progress")
    done, total = number(progress, "done"), number(progress, "total")
    if not total or done >= total:
        return []
    left = progress.get("left_s")
    facts = [
        Fact(_gauge(done / total, PROGRESS_CELLS), "", 2),
        Fact(f"{done / total:.0%} {'backfilled' if part(feed, 'live') else 'replayed'}", "bold"),
        Fact(f"{count(done)} of {count(total)} bars", "", 1),
        Fact(f"{span(left)} left" if isinstance(left, int | float) else ""),
    ]
    return [facts_line(facts, room)]


def _stream(one: dict[str, Any], now: Any) -> Text:
    close, before = number(one, "close"), one.get("close_before")
    moved = close - before if isinstance(before, int | float) else 0.0
    arrow, style = ("▲", GOOD) if moved > 0 else ("▼", "red") if moved < 0 else ("·", DIM)
    cell = Text(fitted(said(one, "symbol"), 10) + " ")
    cell.append(fitted(said(one, "timeframe"), 3, right=True), DIM)
    cell.append(fitted(price(one.get("close")), 12, right=True), "bold").append(f" {arrow} ", style)
    cell.append(moment(one.get("close_time"), now))
    return cell.append(fitted(f"{count(number(one, 'bars'))} bars", 11, right=True), DIM)


def ratings(vitals: dict[str, Any], width: int) -> list[Text]:
    """How many signals there were and how they ended, and the ratings given."""
    signals, feed = part(vitals, "signals"), part(vitals, "feed")
    if not part(vitals, "models").get("enabled"):
        found = f"{count(number(feed, 'signals'))} found" if feed else ""
        return _labelled("SIGNALS", [facts_line([Fact(found)], width - GUTTER)]) if found else []
    abstained = number(signals, "abstained")
    waiting = sum(value for value in part(vitals, "queue").values() if isinstance(value, int | float))
    average = signals.get("average_processing_ms")
    facts = [
        Fact(f"{count(number(feed, 'signals'))} found" if feed else "", "", 5),
        Fact(f"{count(number(signals, 'completed') - abstained)} rated", "bold"),
        Fact(f"{count(waiting)} pending", "bold yellow" if waiting else DIM),
        *(
            Fact(f"{count(number(signals, name))} {name}", style if number(signals, name) else DIM, rank)
            for name, style, rank in (("failed", BAD, 1), ("expired", WARN, 3), ("abstained", WARN, 2))
        ),
        Fact(f"{average:,.0f} ms each" if isinstance(average, int | float) and average >= 1 else "", DIM, 6),
    ]
    given = part(signals, "rating_distribution")
    counts = {rating: number(given, str(rating)) for rating in range(1, 6)}
    most = max(counts.values())
    chart = Text()
    for rating, value in counts.items():
        bar = _BARS[max(0, round(value / most * len(_BARS)) - 1)] if most and value else _BARS[0]
        chart.append(f"{rating} ", DIM).append(bar, RATING_STYLE[rating] if value else DIM).append(
            f" {count(value)}   "
        )
    line = facts_line(facts, width - GUTTER)
    chart.rstrip()
    if line.cell_len + 4 + chart.cell_len <= width - GUTTER:
        return _labelled("SIGNALS", [line.append("    ").append_text(chart)])
    chart.truncate(width - GUTTER)
    return _labelled("SIGNALS", [line]) + _labelled("RATINGS", [chart])


def quota(vitals: dict[str, Any], width: int) -> list[Text]:
    """Requests and tokens of the last minute, of each backend, against what is allowed; and what was spent."""
    known, cost = part(vitals, "models"), part(vitals, "cost")
    if not known.get("enabled"):
        return []
    limits = part(known, "limits")
    name_width = min(14, max(map(len, limits), default=0))
    lines = [_usage(fitted(name, name_width), part(limits, name), width - GUTTER) for name in limits]
    facts = [
        Fact(f"today {usd(cost.get('today_usd'), cost.get('today_unknown'))}", "bold"),
        _budget(cost),
        Fact(f"since start {usd(cost.get('since_start_usd'), cost.get('since_start_unknown'))}", "", 1),
    ]
    return _labelled("QUOTA", lines) + (_labelled("COST", [facts_line(facts, width - GUTTER)]) if cost else [])


def _budget(cost: dict[str, Any]) -> Fact:
    """How much of the day's budget is gone; nothing where none is set, or it is not known."""
    budget, used = cost.get("budget_usd"), cost.get("budget_used_usd")
    if not isinstance(budget, int | float) or not isinstance(used, int | float):
        return Fact("")
    share = used / budget if budget else 1.0
    style = BAD if share >= 1 else WARN if share >= BUDGET_LOW else ""
    return Fact(f"{min(100, math.floor(100 * share))}% of {usd(budget, 0)} a day", style)


def _usage(name: str, used: dict[str, Any], width: int) -> Text:
    facts = [Fact(name)]
    for what, rank in (("requests", 1), ("tokens", 2)):
        value, limit = number(used, what), number(used, f"{what}_limit")
        if limit:
            full = value >= limit
            facts.append(Fact(_gauge(value / limit), WARN if full else GOOD if value else DIM, 5 + rank))
            facts.append(Fact(f"{count(value)}/{count(limit)} {what}", WARN if full else "", rank))
        else:
            facts.append(Fact(f"{count(value)} {what}", "", rank))
    if not number(used, "requests_limit") and not number(used, "tokens_limit"):
        facts.append(Fact("no limit", DIM, 4))
    if number(used, "waiting"):
        facts.append(Fact(f"{count(number(used, 'waiting'))} waiting", WARN, 1))
    if number(used, "blocked_s"):
        facts.append(Fact(f"blocked by the server for {number(used, 'blocked_s'):.0f} s", BAD))
    facts.append(Fact("in the last minute", DIM, 9))
    return facts_line(facts, width)


def _gauge(share: float, cells: int = 8) -> str:
    filled = min(cells, round(share * cells)) if share < 1 else cells
    return "█" * max(filled, 1 if share > 0 else 0) + "░" * (cells - max(filled, 1 if share > 0 else 0))


def kept(vitals: dict[str, Any], width: int) -> list[Text]:
    """What is stored, what waits for the disk or the database, and bars that were no good."""
    recorder, feed, files = part(vitals, "recorder"), part(vitals, "feed"), part(part(vitals, "csv"), "files")
    facts = []
    if recorder:
        journal = number(recorder, "journal_bytes")
        stored = f"{count(number(recorder, 'bars'))} bars, {count(number(recorder, 'signals'))} signals in SQL"
        facts += [Fact(stored), Fact(f"journal {size(journal)}", WARN if vitals.get("postgresql_away") else "", 1)]
    if files:
        csv = " + ".join(count(number(part(files, name), "rows")) for name in files)
        facts.append(Fact(f"CSV {csv} rows", "", 2))
    faults = {name: value for name, value in part(feed, "guard").items() if name not in _GUARD_FINE and value}
    if faults:
        facts.append(Fact(", ".join(f"{value} {name.replace('_', ' ')}" for name, value in faults.items()), WARN, 3))
    if feed.get("ended"):
        facts.append(Fact("the feed has ended", WARN, 0))
    return _labelled("KEPT", [facts_line(facts, width - GUTTER)]) if facts else []


def warnings(lines: Sequence[tuple[int, str]], width: int, most: int) -> list[Text]:
    """The last log lines at WARNING and above, newest last."""
    shown = [(level, line.partition("\n")[0]) for level, line in lines[-most:]] if most > 0 else []
    return [
        Text(cut(line[11:19] + line[20:], width), BAD if level >= 40 else WARN, no_wrap=True) for level, line in shown
    ]


def _labelled(label: str, lines: Sequence[Text]) -> list[Text]:
    """The lines behind a label, which stands before the first."""
    made = []
    for place, line in enumerate(lines):
        whole = Text(no_wrap=True, overflow="crop").append(fitted("" if place else label, GUTTER), LABEL)
        whole.append_text(line)
        made.append(whole)
    return made
