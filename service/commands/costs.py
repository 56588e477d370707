"""`costs`: what calls to models cost by day and by model, against the budget, from the database."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from database.summaries import budgets_now, costs_since
from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.commands.filters import up_to
from service.commands.looking import looking
from service.console import Console
from service.cost_lines import lines_of
from service.settings import Settings
from service.signal_lines import as_json, plain
from service.stored import costs_of

MOST_DAYS = 366


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=up_to(MOST_DAYS, 1), default=30, metavar="N", help="UTC days; 30 unless given")
    add_json(parser)


def _do(given: Given) -> int:
    costs = asyncio.run(_costs(given.settings("WARNING"), given.days))
    if given.json:
        sys.stdout.write(f"{as_json(costs)}\n")
        return exit_codes.OK
    console = Console(highlight=False)
    for line in lines_of(costs, console.width if console.is_terminal else None):
        console.print(line, soft_wrap=True)
    return exit_codes.OK


async def _costs(settings: Settings, days: int) -> dict[str, Any]:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    async with looking(settings) as connection:
        rows = await costs_since(connection, today - timedelta(days=days - 1))
        counted = await budgets_now(connection)
    limits = settings.llm.budget
    budgets = [
        {"kind": kind, "limit_usd": float(limit), "counted_usd": counted.get(kind, 0.0)}
        for kind, limit in (("day", limits.daily_usd), ("month", limits.monthly_usd))
        if limit is not None
    ]
    return plain(costs_of(rows, today.date(), limits.daily_usd) | {"budgets": budgets})


COMMAND = Command(_do, _options)
