"""Writes `docs/columns.md`: every table and view, with its columns, from the comments that the database carries.

`python -m database.columns_page` renews it; a test keeps it true.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Table
from sqlalchemy.dialects import postgresql

from database.schema_sql import schema_sql
from database.tables import metadata

FILE = Path(__file__).parents[1] / "docs" / "columns.md"
INTRODUCTION = """# Columns

What is in the database: first the views, which answer most questions by themselves, then the tables. Every table and
column carries this text as a comment (`\\d+ signals` in psql). Queries to begin with: `docs/sql.md`. This page is
written by `make docs`.

Times are `timestamp with time zone`, in UTC. Money is in US dollars. What is not known is null, never 0.
"""
FIRST = ("market_data", "signals", "llm_enhancement_tasks", "llm_analysis_results", "llm_calls")
_COMMENT = re.compile(r"COMMENT ON (VIEW|COLUMN) ([\w.]+) IS '((?:[^']|'')*)';")


def page() -> str:
    """The whole page."""
    tables = sorted(metadata.tables.values(), key=_place)
    return "".join([INTRODUCTION, *_views(), *(_table(table) for table in tables)])


def _views() -> Iterator[str]:
    said = {name: text.replace("''", "'") for _, name, text in _COMMENT.findall(schema_sql())}
    for view in [name for name in said if "." not in name]:
        columns = {name.partition(".")[2]: text for name, text in said.items() if name.startswith(f"{view}.")}
        lines = "".join(f"| `{name}` | {_cell(text)} |\n" for name, text in columns.items())
        yield f"\n## `{view}` (view)\n\n{said[view]}\n\n| column | meaning |\n|---|---|\n{lines}"


def _table(table: Table) -> str:
    lines = "".join(
        f"| `{column.name}` | {_type(column)} | {'yes' if column.nullable else ''} | {_cell(column.comment or '')} |\n"
        for column in table.columns
    )
    heading = "| column | type | may be null | meaning |\n|---|---|---|---|\n"
    return f"\n## `{table.name}`\n\n{table.comment}\n\n{heading}{lines}"


def _type(column: Column[Any]) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call] # not in SQLAlchemy's annotations
    return column.type.compile(dialect).lower()


def _place(table: Table) -> tuple[int, str]:
    return (FIRST.index(table.name) if table.name in FIRST else len(FIRST), table.name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8", newline="\n")
    print(FILE)  # noqa: T201
