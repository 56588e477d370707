"""docs/columns.md says what the database says of itself."""

import re
from pathlib import Path

from database.columns_page import FILE, page
from database.engine import connect

HEADING = re.compile(r"^## `(\w+)`", re.MULTILINE)
ROW = re.compile(r"^\| `(\w+)` \|(?:.* \|)? (.*) \|$", re.MULTILINE)
IN_DATABASE = """
SELECT c.relname AS relation, a.attname AS column, coalesce(col_description(c.oid, a.attnum), '') AS comment
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
  AND c.relname <> 'alembic_version'
ORDER BY a.attnum
"""


def test_the_page_is_as_make_docs_writes_it() -> None:
    assert FILE.read_text("utf-8") == page(), "run `make docs`"
    assert Path(__file__).resolve().parents[2] / "docs" / "columns.md" == FILE


async def test_the_page_has_every_relation_and_column_with_its_comment(database: str) -> None:
    """In the database's order; views, tables and those in partitions, each once."""
    connection = await connect(database)
    try:
        rows = await connection.fetch(IN_DATABASE)
    finally:
        await connection.close()
    expected: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        expected.setdefault(row["relation"], []).append((row["column"], row["comment"].replace("|", "\\|")))
    parts = HEADING.split(page())[1:]
    described = {name: ROW.findall(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    assert len(parts) == 2 * len(described)
    assert {name: dict(columns) for name, columns in described.items()} == {n: dict(c) for n, c in expected.items()}
    assert all(comment for columns in described.values() for _, comment in columns)
