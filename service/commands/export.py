"""`export`: bring the CSV files level with the database, compare the two, or make the files again."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import orjson

from database.engine import create_pool
from database.migrate import require_current
from llm_integration.csv_exporter import LLMCSVExporter
from llm_integration.csv_files import DirectoryHeld
from llm_integration.csv_rows import bars_layout, signals_layout
from llm_integration.csv_verify import CsvVerifier
from service import exit_codes
from service.commands.command import Command, Given, add_json
from service.counted_source import CountedSource
from service.progress import progress
from service.settings import Settings
from service.store_room import reach_database


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        choices=["verify", "rebuild"],
        help="verify: compare every row with the database; rebuild: make the files again from it",
    )
    add_json(parser)


def _do(given: Given) -> int:
    """Bring the files level; `rebuild` makes them again before, `verify` only compares, and 1 says that they differ."""
    settings = given.settings("WARNING")
    if given.action == "verify":
        return asyncio.run(_verify(settings, as_json=given.json))
    return asyncio.run(_export(settings, rebuild=given.action == "rebuild", as_json=given.json))


@contextlib.asynccontextmanager
async def _source(settings: Settings, what: str, *, all_rows: bool) -> AsyncIterator[CountedSource]:
    """The tables; how many rows have been read is shown, out of all where it is `all_rows` that will be."""
    async with reach_database(settings.database) as url:
        await require_current(url)
        pool = await create_pool(url, settings.database)
        try:
            source = CountedSource(pool)
            with progress(what, await source.all_rows() if all_rows else None, "rows") as source.on_rows:
                yield source
        finally:
            await pool.close()


async def _export(settings: Settings, *, rebuild: bool, as_json: bool) -> int:
    llm = settings.llm
    async with _source(settings, "rebuilding" if rebuild else "exporting", all_rows=rebuild) as source:
        exporter = LLMCSVExporter(
            llm.csv_output_directory, source, indicators=llm.indicators_to_include, rotation=llm.csv_rotation
        )
        held = None
        try:
            notes = await exporter.rebuild() if rebuild else []
            try:
                await exporter.drain()
            except DirectoryHeld as error:
                held = f"nothing to do, they are kept up to date: {error}"
            files = exporter.files
        finally:
            exporter.close()
    if as_json:
        told = [{"file": name, **facts._asdict()} for name, facts in files.items()]
        _write(orjson.dumps({"files": told, "notes": list(notes), "held": held}).decode())
        return exit_codes.OK
    for line in ([held] if held else []) + list(notes):
        _write(line)
    for name, facts in files.items():
        before = f", {facts.closed} closed before it" if facts.closed else ""
        _write(f"{llm.csv_output_directory / name}: {facts.rows} rows, {facts.bytes} bytes{before}")
    return exit_codes.OK


async def _verify(settings: Settings, *, as_json: bool) -> int:
    names = settings.llm.indicators_to_include
    findings = []
    async with _source(settings, "comparing", all_rows=True) as source:
        layouts = signals_layout(names), bars_layout(names)
        async for finding in CsvVerifier(settings.llm.csv_output_directory, source, layouts).findings():
            findings.append(finding)
            if not as_json:
                _write(str(finding))
    rows, same = sum(each.rows for each in findings), all(each.fault is None for each in findings)
    if as_json:
        files = [{"file": one.name, "rows": one.rows, "fault": one.fault, "note": one.note} for one in findings]
        _write(orjson.dumps({"same": same, "rows": rows, "files": files}).decode())
    else:
        _write(f"{rows} rows compared, {'all as in the database' if same else 'not all as in the database'}")
    return exit_codes.OK if same else exit_codes.FAILED


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


COMMAND = Command(_do, _options)
