"""What a command is made of."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import shtab

from service.logs import set_up_logging
from service.secrets import secrets_of
from service.settings import Settings
from trading.errors import SettingsError


class Given(argparse.Namespace):
    """What stands on the command line, and `parser`, which has read it."""

    def settings(self, log_level: str | None = None) -> Settings:
        """The settings it names; with a level, warnings of what the command uses are logged from then on."""
        try:
            sys.path.append(str(Path.cwd()))  # where a user's own strategies lie
        except FileNotFoundError:
            raise SettingsError(["the working directory has been deleted; change into one that is there"]) from None
        settings = Settings.load(self.config, self.set)
        if log_level is not None:
            set_up_logging(log_level, secrets_of(settings))
        return settings


def no_options(parser: argparse.ArgumentParser) -> None:
    """Nothing beyond what all commands know."""


@dataclass(frozen=True, slots=True)
class Command:
    """`do` returns the exit status; `options` adds to its parser what only this command knows.

    `has_settings` is False for what needs no settings file: it knows no --config and no --set.
    """

    about: str
    do: Callable[[Given], int]
    options: Callable[[argparse.ArgumentParser], None] = no_options
    has_settings: bool = True


def takes_file(argument: argparse.Action) -> None:
    """A shell completes the names of files here."""
    argument.complete = shtab.FILE  # type: ignore[attr-defined]


def add_json(parser: argparse.ArgumentParser, about: str = "the same as JSON, for programs") -> None:
    """--json, as every command that prints something has it."""
    parser.add_argument("--json", action="store_true", help=about)
