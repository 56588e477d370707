"""`doctor`: what is wrong and what to do; 1 where anything is wrong."""

import argparse
import asyncio

from service.commands.command import Command, Given, add_json
from service.doctor import examine, examine_without_settings
from service.findings import told
from trading.errors import SettingsError


def _options(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def _do(given: Given) -> int:
    try:
        findings = examine(given.settings("ERROR"))
    except SettingsError as error:
        findings = examine_without_settings(error.mistakes)
    return asyncio.run(told(findings, as_json=given.json, short=True))


COMMAND = Command(_do, _options)
