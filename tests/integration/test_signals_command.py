"""`signals` and `costs`: what is stored, shown from a real PostgreSQL as tables, lines and JSON."""

import asyncio
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from service.cli import run_command
from service.commands import signals
from service.cost_lines import lines_of as cost_lines
from service.signal_lines import FIELDS
from service.signal_page import lines_of as page_lines
from service.view_table import table
from tests.integration.test_reads import CLOCK, World, a_call, named, world
from tests.marketdata import START, make_bar, make_signal
from tests.unit.test_view import HOSTILE
from trading.model import Side

__all__ = ["world"]  # the fixture
Ask = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def ask(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Exit status, stdout and stderr of a command on the test's database."""
    for name in list(os.environ):
        if name.startswith(("TRADENT_", "CREDENTIALS_DIRECTORY")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    settings = {"database": {"url": database}, "llm": {"budget": {"daily_usd": 2}}}
    (tmp_path / "settings.json").write_text(json.dumps(settings))

    async def run(*arguments: str) -> tuple[int, str, str]:
        status = await asyncio.to_thread(run_command, [*arguments, "--config", str(tmp_path / "settings.json")])
        out, err = capsys.readouterr()
        return status, out, err

    return run


async def three(world: World) -> list[str]:
    """Three signals, a minute apart, rated 2, 4 and not yet; their ids, the newest first."""
    made = [make_signal(number, symbol) for number, symbol in enumerate(("BTCUSD", "ETHUSD", "BTCUSD"))]
    await world.store(*made)
    await world.rate(made[0], [a_call(made[0])], rating=2, cost_usd=Decimal("0.0021"))
    await world.rate(made[1], rating=4)
    return named(*reversed(made))


async def shown(ask: Ask, *arguments: str) -> list[str]:
    status, out, err = await ask("signals", "--json", *arguments)
    assert (status, err) == (0, "")
    return [item["signal"] for item in json.loads(out)["signals"]]


async def test_the_last_signals_come_first_as_they_are_asked_for(world: World, ask: Ask) -> None:
    newest, middle, oldest = await three(world)
    assert await shown(ask) == [newest, middle, oldest]
    assert await shown(ask, "-n", "1") == [newest]
    assert await shown(ask, "--symbol", "BTCUSD") == [newest, oldest]
    assert await shown(ask, "--rating-min", "3") == [middle]
    assert await shown(ask, "--rating-max", "3") == [oldest]
    assert await shown(ask, "--status", "processing") == [newest]
    second = (START + timedelta(minutes=2)).isoformat()
    assert await shown(ask, "--since", second) == [newest, middle]
    assert await shown(ask, "--until", second) == [oldest]
    assert await shown(ask, "--side", "exit") == []


async def test_elsewhere_than_on_a_terminal_a_signal_is_fields_between_tabs(world: World, ask: Ask) -> None:
    newest, _, oldest = await three(world)
    status, out, _ = await ask("signals")
    lines = [line.split("\t") for line in out.splitlines()]
    assert status == 0
    assert [line[1] for line in lines][::2] == [newest, oldest]
    assert {len(line) for line in lines} == {len(FIELDS) + 2}
    assert lines[2][FIELDS.index("rating")] == "2"
    assert lines[2][-2:] == ["the bars rise", "allow"]


async def test_one_signal_is_shown_with_its_calls(world: World, ask: Ask) -> None:
    """By the beginning of its id, as the table has it; what was sent only where that is asked for."""
    oldest = (await three(world))[2]
    status, out, _ = await ask("signals", oldest[4:12])
    assert status == 0
    for part in (oldest, "2 ★★☆☆☆", "the bars rise", "call 1 of 1", "openrouter/x/y", "700 + 80 tokens", "the reply"):
        assert part in out, part
    assert "rate <b>this</b>" not in out
    assert "rate <b>this</b>" in (await ask("signals", oldest, "--prompts"))[1]
    whole = json.loads((await ask("signals", oldest, "--json"))[1])
    assert whole["calls"][0]["prompt"] == [{"role": "user", "content": "rate <b>this</b>"}]
    assert "indicators" in whole["snapshot"]


async def test_one_signal_is_shown_with_what_the_market_did_next(world: World, ask: Ask) -> None:
    signal = make_signal(0, "BTCUSD", side=Side.SHORT)
    await world.store(signal, bars=[make_bar(0, "BTCUSD")])
    shown = signal.id.hex[:8]
    assert "no bar of its market has been stored since" in (await ask("signals", shown))[1]
    await world.store(bars=[make_bar(n, "BTCUSD", 100.25 + n) for n in range(1, 6)])
    lines = (await ask("signals", shown))[1].splitlines()
    at = next(place for place, line in enumerate(lines) if "until (UTC)" in line)
    assert lines[at - 1 : at + 4] == [
        "",
        "bars  market    best   worst     close          until (UTC)",
        "   1  +1.00%  +0.00%  -2.00%  101.2500  2026-01-05 09:02:00",
        "   5  +4.99%  +0.00%  -5.99%  105.2500  2026-01-05 09:06:00",
        "",
    ]


def test_a_prompt_keeps_its_paragraphs() -> None:
    whole = {"calls": [{"prompt": [{"role": "user", "content": "You rate.\n\nRead the bars."}]}]}
    for width in (None, 80):
        lines = [line.plain for line in page_lines(whole, width, prompts=True)]
        assert lines[-3:] == ["    You rate.", "", "    Read the bars."]


async def test_a_signal_that_is_not_there_is_told(world: World, ask: Ask) -> None:
    assert await ask("signals", "sig-0123") == (
        1, "", "there is no signal 0123; `tradent signals` lists those that are there\n",
    )  # fmt: skip


async def test_a_beginning_that_several_have_is_told(world: World, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two(*_: object) -> list[int]:
        return [1, 2]

    monkeypatch.setattr(signals, "signals_named", two)
    status, _, err = await ask("signals", "abcd")
    assert (status, "several signals begin with abcd" in err) == (1, True)


@pytest.mark.parametrize("arguments", [["xyz!"], ["abc"], ["--since", "yesterday"], ["-n", "0"], ["--side", "up"]])
async def test_what_cannot_be_asked_is_wrong_usage(arguments: list[str], ask: Ask) -> None:
    with pytest.raises(SystemExit) as left:
        await ask("signals", *arguments)
    assert left.value.code == 2


async def test_costs_are_told_by_day_and_model_against_the_budget(world: World, ask: Ask) -> None:
    signal = make_signal()
    await world.store(signal)
    cost, old = Decimal("0.5"), CLOCK.now() - timedelta(days=3)
    calls = [a_call(signal, cost_usd=cost), a_call(signal, cost_usd=None, model="z"), a_call(signal, started_at=old)]
    await world.rate(signal, calls)
    status, out, _ = await ask("costs", "--json")
    told = json.loads(out)
    assert (status, told["today_usd"], told["budget_usd"]) == (0, 0.5, 2.0)
    assert [day["calls"] for day in told["days"]] == [1, 2]
    assert [(model["model"], model["unknown"]) for model in told["by_model"]] == [
        ("openrouter/x/y", 0), ("openrouter/z", 1),
    ]  # fmt: skip
    assert told["budgets"] == [{"kind": "day", "limit_usd": 2.0, "counted_usd": 0.0}]
    assert [day["calls"] for day in json.loads((await ask("costs", "--json", "--days", "2"))[1])["days"]] == [2]
    out = (await ask("costs"))[1]
    assert "today $0.00 of $2.00 count against the budget, 0%; $2.00 are left" in out
    assert [line.split() for line in out.splitlines() if "openrouter/z" in line] == [
        ["openrouter/z", "$0.00", "1", "1"]
    ]


async def test_without_a_database_the_exit_status_says_so(ask: Ask) -> None:
    for command in ("signals", "costs"):
        status, out, err = await ask(command, "--set", "database.url=postgresql://me:hidden-word@127.0.0.1:1/db")
        assert (status, out) == (69, "")
        assert "hidden-word" not in err


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_nothing_hostile_gets_out(width: int) -> None:
    whole: dict[str, Any] = {
        "signal": "sig-1", "symbol": "X", "timeframe": "1m", "strategy": "s", "side": "long", "price": 1.0,
        "status": "completed", "rating": 3, "rationale": HOSTILE * 30, "error": HOSTILE, "finished_at": "2026",
        "calls": [{"model": "a/b", "reply": f"{HOSTILE}\n{HOSTILE * 20}", "prompt": [{"role": "user"}]}],
        "snapshot": {"indicators": {f"ema_{n}": 1.5 for n in range(40)}},
    }  # fmt: skip
    costs = {
        "days": [{"day": "2026-11-20", "usd": 1.5, "calls": 3, "unknown": 1}], "today_usd": 1.5,
        "by_model": [{"model": HOSTILE * 5, "usd": 1.5, "calls": 3, "unknown": 1}],
        "budgets": [{"kind": "month", "limit_usd": 1, "counted_usd": 1.5}],
    }  # fmt: skip
    lines = [*page_lines(whole, width, prompts=True), *cost_lines(costs, width)]
    lines += table({"recent": [whole], "now": ""}, width, 5, with_id=True)
    out = io.StringIO()
    console = Console(file=out, width=width)
    for line in lines:
        assert line.cell_len <= width, line.plain
        console.print(line, soft_wrap=True)
    assert all(line.isprintable() for line in out.getvalue().splitlines())
    assert "150%" in out.getvalue()
