"""`export`: bring the CSV files level with the database, compare the two, or make the files again."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from database.engine import create_pool
from database.exports import PostgresExportSource
from database.migrate import require_current
from llm_integration.config import LLMConfig
from llm_integration.csv_exporter import LLMCSVExporter
from llm_integration.csv_files import DirectoryHeld
from llm_integration.csv_rows import bars_layout, signals_layout
from llm_integration.csv_verify import CsvVerifier
from service import exit_codes
from service.commands.command import Command, Given
from service.settings import Settings
from service.store_room import reach_database


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=["verify", "rebuild"],
        help="verify: compare every row with the database; rebuild: make the files again from it",
    )


def _do(given: Given) -> int:
    """Bring the files level; `rebuild` makes them again before, `verify` only compares, and 1 says that they differ."""
    settings, action = given.settings("WARNING"), given.action
    return asyncio.run(_verify(settings) if action == "verify" else _export(settings, rebuild=action == "rebuild"))


@contextlib.asynccontextmanager
async def _source(settings: Settings) -> AsyncIterator[PostgresExportSource]:
    async with reach_database(settings.database) as url:
        await require_current(url)
        pool = await create_pool(url, settings.database)
        try:
            yield PostgresExportSource(pool)
        finally:
            await pool.close()


async def _export(settings: Settings, *, rebuild: bool) -> int:
    async with _source(settings) as source:
        exporter = _exporter(settings.llm, source)
        try:
            notes = await exporter.rebuild() if rebuild else []
            try:
                await exporter.drain()
            except DirectoryHeld as held:
                sys.stdout.write(f"nothing to do, they are kept up to date: {held}\n")
            for note in notes:
                sys.stdout.write(f"{note}\n")
            for name, facts in exporter.files.items():
                sys.stdout.write(f"{exporter.directory / name}: {facts.rows} rows, {facts.bytes} bytes")
                sys.stdout.write(f", {facts.closed} closed before it\n" if facts.closed else "\n")
        finally:
            exporter.close()
    return exit_codes.OK


def _exporter(llm: LLMConfig, source: PostgresExportSource) -> LLMCSVExporter:
    return LLMCSVExporter(
        llm.csv_output_directory, source, indicators=llm.indicators_to_include, rotation=llm.csv_rotation
    )


async def _verify(settings: Settings) -> int:
    names = settings.llm.indicators_to_include
    rows, same = 0, True
    async with _source(settings) as source:
        layouts = signals_layout(names), bars_layout(names)
        async for finding in CsvVerifier(settings.llm.csv_output_directory, source, layouts).findings():
            sys.stdout.write(f"{finding}\n")
            rows += finding.rows
            same = same and finding.fault is None
    sys.stdout.write(f"{rows} rows compared, {'all as in the database' if same else 'not all as in the database'}\n")
    return exit_codes.OK if same else exit_codes.FAILED


COMMAND = Command("bring the CSV files up to date, compare them with the database, or make them again", _do, _options)
