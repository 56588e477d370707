"""The command line: which commands there are, what they were given, and how they end."""

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from service import exit_codes
from service.commands import (
    audit,
    backup,
    check,
    completion,
    control,
    costs,
    doctor,
    export,
    install_service,
    restore,
    run,
    signals,
    sql,
    status,
    tail,
    version,
)
from service.commands.command import Command, Given, takes_file
from service.logs import error_mark
from service.safe_text import escaped
from service.streams import silence
from service.version import VERSION
from trading.errors import BackupFileError, FeedError, SettingsError, StorageError, TradentError

COMMANDS: dict[str, Command] = {
    "run": run.COMMAND,
    "check": check.COMMAND,
    "doctor": doctor.COMMAND,
    "status": status.COMMAND,
    "tail": tail.COMMAND,
    "signals": signals.COMMAND,
    "costs": costs.COMMAND,
    "export": export.COMMAND,
    "sql": sql.COMMAND,
    **control.COMMANDS,
    "audit": audit.COMMAND,
    "backup": backup.COMMAND,
    "restore": restore.COMMAND,
    "install-service": install_service.COMMAND,
    "completion": completion.COMMAND,
    "version": version.COMMAND,
}
STATUSES: dict[type[TradentError], int] = {  # the first that fits
    BackupFileError: exit_codes.FAILED,
    SettingsError: exit_codes.SETTINGS,
    FeedError: exit_codes.NO_INPUT,
    StorageError: exit_codes.UNAVAILABLE,
}


def run_command(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the exit status: those of `service.exit_codes`, 2 for wrong usage."""
    parser = command_line()
    try:
        try:
            given = parser.parse_args(_with_default(arguments), namespace=Given(parser=parser))
        finally:
            sys.stdout.flush()  # of --help, after which argparse ends the process
        status = COMMANDS[given.command].do(given)
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


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands."""
    shared = argparse.ArgumentParser(add_help=False)
    takes_file(
        shared.add_argument(
            "--config",
            type=Path,
            default=Path("config.json"),
            metavar="FILE",
            help="the settings file; config.json unless given",
        )
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
    for name, command in COMMANDS.items():
        about = f"{command.about[:1].upper()}{command.about[1:]}."
        parents = [shared] if command.has_settings else []
        command.options(all_commands.add_parser(name, parents=parents, help=command.about, description=about))
    return parser


def _with_default(arguments: Sequence[str]) -> list[str]:
    """`run` when no command is named first."""
    own = not arguments or (arguments[0].startswith("-") and arguments[0] not in ("--version", "-h", "--help"))
    return ["run", *arguments] if own else list(arguments)
