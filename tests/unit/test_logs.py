"""Log lines: one per record whatever it holds, no secret in any form, and nothing over the live view."""

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import pytest

from llm_integration.model import Abstention, Action, Result, TaskStatus, Verdict
from service.logs import HIDDEN, LineFormatter, RecentLines, hide, off_the_screen, set_up_logging
from service.narration import RatingLog, summary_facts
from trading.model import Bar, Side, Signal, Snapshot


@pytest.fixture(autouse=True)
def root_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def line(message: str, secrets: tuple[str, ...] = (), **facts: object) -> str:
    record = logging.LogRecord("service.recorder", logging.INFO, "", 1, message, (), None)
    record.created = 1_769_854_500.0
    vars(record).update(facts)
    return LineFormatter(secrets).format(record)


def test_a_line_says_when_what_and_the_facts() -> None:
    shown = line("PostgreSQL is back", away_s=3.1, where="db one", ids=["a"], none=None, plain="x")
    assert shown == (
        '2026-01-31T10:15:00Z INFO recorder: PostgreSQL is back away_s=3.1 where="db one" ids=["a"] none=null plain=x'
    )


@pytest.mark.parametrize(
    "evil", ["a\nb", "a\r\nb", "\x1b[31mred", "\x9b2J", "\u202eabc", "a\u2028b", "\x85", "\ud800", "\x00"]
)
def test_one_record_is_one_line_whatever_its_values_hold(evil: str) -> None:
    shown = line(f"said {evil}", value=evil, within={"key": [evil]})
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1


def test_a_forged_line_stays_within_its_own() -> None:
    forged = line("bad symbol A\n2026-01-31T10:15:00Z ERROR daemon: all is lost")
    assert forged.count("\n") == 0
    assert r"A\n2026-01-31" in forged


def test_a_traceback_follows_line_by_line_without_control_characters() -> None:
    try:
        raise ValueError("one\x1b[2J\nkey-0123456789")
    except ValueError as error:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "failed", (), (ValueError, error, error.__traceback__))
    shown = LineFormatter(["key-0123456789"]).format(record).split("\n")
    assert shown[1] == "Traceback (most recent call last):"
    assert all(each.isprintable() for each in shown)
    assert shown[-1] == HIDDEN


@pytest.mark.parametrize("secret", ["sk-or-v1-abcdef", 'pa"ss\\word', "pässwörd", "p@ss:w/rd", "p%40ss", "with space"])
def test_a_secret_is_hidden_in_every_form(secret: str) -> None:
    """As it is, within JSON, and percent-encoded within a URL."""
    texts = [secret, quote(secret, safe=""), json.dumps(secret), f"postgresql://u:{secret}@h/d"]
    for text in texts:
        shown = line(f"m {text}", (secret,), fact=text, within={"deep": [text]})
        for form in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
            assert form not in shown
        assert HIDDEN in shown


def test_a_secret_given_percent_encoded_is_hidden_decoded() -> None:
    assert "p@ss" not in line("password p@ss", ("p%40ss",))


def test_a_fact_that_json_cannot_write_is_written_all_the_same() -> None:
    assert "{(1, 2): 3}" in line("odd", fact={(1, 2): 3})


def test_recent_lines_keep_warnings_and_the_newest() -> None:
    lines = RecentLines(count=2)
    lines.setFormatter(logging.Formatter("%(message)s"))
    for level, text in ((30, "one"), (40, "two"), (30, "three"), (20, "news")):
        lines.handle(logging.LogRecord("a", level, "", 1, text, (), None))
    assert lines.warnings() == [(40, "two"), (30, "three")]
    assert lines.newest() == "news"
    assert lines.forgotten == 1


def test_a_bad_log_call_neither_raises_nor_writes_over_the_view(capsys: pytest.CaptureFixture[str]) -> None:
    lines = RecentLines()
    lines.handle(logging.LogRecord("a", logging.WARNING, "", 1, "%d", ("no number",), None))
    assert "could not be made" in lines.warnings()[0][1]
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_is_written_over_the_view_and_logging_is_as_before_after_it() -> None:
    terminal, lines = Terminal(), RecentLines()
    set_up_logging("INFO", [], terminal)
    with off_the_screen(lines):
        logging.getLogger("x").warning("while it is open")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("python's own", stacklevel=1)
        assert terminal.getvalue() == ""
    (_, first), (_, second) = lines.warnings()
    assert first == "while it is open"
    assert "python's own" in second
    logging.getLogger("x").warning("after it")
    assert "after it" in terminal.getvalue()
    assert len(lines.warnings()) == 2


def test_a_log_that_goes_to_a_file_goes_on_under_the_view() -> None:
    file = io.StringIO()
    set_up_logging("INFO", [], file)
    with off_the_screen(RecentLines()):
        logging.getLogger("x").info("to the file")
    assert "to the file" in file.getvalue()


def test_a_view_that_closes_early_gives_the_log_back_at_once() -> None:
    terminal = Terminal()
    set_up_logging("INFO", [], terminal)
    with off_the_screen(RecentLines()) as give_back:
        give_back()
        logging.getLogger("x").warning("once")
    assert terminal.getvalue().count("once") == 1


