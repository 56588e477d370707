"""Every scenario in its short form: nothing lost, nothing doubled, whatever is done to the daemon."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.stage import Stage, is_slow, names, play
from tests.postgres import make_folder

SEED = 1


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that other accounts pass."""
    made = make_folder()
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if is_slow(name) else []) for name in names()]
)
async def test_nothing_is_lost_or_doubled(name: str, postgres_url: str, folder: Path) -> None:
    """Figures are for the full form: a machine that runs tests may be slow."""
    row = await play(name, Stage(folder, SEED, False, postgres_url))
    assert row.good, row
    if not row.times and row.notes:
        pytest.skip(row.notes)
    assert row.times
