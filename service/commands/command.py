"""What a command is made of."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from service.logs import set_up_logging
from trading.errors import SettingsError

if TYPE_CHECKING:
    from service.settings import Settings


class Given(argparse.Namespace):
    """What stands on the command line; `whole_parser()` makes the parser of all commands."""

    def settings(self, log_level: str | None = None) -> Settings:
        """The settings it names; with a level, warnings of what the command uses are logged from then on."""
        from service.settings import Settings  # noqa: PLC0415 - takes ten times as long as a --help

        try:
            sys.path.append(str(Path.cwd()))  # where a user's own strategies lie
        except FileNotFoundError:
            raise SettingsError(["the working directory has been deleted; change into one that is there"]) from None
        settings = Settings.load(self.config, self.set)
        if log_level is not None:
            from service.secrets import secrets_of  # noqa: PLC0415 - loads what reaches models and the database

            set_up_logging(log_level, secrets_of(settings))
        return settings


def no_options(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond what all commands know."""


@dataclass(frozen=True, slots=True)
class Command:
    """`do` returns the exit status; `options` adds to its parser what only this command knows.

    `has_settings` is False for what needs no settings file: it knows no --config and no --set.
    """

    do: Callable[[Given], int]
    options: Callable[[argparse.ArgumentParser], None] = no_options
    has_settings: bool = True


def add_json(parser: argparse.ArgumentParser, about: str = "the same as JSON, for programs") -> None:
    """--json, as every command that prints something has it."""
    parser.add_argument("--json", action="store_true", help=about)
