"""Writes `llm_schema_updates.sql`: the migrations as one script that `psql -f` applies to an empty database.

`python -m database.schema_sql --write` renews the file, without `--write` it goes to standard output.
"""

import argparse
import sys
from pathlib import Path

from database.migrate import head, upgrade_script

FILE = Path(__file__).parent / "llm_schema_updates.sql"
HEADER = """\
-- The schema of Tradent, up to revision {head}. Generated from database/migrations by
-- `python -m database.schema_sql --write`; do not edit.
--
-- For an empty database: psql -v ON_ERROR_STOP=1 -d NAME -f llm_schema_updates.sql
-- All or nothing: it is one transaction. The program finds the schema up to date afterwards.

"""


def schema_sql() -> str:
    """The whole file."""
    script = "\n".join(line.rstrip() for line in upgrade_script().strip().splitlines())
    return HEADER.format(head=head()) + script + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Print the script, or renew the file."""
    parser = argparse.ArgumentParser(description="The database schema as one SQL script.")
    parser.add_argument("--write", action="store_true", help=f"renew {FILE.name} instead of printing")
    if parser.parse_args(arguments).write:
        FILE.write_text(schema_sql(), encoding="utf-8", newline="\n")
    else:
        sys.stdout.write(schema_sql())


if __name__ == "__main__":
    main()
