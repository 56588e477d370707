"""What a look at things finds: a line each as they come, or all of them as JSON."""

import json
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.text import Text

from database.engine import FAILURES, explained
from service import exit_codes
from service.console import Console
from service.safe_text import visible
from service.view_words import cut
from trading.errors import TradentError

FOUND_WANTING: tuple[type[Exception], ...] = (TradentError, *FAILURES)


class Level(StrEnum):
    """How bad it is: a note is worth knowing, and nothing is broken for it."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


_SHOWN = {Level.OK: ("ok  ", "green"), Level.NOTE: ("note", "yellow"), Level.FAIL: ("FAIL", "bold red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and, where it is not well, what to do."""

    check: str
    level: Level
    detail: str


def well(check: str, detail: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Level.OK, detail)


def note(check: str, detail: str) -> Finding:
    """Something to know."""
    return Finding(check, Level.NOTE, detail)


def wrong(check: str, detail: str) -> Finding:
    """Something to mend."""
    return Finding(check, Level.FAIL, detail)


async def looked(check: str, look: Callable[[], Awaitable[str | Finding]]) -> Finding:
    """What `look` finds; what it raises is found, too."""
    try:
        found = await look()
    except FOUND_WANTING as error:
        return wrong(check, explained(error))
    return found if isinstance(found, Finding) else well(check, found)


async def told(findings: AsyncIterator[Finding], *, as_json: bool, short: bool = False) -> int:
    """Print findings as they come, or as one JSON object at the end; exit status 1 where anything is wrong.

    `short` keeps what is well to one line on a terminal, and says at the end how many things are wrong.
    """
    kept = []
    console = Console(highlight=False)
    async for finding in findings:
        kept.append(finding)
        if not as_json:
            _print(console, finding, short=short)
    bad = [finding.check for finding in kept if finding.level is Level.FAIL]
    if as_json:
        sys.stdout.write(json.dumps({"ok": not bad, "findings": [_plain(one) for one in kept]}, indent=2) + "\n")
    elif short:
        things = "1 thing is" if len(bad) == 1 else f"{len(bad)} things are"
        sys.stdout.write(f"\n{things} wrong: {'; '.join(dict.fromkeys(bad))}\n" if bad else "\nnothing is wrong\n")
    return exit_codes.FAILED if bad else exit_codes.OK


def _lines(finding: Finding, width: int | None, *, short: bool) -> Sequence[str]:
    """A finding on lines of `width`, the further ones set in; on one where there is no width."""
    text = f"{finding.check}: {visible(finding.detail)}"
    if not width:
        return [text]
    if short and finding.level is Level.OK:
        return [cut(text, width)]
    return textwrap.wrap(text, width, subsequent_indent="  ")


def _print(console: Console, finding: Finding, *, short: bool) -> None:
    mark, style = _SHOWN[finding.level]
    first, *rest = _lines(finding, max(20, console.width - 6) if console.is_terminal else None, short=short)
    console.print(Text.assemble((mark, style), f"  {first}"), soft_wrap=True)
    for line in rest:
        console.print(f"      {line}", soft_wrap=True, markup=False)


def _plain(finding: Finding) -> dict[str, object]:
    return {
        "check": finding.check,
        "ok": finding.level is not Level.FAIL,
        "level": finding.level.value,
        "detail": visible(finding.detail),
    }
