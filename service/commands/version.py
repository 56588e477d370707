"""`version`."""

import sys

import orjson

from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.version import VERSION


def _do(given: Given) -> int:
    if given.json:
        sys.stdout.write(orjson.dumps({"version": VERSION}).decode() + "\n")
        return exit_codes.OK
    sys.stdout.write(f"tradent {VERSION}\n")
    return exit_codes.OK


COMMAND = Command(_do, add_json, has_settings=False)
