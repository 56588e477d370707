"""`check`: what works and what does not; 1 when something does not."""

import argparse
import asyncio

from service.check import check_backends, check_everything
from service.commands.command import Command, Given, add_json
from service.findings import told
from service.http.access import Access
from trading.clock import SystemClock


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backends", action="store_true", help="ask the models that cost nothing, and measure them")
    parser.add_argument("--paid", action="store_true", help="with --backends: ask those that cost money, too")
    add_json(parser, "what was found as JSON")
    parser.set_defaults(refuse=parser.error)


def _do(given: Given) -> int:
    if given.paid and not given.backends:
        given.refuse("--paid belongs to check --backends")
    settings = given.settings("ERROR")
    Access.of(settings.service, SystemClock())
    if given.backends:
        return asyncio.run(check_backends(settings, paid=given.paid, as_json=given.json))
    return asyncio.run(told(check_everything(settings), as_json=given.json))


COMMAND = Command(_do, _options)
