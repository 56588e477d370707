"""`tail`: verdicts as the running daemon tells them."""

import argparse
import asyncio

from service.commands.command import Command, Given, add_json
from service.commands.filters import rating_options, up_to
from service.console import Console
from service.ending import until_stopped
from service.signal_lines import Printer
from service.tailing import MOST_LAST, Wanted, tail


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-n", "--last", type=up_to(MOST_LAST), default=10, metavar="N", help="how many of those before; 10 unless given"
    )
    parser.add_argument("--symbol", action="append", default=[], metavar="NAME", help="only of this one; repeatable")
    rating_options(parser)
    add_json(parser, "each as a JSON object on a line")


def _do(given: Given) -> int:
    service = given.settings().service
    wanted = Wanted(frozenset(given.symbol), given.rating_min, given.rating_max)
    printer = Printer(Console(highlight=False), json=given.json)
    return asyncio.run(until_stopped(tail(service, wanted, given.last, printer)))


COMMAND = Command(_do, _options)
