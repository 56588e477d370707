"""The command line: `run`, `check`, `status`, `export`, `sql`, `audit`, `backup`, `restore`, `version`."""

import argparse
import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from service import commands
from service.daemon import Role
from service.safe_text import escaped
from service.settings import Settings
from service.streams import silence
from service.version import VERSION
from trading.errors import FeedError, SettingsError, StorageError, TradentError

EXIT_OK, EXIT_FAILED, EXIT_NO_INPUT, EXIT_UNAVAILABLE, EXIT_SETTINGS, EXIT_INTERRUPTED = 0, 1, 66, 69, 78, 130
EXIT_BROKEN_PIPE, EXIT_UNFINISHED = 141, commands.EXIT_UNFINISHED
STATUSES = {SettingsError: EXIT_SETTINGS, FeedError: EXIT_NO_INPUT, StorageError: EXIT_UNAVAILABLE}
COMMANDS: dict[str, tuple[str, Callable[[Settings, argparse.Namespace], int]]] = {
    "run": ("watch the market and rate its signals (the default)", commands.run),
    "check": ("look at settings, database, migrations and models, and say what was found", commands.check),
    "status": ("ask the running daemon how it does", commands.status),
    "export": ("bring the CSV files up to date, compare them with the database, or make them again", commands.export),
    "sql": ("open psql on the database, or print its URL", commands.sql),
    "audit": ("see whether the calls that were kept are those that were made", commands.audit),
    "backup": ("write everything in PostgreSQL to a file, beside a running daemon too", commands.backup),
    "restore": ("bring such a file into an empty database", commands.restore),
}


def run_command(arguments: Sequence[str]) -> int:
    """Do what the command line says, and return the exit status.

    0 done, 1 failed, 2 usage, 66 no bars to be had, 69 no database, 70 a fault of the program, 75 stopped with
    something left that the next start goes on with, 78 wrong settings, 130 interrupted, 141 nobody reads on.
    """
    parser = _parser()
    given = parser.parse_args(_with_default(arguments))
    if given.command == "check" and (given.paid or given.json) and not given.backends:
        parser.error("--paid and --json belong to check --backends")
    try:
        status = _do(given)
        sys.stdout.flush()
    except TradentError as error:
        sys.stderr.write("".join(f"{escaped(line)}\n" for line in str(error).split("\n")))
        return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        silence(sys.stdout)
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        silence(sys.stdout)
        sys.stderr.write(f"the output cannot be written: {error.strerror}\n")
        return EXIT_FAILED
    return status


def _do(given: argparse.Namespace) -> int:
    if given.command == "version":
        sys.stdout.write(f"tradent {VERSION}\n")
        return EXIT_OK
    try:
        sys.path.append(str(Path.cwd()))  # where a user's own strategies lie
    except FileNotFoundError:
        raise SettingsError(["the working directory has been deleted; change into one that is there"]) from None
    return COMMANDS[given.command][1](Settings.load(given.config, given.set), given)


def _with_default(arguments: Sequence[str]) -> list[str]:
    """`run` when no command is named first."""
    own = not arguments or (arguments[0].startswith("-") and arguments[0] not in ("--version", "-h", "--help"))
    return ["run", *arguments] if own else list(arguments)


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, default=Path("config.json"), metavar="FILE", help="the settings file")
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
    commands_of = parser.add_subparsers(dest="command", required=True, metavar="command")
    parsers = {
        name: commands_of.add_parser(name, parents=[shared], help=about, description=f"{about[:1].upper()}{about[1:]}.")
        for name, (about, _) in COMMANDS.items()
    }
    commands_of.add_parser("version", help="print the version")
    run = parsers["run"]
    run.add_argument(
        "--role", choices=[role.value for role in Role], default="all", help="which part of the work to do"
    )
    run.add_argument("--until-idle", action="store_true", help="end once a finite feed is through and all is rated")
    run.add_argument("--no-migrate", action="store_true", help="refuse to start where the database is not up to date")
    run.add_argument("--plain", action="store_true", help="log lines in place of the live view, also in a terminal")
    check = parsers["check"]
    check.add_argument("--backends", action="store_true", help="ask the models that cost nothing, and measure them")
    check.add_argument("--paid", action="store_true", help="with --backends: ask those that cost money, too")
    check.add_argument("--json", action="store_true", help="with --backends: what was found as JSON")
    parsers["status"].add_argument("--json", action="store_true", help="the whole answer as JSON")
    parsers["export"].add_argument(
        "action",
        nargs="?",
        choices=["verify", "rebuild"],
        help="verify: compare every row with the database; rebuild: make the files again from it",
    )
    parsers["audit"].add_argument("action", choices=["verify"], help="follow the chains of hashes over all calls")
    parsers["audit"].add_argument("--file", type=Path, metavar="FILE", help="an audit file in place of the database")
    parsers["backup"].add_argument(
        "file", type=Path, metavar="FILE", help="the file to write; it must not be there yet"
    )
    parsers["restore"].add_argument("file", type=Path, metavar="FILE", help="a file that `backup` or pg_dump wrote")
    parsers["sql"].add_argument("--programs", action="store_true", help="only print where psql and pg_dump lie")
    parsers["sql"].add_argument("--print", action="store_true", help="only print the URL, password included")
    return parser
