"""`backup` and `restore`: everything in PostgreSQL as one file, and its way back."""

import sys
from pathlib import Path

from database.backup import Address, Content, back_up, restore
from database.journal_files import SUFFIX
from service.settings import Settings
from service.store_room import reach_database, without_password

NAMES = {"market_data": "bars", "signals": "signals", "llm_analysis_results": "results", "llm_calls": "calls"}


async def write_backup(settings: Settings, file: Path) -> None:
    """Back up beside a running daemon, or with the embedded server started for it, and say what is in the file."""
    async with reach_database(settings.database) as url:
        content = await back_up(_address(url), file)
    sys.stdout.write(f"{file}: {_mib(file):.1f} MiB; {_told(content)}\n")


async def read_backup(settings: Settings, file: Path) -> None:
    """Restore, and say what is left to do with the files beside the database."""
    async with reach_database(settings.database) as url:
        content = await restore(_address(url), file)
    sys.stdout.write(f"restored {_told(content)}\n")
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


def _mib(file: Path) -> float:
    return file.stat().st_size / 2**20


def _holds_records(journal: Path) -> bool:
    return any(segment.stat().st_size for segment in journal.glob(f"*{SUFFIX}"))


def _address(url: str) -> Address:
    shown, password = without_password(url)
    return Address(url, shown, password)


def _told(content: Content) -> str:
    rows = ", ".join(f"{count} {NAMES[table]}" for table, count in content.rows.items())
    return f"{rows}; at migration {content.revision}"
