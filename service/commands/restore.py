"""`restore`: everything in a backup into an empty database."""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

from database.backup import Content, restore
from database.journal_files import SUFFIX
from database.upgrading import Upgrade
from service import exit_codes
from service.commands.backup import address, as_plain, said
from service.commands.command import Command, Given, add_json
from service.progress import progress
from service.settings import Settings
from service.store_room import reach_database
from service.upgrade_words import upgrade_words


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a file that `backup` or pg_dump wrote")
    add_json(parser, "what was in it, and what is left to do, as JSON")


def _do(given: Given) -> int:
    settings = given.settings("WARNING")
    content = asyncio.run(_read(settings, given.file))
    left = list(_left_to_do(settings))
    if given.json:
        sys.stdout.write(orjson.dumps({**as_plain(content), "notes": left}).decode() + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in [f"restored {said(content)}", *left])
    return exit_codes.OK


async def _read(settings: Settings, file: Path) -> Content:
    async with reach_database(settings.database, make=True) as url:
        with progress("restoring", 1.0, "") as told:

            async def on_upgrade(upgrade: Upgrade) -> None:
                told(upgrade.share, upgrade_words(upgrade))

            return await restore(address(url), file, told, on_upgrade)


def _left_to_do(settings: Settings) -> Iterator[str]:
    """What becomes of the files beside the database."""
    yield (
        f"At the next start the CSV files in {settings.llm.csv_output_directory} go on from where they stood at the "
        "backup: rows that were added since are cut off. Keep a copy of them if you want those."
    )
    if _holds_records(settings.database.journal_directory):
        yield (
            f"The journal in {settings.database.journal_directory} holds bars and signals that may not be in the "
            "backup. They are stored at the next start; what the market did between the backup and them is not fetched "
            "any more then. To have it fetched, move the journal away first."
        )


def _holds_records(journal: Path) -> bool:
    return any(segment.stat().st_size for segment in journal.glob(f"*{SUFFIX}"))


COMMAND = Command(_do, _options)
