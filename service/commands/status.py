"""`status`: how the running daemon does; 1 when none answers."""

import argparse
import asyncio
import sys

from service import exit_codes, view
from service.commands.command import Command, Given, add_json
from service.status import fetch_status


def _options(parser: argparse.ArgumentParser) -> None:
    add_json(parser, "the whole answer as JSON")


def _do(given: Given) -> int:
    service = given.settings().service
    answer = asyncio.run(fetch_status(service.host, service.port))
    if given.json:
        sys.stdout.write(answer.decode() + "\n")
    else:
        view.show_status(answer)
    return exit_codes.OK


COMMAND = Command("ask the running daemon how it does", _do, _options)
