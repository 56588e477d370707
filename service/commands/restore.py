"""`restore`: everything in a backup into an empty database."""

import argparse
import asyncio
import sys
from pathlib import Path

from database.backup import restore
from database.journal_files import SUFFIX
from service import exit_codes
from service.commands.backup import address, told
from service.commands.command import Command, Given, takes_file
from service.settings import Settings
from service.store_room import reach_database


def _options(parser: argparse.ArgumentParser) -> None:
    takes_file(parser.add_argument("file", type=Path, metavar="FILE", help="a file that `backup` or pg_dump wrote"))


def _do(given: Given) -> int:
    asyncio.run(_read(given.settings("WARNING"), given.file))
    return exit_codes.OK


async def _read(settings: Settings, file: Path) -> None:
    """Restore, and say what is left to do with the files beside the database."""
    async with reach_database(settings.database) as url:
        content = await restore(address(url), file)
    sys.stdout.write(f"restored {told(content)}\n")
    sys.stdout.write(
        f"At the next start the CSV files in {settings.llm.csv_output_directory} go on from where they stood at the "
        "backup: rows that were added since are cut off. Keep a copy of them if you want those.\n"
    )
    if _holds_records(settings.database.journal_directory):
        sys.stdout.write(
            f"The journal in {settings.database.journal_directory} holds bars and signals that may not be in the "
            "backup. They are stored at the next start; what the market did between the backup and them is not fetched "
            "any more then. To have it fetched, move the journal away first.\n"
        )


def _holds_records(journal: Path) -> bool:
    return any(segment.stat().st_size for segment in journal.glob(f"*{SUFFIX}"))


COMMAND = Command("bring such a file into an empty database", _do, _options)
