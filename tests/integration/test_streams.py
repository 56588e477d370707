"""The program with standard streams that are closed, full, or of another encoding, and with nowhere to stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DOOR = Path(__file__).parents[2] / "main_with_database.py"
LIMIT_S = 120


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of shell with the program in it, as $TRADENT."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRADENT", "DATABASE_URL"))}
    return subprocess.run(
        ["sh", "-c", command.replace("$TRADENT", f"'{sys.executable}' '{DOOR}'")],
        cwd=folder, env={**kept, **environment}, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


def test_closed_streams_are_no_fault_and_no_file_takes_their_place(tmp_path: Path) -> None:
    """What is opened next would have their number, and whoever writes to standard output would write into it."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "look.py").write_text(
        "import os\n\n"
        "class Mine:\n"
        "    name = str([os.readlink(f'/proc/self/fd/{number}') for number in range(3)])\n"
        "    open('seen', 'w').write(name)\n"
    )
    ran = shell(
        """$TRADENT check --set 'trading.strategies=[{"type": "look:Mine"}]' <&- >&- 2>&-""", tmp_path,
        DATABASE_URL="postgresql://127.0.0.1:1/x",
    )  # fmt: skip
    assert ran.returncode in (1, 78)
    if sys.platform == "linux":
        assert (tmp_path / "seen").read_text() == str(["/dev/null"] * 3)
    assert shell("$TRADENT version >&-", tmp_path).returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_a_full_output_is_told_in_words(tmp_path: Path) -> None:
    ran = shell("$TRADENT version >/dev/full", tmp_path)
    assert (ran.returncode, ran.stderr) == (1, "the output cannot be written: No space left on device\n")


def test_what_the_terminals_encoding_lacks_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "bars-…-é.csv").write_text("nothing")
    (tmp_path / "config.json").write_text("{}")
    ran = shell("$TRADENT run --set 'llm.model=é/…'", tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert ran.returncode == 78
    assert ran.stderr.startswith(r"llm.model = '\xe9/\u2026': no backend is named")


def test_a_working_directory_that_was_deleted_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "gone").mkdir()
    ran = shell(f"cd gone && rmdir ../gone && $TRADENT run --config '{tmp_path}/config.json'", tmp_path)
    assert (ran.returncode, ran.stderr) == (
        78, "the working directory has been deleted; change into one that is there\n",
    )  # fmt: skip
