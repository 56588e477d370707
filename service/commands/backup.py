"""`backup`: everything in PostgreSQL as one file, beside a running daemon too."""

import argparse
import asyncio
import sys
from pathlib import Path

from database.backup import Address, Content, back_up
from service import exit_codes
from service.commands.command import Command, Given, takes_file
from service.settings import Settings
from service.store_room import reach_database, without_password

NAMES = {"market_data": "bars", "signals": "signals", "llm_analysis_results": "results", "llm_calls": "calls"}


def _options(parser: argparse.ArgumentParser) -> None:
    takes_file(parser.add_argument("file", type=Path, metavar="FILE", help="the file to write; not there yet"))


def _do(given: Given) -> int:
    asyncio.run(_write(given.settings("WARNING"), given.file))
    return exit_codes.OK


async def _write(settings: Settings, file: Path) -> None:
    """Back up, with the embedded server started for it where no daemon runs, and say what is in the file."""
    async with reach_database(settings.database) as url:
        content = await back_up(address(url), file)
    sys.stdout.write(f"{file}: {_mib(file):.1f} MiB; {told(content)}\n")


def _mib(file: Path) -> float:
    return file.stat().st_size / 2**20


def address(url: str) -> Address:
    """The database as pg_dump and pg_restore are told it."""
    shown, password = without_password(url)
    return Address(url, shown, password)


def told(content: Content) -> str:
    """How much of what is in a file."""
    rows = ", ".join(f"{count} {NAMES[table]}" for table, count in content.rows.items())
    return f"{rows}; at migration {content.revision}"


COMMAND = Command("write everything in PostgreSQL to a file, beside a running daemon too", _do, _options)