SIGNAL = Signal.on(
    Bar("SIMBTC", "5s", datetime(2026, 1, 1, tzinfo=UTC), 1.0, 2.0, 0.5, 1.5, None, "simulated"),
    "ma_cross", Side.LONG, 0.5, Snapshot({}, ()),
)  # fmt: skip
RATED = Result(
    signal_id=SIGNAL.id, status=TaskStatus.COMPLETED,
    verdict=Verdict(4, 0.66, Action.ENTER_LONG, "why", (), None, "json", False), abstention=None, error=None,
    model="openrouter/x", answered_model="x", fallback=False, prompt_version="v", call_id=UUID(int=1),
    processing_ms=812.34, finished_at=SIGNAL.close_time + timedelta(seconds=1), cost_usd=Decimal("0.00042"),
)  # fmt: skip


def told(caplog: pytest.LogCaptureFixture, *results: Result) -> list[str]:
    caplog.set_level(logging.INFO)
    log = RatingLog()
    for result in results:
        log.log_rating(SIGNAL, result)
    return [LineFormatter().format(record).partition("Z ")[2] for record in caplog.records]


def test_a_rating_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, RATED) == [
        f"INFO ratings: rated sig-{SIGNAL.id} SIMBTC long 4 strategy=ma_cross model=openrouter/x action=enter_long "
        "confidence=0.66 decision=null ms=812.3 cost_usd=0.00042"
    ]


def test_a_fallbacks_rating_and_an_unknown_cost_say_so(caplog: pytest.LogCaptureFixture) -> None:
    (shown,) = told(caplog, replace(RATED, fallback=True, cost_usd=None))
    assert "fallback=true" in shown
    assert "cost_usd=unknown" in shown


def test_an_abstention_says_why(caplog: pytest.LogCaptureFixture) -> None:
    (shown,) = told(caplog, replace(RATED, verdict=None, abstention=Abstention("cut off\nhere")))
    assert f"INFO ratings: abstained sig-{SIGNAL.id} SIMBTC long" in shown
    assert r'reason="cut off\nhere"' in shown


def test_a_failure_warns_once_per_cause(caplog: pytest.LogCaptureFixture) -> None:
    """The second of the same cause is news; another cause, or the same after a success, warns again."""
    away = replace(RATED, status=TaskStatus.FAILED, verdict=None, error="nobody there")
    other = replace(away, error="no credit")
    levels = [shown.split()[0] for shown in told(caplog, away, away, other, RATED, other)]
    assert levels == ["WARNING", "INFO", "WARNING", "INFO", "WARNING"]


def test_the_summary_names_quota_cost_and_what_is_away() -> None:
    facts = summary_facts(
        {
            "uptime_s": 60.4, "feed": {"bars": 3, "signals": 2}, "recorder": {"journal_bytes": 7},
            "signals": {"completed": 2, "abstained": 1, "failed": 0, "expired": 0}, "queue": {"pending": 4},
            "models": {"enabled": True, "limits": {
                "openrouter": {"requests": 3, "requests_limit": 14, "tokens": 9, "tokens_limit": 0}}},
            "cost": {"since_start_usd": 0.5, "since_start_unknown": 2}, "postgresql_away": True,
            "memory_mib": None, "memory_peak_mib": 90.0,
        }
    )  # fmt: skip
    assert facts["openrouter_requests"] == "3/14"
    assert facts["openrouter_tokens"] == "9"
    assert (facts["queue"], facts["cost_usd"], facts["cost_unknown"]) == (4, 0.5, 2)
    assert (facts["postgresql"], facts["memory_mib"]) == ("away", 90.0)


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_lines_for_the_journal_carry_their_priority_and_no_time(
    level: int, priority: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        set_up_logging("DEBUG", ["key-0123456789"], stream)
        logging.getLogger("service.daemon").log(level, "key-0123456789 was used\n<0>forged")
        stream.seek(0)
        said = stream.read()

    assert said == f"<{priority}>{logging.getLevelName(level)} daemon: {HIDDEN} was used\\n<0>forged\n"


@pytest.mark.parametrize("journal", [False, True])
def test_a_secret_that_a_reload_brings_is_hidden_from_then_on(
    journal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("w+") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}" if journal else "")
        set_up_logging("INFO", [], stream)
        hide(["key-0123456789"])
        logging.getLogger("daemon").info("key-0123456789 was used")
        stream.seek(0)
        said = stream.read()

    assert said.startswith("<6>") is journal
    assert said.endswith(f"INFO daemon: {HIDDEN} was used\n")


def test_every_line_of_a_traceback_carries_the_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as stream:
        there = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
        set_up_logging("INFO", [], stream)
        try:
            raise ValueError("once")
        except ValueError:
            logging.getLogger("daemon").exception("failed")
        stream.seek(0)
        said = stream.read().splitlines()

    assert len(said) > 3
    assert {line[:3] for line in said} == {"<3>"}


def test_a_stderr_that_was_led_elsewhere_is_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable stays set in `tradent run 2>file` from a service's shell."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:12345")
    with (tmp_path / "file").open("w+") as stream:
        set_up_logging("INFO", [], stream)
        logging.getLogger("daemon").info("begun")
        stream.seek(0)
        assert stream.read().startswith("20")
