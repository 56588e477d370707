"""`completion`: what a shell needs to complete our commands and options."""

import argparse
import sys
from pathlib import Path

import shtab

from service import exit_codes
from service.commands.command import Command, Given

SHELLS = ("bash", "zsh", "tcsh", "fish")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=SHELLS, help='the shell that shall read it; in bash by eval "$(tradent completion bash)"'
    )


def _do(given: Given) -> int:
    parser = given.whole_parser()
    _say_where_files_go(parser)
    sys.stdout.write(shtab.complete(parser, shell=given.shell).rstrip() + "\n")
    return exit_codes.OK


def _say_where_files_go(parser: argparse.ArgumentParser) -> None:
    """A shell completes the names of files where an argument is one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _say_where_files_go(command)
        elif action.type is Path:
            action.complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE  # type: ignore[attr-defined]


COMMAND = Command(_do, _options, has_settings=False)
