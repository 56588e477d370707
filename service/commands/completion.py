"""`completion`: what a shell needs to complete our commands and options."""

import argparse
import sys

import shtab

from service import exit_codes
from service.commands.command import Command, Given

SHELLS = ("bash", "zsh", "tcsh", "fish")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=SHELLS, help='the shell that shall read it; in bash by eval "$(tradent completion bash)"'
    )


def _do(given: Given) -> int:
    sys.stdout.write(shtab.complete(given.parser, shell=given.shell).rstrip() + "\n")
    return exit_codes.OK


COMMAND = Command("print what makes a shell complete commands and options", _do, _options, has_settings=False)
