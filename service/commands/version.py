"""`version`."""

import sys

from service import exit_codes
from service.commands.command import Command, Given
from service.version import VERSION


def _do(given: Given) -> int:
    sys.stdout.write(f"tradent {VERSION}\n")
    return exit_codes.OK


COMMAND = Command("print the version", _do, has_settings=False)
