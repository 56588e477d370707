"""What calls cost, as text: the budget, a line per day, a line per model."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from service.view_parts import BAD, DIM, GOOD, WARN
from service.view_words import count, fitted, number, rows, said, usd

LOW, OVER = 0.9, 1.0
_BAR = 20


def lines_of(costs: dict[str, Any], width: int | None) -> Iterator[Text]:
    """The lines of Costs with its budgets, cut at `width` where there is one."""
    for line in _whole(costs):
        if width is not None:
            line.truncate(width, overflow="ellipsis")
        yield line


def _whole(costs: dict[str, Any]) -> Iterator[Text]:
    budgets, days = rows(costs, "budgets"), rows(costs, "days")
    if not budgets:
        yield Text(f"today {usd(number(costs, 'today_usd'), 0)}; no budget is set: llm.budget.daily_usd")
    for budget in budgets:
        yield _budget(budget)
    if not days:
        yield Text("no call was made in these days", DIM)
        return
    yield Text()
    yield from _table("day", days, bars=True)
    yield Text()
    yield from _table("model", rows(costs, "by_model"), bars=False)


def _budget(budget: dict[str, Any]) -> Text:
    limit, counted = number(budget, "limit_usd"), number(budget, "counted_usd")
    share = counted / limit if limit else 1.0
    when = "today" if said(budget, "kind") == "day" else "this month"
    style = BAD if share >= OVER else WARN if share >= LOW else GOOD
    left = usd(max(0.0, limit - counted), 0)
    return Text(f"{when} {usd(counted, 0)} of {usd(limit, 0)} count against the budget, ").append(
        f"{share:.0%}", style
    ).append(f"; {left} are left")  # fmt: skip


def _table(name: str, lines: Sequence[dict[str, Any]], *, bars: bool) -> Iterator[Text]:
    wide = max(len(name), *(len(said(line, name)) for line in lines))
    most = max(number(line, "usd") for line in lines)
    yield Text(f"{fitted(name, wide)}  {'USD':>10}  {'calls':>8}  {'unpriced':>8}", "bold")
    for line in lines:
        shown = Text(fitted(said(line, name), wide))
        shown.append(f"  {usd(number(line, 'usd'), 0):>10}  {count(number(line, 'calls')):>8}")
        unknown = number(line, "unknown")
        shown.append(f"  {count(unknown) if unknown else '':>8}", WARN)
        if bars and most:
            shown.append("  " + "█" * round(_BAR * number(line, "usd") / most), DIM)
        shown.rstrip()
        yield shown
    total = sum(number(line, "usd") for line in lines)
    if len(lines) > 1:
        yield Text(f"{fitted('', wide)}  {usd(total, 0):>10}  {count(sum(number(x, 'calls') for x in lines)):>8}", DIM)
