"""Lines of the form `ACTION | confidence | reason`."""

import re

from llm_integration.parsing.actions import action_of
from llm_integration.parsing.fields import storable
from llm_integration.parsing.numbers import confidence_of
from llm_integration.parsing.stated import Stated, the_one

_BAR = re.compile("[|｜]")
_DRESS = " \t*_`>-"


def piped(text: str) -> Stated | None:
    """What the piped lines state; None where there is none. Raises Refused when they differ or hold a bad number."""
    return the_one(reading for line in text.splitlines() if (reading := _reading(line)) is not None)


def _reading(line: str) -> Stated | None:
    if len(line) > 4000 or ("|" not in line and "｜" not in line):
        return None
    cells = [cell.strip(_DRESS) for cell in _BAR.split(line.strip(" \t>|｜"), maxsplit=2)]
    if len(cells) != 3 or not any(character.isdigit() for character in cells[1]):
        return None
    action = action_of(cells[0])
    if action is None:
        return None
    return Stated(action, confidence=confidence_of(cells[1]), rationale=storable(cells[2].rstrip("|｜ ")))
