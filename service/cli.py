"""The command line: which commands there are, what they were given, and how they end."""

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from service import exit_codes
from service.commands.command import Command, Given
from service.logs import error_mark
from service.safe_text import escaped
from service.streams import silence
from service.version import VERSION
from trading.errors import BackupFileError, FeedError, SettingsError, StorageError, TradentError

COMMANDS = {
    "run": "watch the market and rate its signals (the default)",
    "check": "look at settings, database, migrations and models, and say what was found",
    "doctor": "say what is wrong and what to do, whether the daemon runs or not",
    "status": "ask the running daemon how it does",
    "tail": "show verdicts as they come",
    "signals": "list the last signals with their verdicts, or show one with its calls",
    "costs": "show what models cost, by day and model, against the budget",
    "export": "bring the CSV files up to date, compare them with the database, or make them again",
    "sql": "open psql on the database, or print its URL",
    "pause": "stop rating, in every process on the database, until resume",
    "resume": "rate again",
    "limits": "show or change how many requests and tokens a minute are allowed",
    "model": "show or change which model is asked first",
    "reload": "have the daemon read its settings anew, as SIGHUP does",
    "retry": "rate signals again that failed, expired or were skipped",
    "skip": "end signals as skipped that still wait to be rated",
    "acts": "show what was changed by hand: pauses, limits, models, retries, by whom and why",
    "audit": "see whether the calls that were kept are those that were made",
    "backup": "write everything in PostgreSQL to a file, beside a running daemon too",
    "restore": "bring what `backup` wrote into an empty database",
    "install-service": "write a systemd unit for this installation, and say what stands in it",
    "completion": "print what makes a shell complete commands and options",
    "version": "print the version",
}
"""What each does. A command's file is loaded when it is asked for: all of them are a second of imports."""

_CONTROL = ("pause", "resume", "limits", "model", "reload", "retry", "skip", "acts")
STATUSES: dict[type[TradentError], int] = {  # the first that fits
    BackupFileError: exit_codes.FAILED,
    SettingsError: exit_codes.SETTINGS,
    FeedError: exit_codes.NO_INPUT,
    StorageError: exit_codes.UNAVAILABLE,
}


def run_command(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the exit status: those of `service.exit_codes`, 2 for wrong usage."""
    words = _with_default(arguments)
    try:
        try:
            given = command_line([words[0]]).parse_args(words, namespace=Given(whole_parser=command_line))
        finally:
            sys.stdout.flush()  # of --help, after which argparse ends the process
        status = _command(given.command).do(given)
        sys.stdout.flush()
    except TradentError as error:
        sys.stderr.write("".join(f"{error_mark()}{escaped(line)}\n" for line in str(error).split("\n")))
        return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), exit_codes.FAILED)
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return exit_codes.BROKEN_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        silence(sys.stdout)
        sys.stderr.write(f"the output cannot be written: {error.strerror}\n")
        return exit_codes.FAILED
    return status


def command_line(whole: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """The parser of all commands, with the options of the `whole` ones alone."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config",
        type=Path,
        default=Path("config.json"),
        metavar="FILE",
        help="the settings file; config.json unless given",
    )
    shared.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting, as llm.model=rules/baseline",
    )
    parser = argparse.ArgumentParser(
        prog="tradent", description="Watches markets live, finds signals by rule, has a language model rate each one."
    )
    parser.add_argument("--version", action="version", version=f"tradent {VERSION}")
    all_commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, about in COMMANDS.items():
        command = _command(name) if name in whole else None
        parents = [shared] if command is not None and command.has_settings else []
        described = f"{about[:1].upper()}{about[1:]}."
        options = all_commands.add_parser(name, parents=parents, help=about, description=described)
        if command is not None:
            command.options(options)
    return parser


def _command(name: str) -> Command:
    """The command of that name, loaded with all that it needs."""
    file = importlib.import_module(f"service.commands.{'control' if name in _CONTROL else name.replace('-', '_')}")
    command: Command = file.COMMANDS[name] if name in _CONTROL else file.COMMAND
    return command


def _with_default(arguments: Sequence[str]) -> list[str]:
    """`run` when no command is named first."""
    own = not arguments or (arguments[0].startswith("-") and arguments[0] not in ("--version", "-h", "--help"))
    return ["run", *arguments] if own else list(arguments)
