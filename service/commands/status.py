"""`status`: how the running daemon does; 1 when none answers."""

import argparse
import asyncio
import sys

from service import exit_codes, view
from service.commands.command import Command, Given, add_json
from service.console import Console
from service.ending import until_stopped
from service.status import fetch_status
from service.watching import watch_status

LEAST_S, MOST_S = 0.2, 3600.0


def _options(parser: argparse.ArgumentParser) -> None:
    add_json(parser, "the whole answer as JSON; with --watch an object a line")
    parser.add_argument("--watch", action="store_true", help="ask again and again, until Ctrl-C")
    parser.add_argument(
        "--every", type=_seconds, default=1.0, metavar="SECONDS", help="with --watch: how often; 1 unless given"
    )


def _do(given: Given) -> int:
    service = given.settings().service
    if given.watch:
        console = Console(highlight=False)
        return asyncio.run(
            until_stopped(watch_status(service, every_s=given.every, as_json=given.json, console=console))
        )
    answer = asyncio.run(fetch_status(service.host, service.port))
    if given.json:
        sys.stdout.write(answer.decode() + "\n")
    else:
        view.show_status(answer)
    return exit_codes.OK


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not LEAST_S <= seconds <= MOST_S:
        raise argparse.ArgumentTypeError(f"expected {LEAST_S} to {MOST_S:.0f} seconds")
    return seconds


COMMAND = Command(_do, _options)
