"""`status --watch`: how the running daemon does, again and again, until it is stopped."""

import asyncio
import contextlib
import sys
from typing import Any

import orjson
from rich.console import Group
from rich.live import Live
from rich.text import Text

from service.console import Console
from service.settings import ServiceSettings
from service.status import Away, NoDaemon, fetch_status
from service.view_layout import layout
from service.view_words import cut, number, part, said, usd


async def watch_status(service: ServiceSettings, *, every_s: float, as_json: bool, console: Console) -> int:
    """Show the daemon's state every so many seconds: in place on a terminal, else a line each time.

    A daemon that is away is waited for. Raises TradentError where somebody else answers, or a token is wanted.
    """
    screen = console.is_terminal and not console.is_dumb_terminal and not as_json
    shown = Screen(console) if screen else Lines(as_json=as_json)
    with shown:
        while True:
            try:
                shown.show(await fetch_status(service.host, service.port))
            except NoDaemon as away:
                shown.say_away(str(away))
            await asyncio.sleep(every_s)


class Lines:
    """A line each time; once, that none answers."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._away = Away()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def show(self, answer: bytes) -> None:
        self._away.over()
        sys.stdout.write(f"{answer.decode() if self._as_json else line_of(orjson.loads(answer))}\n")
        sys.stdout.flush()

    def say_away(self, reason: str) -> None:
        self._away.say(reason)


class Screen:
    """A picture as large as the terminal; the last one stays when the screen is given back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, Any] | None = None
        self._live = Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._last is not None:
            with contextlib.suppress(OSError):
                width, height = self._console.size
                self._console.print(Group(*layout(self._last, (), width, height - 2)))

    def show(self, answer: bytes) -> None:
        self._last = orjson.loads(answer)
        self._paint(None)

    def say_away(self, reason: str) -> None:
        self._paint(reason)

    def _paint(self, away: str | None) -> None:
        width, height = self._console.size
        lines = [] if away is None else [Text(cut(f"! {away}; asking again", width), "bold red", no_wrap=True)]
        lines += layout(self._last, (), width, height - len(lines), fill=True) if self._last is not None else []
        self._live.update(Group(*lines), refresh=True)


def line_of(vitals: dict[str, Any]) -> str:
    """How the daemon does on one line, `name=value` each."""
    signals, cost = part(vitals, "signals"), part(vitals, "cost")
    pending = sum(count for count in part(vitals, "queue").values() if isinstance(count, int))
    rated = number(signals, "completed") - number(signals, "abstained")
    facts = {
        "bars": f"{number(part(vitals, 'feed'), 'bars'):.0f}",
        "signals": f"{number(part(vitals, 'feed'), 'signals'):.0f}",
        "rated": f"{rated:.0f}",
        "pending": str(pending),
        "failed": f"{number(signals, 'failed'):.0f}",
        "rates": said(part(vitals, "models"), "rates") or "none",
        "today": usd(cost.get("today_usd"), cost.get("today_unknown")).replace(" ", ""),
        "postgresql": "away" if vitals.get("postgresql_away") else "there",
    }
    return f"{said(vitals, 'now')[:19]}Z {said(vitals, 'phase')} " + " ".join(f"{k}={v}" for k, v in facts.items())
