"""`signals`: the last signals with their verdicts, or one of them with its calls, from the database."""

import argparse
import asyncio
import re
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from database.signal_reads import SignalFilter, signals_named, signals_page, whole_signal
from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.commands.filters import moment, rating_options, up_to
from service.commands.looking import looking
from service.console import Console
from service.settings import Settings
from service.signal_lines import plain, tabbed
from service.signal_page import lines_of
from service.stored import whole_of
from service.view_table import table
from trading.errors import TradentError

MOST = 10_000
SIDES = ("long", "short", "exit")
STATUSES = ("pending", "processing", "completed", "failed", "expired", "skipped")
DECISIONS = ("allow", "deny", "review")
_ID = re.compile(r"(?:sig-)?([0-9a-f]{4,8}|[0-9a-f]{8}-[0-9a-f-]{0,27})")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("signal", nargs="?", type=_id, metavar="ID", help="only this one, with its calls")
    parser.add_argument("-n", "--limit", type=up_to(MOST, 1), default=20, metavar="N", help="how many; 20 unless given")
    parser.add_argument("--symbol", metavar="NAME", help="only of this one")
    parser.add_argument("--timeframe", metavar="1m", help="only on bars of this length")
    parser.add_argument("--strategy", metavar="NAME", help="only of this rule, as signals name it")
    parser.add_argument("--side", choices=SIDES, help="only of this side")
    parser.add_argument("--status", choices=STATUSES, help="only where the work stands so")
    rating_options(parser)
    parser.add_argument("--decision", choices=DECISIONS, help="only where policy decided so")
    parser.add_argument("--since", type=moment, metavar="TIME", help="closed from then on: a time, or 90m, 24h, 7d ago")
    parser.add_argument("--until", type=moment, metavar="TIME", help="closed before then")
    parser.add_argument("--prompts", action="store_true", help="with ID: what was sent to the models, too")
    add_json(parser)


def _do(given: Given) -> int:
    settings = given.settings("WARNING")
    if given.signal is not None:
        return _show_one(asyncio.run(_one(settings, given.signal)), given)
    return _show_many(asyncio.run(_many(settings, given)), as_json=given.json)


async def _many(settings: Settings, given: Given) -> list[dict[str, Any]]:
    async with looking(settings) as connection:
        wanted = SignalFilter(
            given.symbol, given.timeframe, given.strategy, given.side, given.status,
            given.rating_min, given.rating_max, given.decision, given.since, given.until,
        )  # fmt: skip
        found = await signals_page(connection, wanted, None, given.limit)
    items: list[dict[str, Any]] = orjson.loads(found.items)
    return items


async def _one(settings: Settings, beginning: str) -> dict[str, Any]:
    async with looking(settings) as connection:
        named = await signals_named(connection, beginning, 2)
        if len(named) > 1:
            raise TradentError(f"several signals begin with {beginning}; give more of the id")
        whole = await whole_signal(connection, named[0]) if named else None
    if whole is None:
        raise TradentError(f"there is no signal {beginning}; `tradent signals` lists those that are there")
    return plain(whole_of(whole))


def _show_one(whole: dict[str, Any], given: Given) -> int:
    if given.json:
        sys.stdout.write(orjson.dumps(whole).decode() + "\n")
        return exit_codes.OK
    console = Console(highlight=False)
    for line in lines_of(whole, console.width if console.is_terminal else None, prompts=given.prompts):
        console.print(line, soft_wrap=True)
    return exit_codes.OK


def _show_many(items: list[dict[str, Any]], *, as_json: bool) -> int:
    console = Console(highlight=False)
    if as_json:
        sys.stdout.write(orjson.dumps({"signals": items}).decode() + "\n")
    elif not console.is_terminal:
        sys.stdout.writelines(f"{tabbed(item)}\n" for item in items)
    elif not items:
        console.print("no signal is as asked for")
    else:
        vitals = {"recent": items, "now": datetime.now(UTC).isoformat()}
        for line in table(vitals, console.width, len(items) + 1, with_id=True):
            console.print(line, soft_wrap=True)
    return exit_codes.OK


def _id(text: str) -> str:
    if (found := _ID.fullmatch(text.lower())) is None:
        raise argparse.ArgumentTypeError("expected a signal's id, or at least four digits of its beginning")
    return found[1]


COMMAND = Command(_do, _options)
