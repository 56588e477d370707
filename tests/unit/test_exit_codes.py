"""Exit statuses are documented, all of them and no other."""

import re
from pathlib import Path

from service import exit_codes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
WRONG_USAGE = 2


def test_every_exit_status_is_in_the_table_of_the_commands_page() -> None:
    documented = [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)]
    known = {value for name, value in vars(exit_codes).items() if name.isupper()}
    assert documented == sorted({*known, WRONG_USAGE})
