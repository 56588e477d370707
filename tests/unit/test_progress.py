"""How far something long has come, where the output is no terminal: a line now and then, and none for what is quick."""

import pytest

from service.progress import progress

Told = pytest.CaptureFixture[str]


class Clock:
    """A monotonic clock that is set by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_line_comes_every_ten_seconds_with_the_time_left(capsys: Told) -> None:
    clock = Clock()
    with progress("rebuilding", 60_000, "rows", clock) as told:
        for passed_s, done in ((9, 5_000), (10, 10_000), (15, 20_000), (21, 30_000)):
            clock.now_s = 100 + passed_s
            told(done)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "rebuilding: 10k of 60k rows, 0:00:10 so far, 17%, 0:00:50 left",
        "rebuilding: 30k of 60k rows, 0:00:21 so far, 50%, 0:00:21 left",
    ]


def test_what_is_quick_says_nothing(capsys: Told) -> None:
    with progress("exporting", None, "rows", Clock()) as told:
        told(5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("total", "unit", "done", "line"),
    [
        (None, "rows", 5, "x: 5 rows, 0:00:10 so far"),
        (1.0, "", 0.25, "x: 0:00:10 so far, 25%, 0:00:30 left"),
        (1.0, "", 0.0, "x: 0:00:10 so far"),
        (10, "rows", 20, "x: 20 of 20 rows, 0:00:10 so far, 100%, 0:00:00 left"),
    ],
)
def test_nothing_is_said_that_is_not_known(
    total: float | None, unit: str, done: float, line: str, capsys: Told
) -> None:
    """No time left without a total or a beginning; a share in percent alone; more than expected is all."""
    clock = Clock()
    with progress("x", total, unit, clock) as told:
        clock.now_s = 110
        told(done)
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(("total", "is_known"), [(None, False), (60_000.0, True)])
def test_the_bar_speaks_of_time_left_only_where_the_end_is_known(
    total: float | None, is_known: bool, capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress("exporting", total, "rows") as told:
        for done in (5_000, 10_000):
            told(done)
    shown = capsys.readouterr().err
    assert "exporting" in shown
    assert ("left" in shown) is is_known


def test_what_is_new_begins_anew(capsys: Told) -> None:
    """At the pace of its own, from where it was first seen; nothing is said of a share that is not known."""
    clock = Clock()
    with progress("restoring", 1.0, "", clock) as told:
        for passed_s, share, what in ((9, 0.9, None), (10, 0.2, "one"), (20, 0.6, "one"), (30, None, "other")):
            clock.now_s = 100 + passed_s
            told(share, what)
    assert capsys.readouterr().err.splitlines() == [
        "one: 0:00:00 so far, 20%",
        "one: 0:00:10 so far, 60%, 0:00:10 left",
        "other: 0:00:00 so far",
    ]


def test_a_bar_says_no_percent_of_what_is_not_known(capsys: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress("restoring", 1.0, "") as told:
        told(0.5)
        told(None, "an [index]")
    shown = capsys.readouterr().err.rpartition("an [index]")
    assert shown[1]
    assert "%" not in shown[2]
