"""A trouble of the journal's disk is one line, and its end another."""

from pathlib import Path

import pytest

from database import journal_troubles
from database.journal_troubles import JournalTroubles

FULL = OSError(28, "No space left on device")


def test_a_trouble_that_comes_and_goes_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    troubles = JournalTroubles(Path("journal"))
    for _ in range(3):
        troubles.say("write", "it cannot be written", FULL)
        troubles.over("write", "it can be written again")
    assert [record.message for record in caplog.records] == ["it cannot be written"]


def test_its_end_is_said_once_it_lasts(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO")
    troubles = JournalTroubles(Path("journal"))
    troubles.say("write", "it cannot be written", FULL)
    monkeypatch.setattr(journal_troubles, "QUIET_S", 0.0)
    troubles.over("write", "it can be written again")
    troubles.over("write", "it can be written again")
    troubles.say("write", "it cannot be written", FULL)
    said = ["it cannot be written", "it can be written again", "it cannot be written"]
    assert [record.message for record in caplog.records] == said
