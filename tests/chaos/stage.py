"""What a scenario is given, and what it returns."""

import asyncio
import importlib
import pkgutil
import random
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from tests import postgres
from tests.chaos import scenarios
from tests.chaos.expected import Found
from tests.chaos.watching import Watch

LIMIT_S = {False: 900.0, True: 3600.0}


@dataclass(frozen=True)
class Stage:
    """`folder` is empty and has a short path that other accounts pass; `server` is the URL of a PostgreSQL that the
    scenarios share and none may hurt: `server.Server` is one to be hurt. `full` is the long form.
    """

    folder: Path
    seed: int
    full: bool
    server: str

    @cached_property
    def chance(self) -> random.Random:
        """What decides by chance: the same for the same seed."""
        return random.Random(self.seed)

    def scale(self, short: int, full: int) -> int:
        """How many, in this form."""
        return full if self.full else short

    async def database(self) -> str:
        """The URL of a fresh migrated database on the shared server."""
        return await postgres.create_database(self.server, postgres.fresh_name(), postgres.TEMPLATE)


@dataclass(frozen=True)
class Row:
    """What a scenario found. `lost` and `doubled` count bars and signals, over database and files; `wrong` says what
    else was not as it must be. `recovery_s`: from the fault's end to the next rating stored, the longest.
    """

    fault: str
    times: int
    signals: int = 0
    lost: int = 0
    doubled: int = 0
    submit_p99_ms: float | None = None
    recovery_s: float | None = None
    notes: str = ""
    wrong: tuple[str, ...] = ()

    @classmethod
    def of(cls, fault: str, times: int, found: Found, watch: Watch, notes: str = "", wrong: Sequence[str] = ()) -> Self:
        """What was found in the end, and seen on the way."""
        ended = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
        return cls(
            fault, times, found.signals, found.lost, found.doubled, watch.submit_p99_ms, watch.recovery_s,
            "; ".join([one for one in (notes, ended) if one]), (*found.wrong, *wrong),
        )  # fmt: skip

    @property
    def good(self) -> bool:
        """Whether nothing was lost or doubled, and nothing else was wrong."""
        return not (self.lost or self.doubled or self.wrong)


class NotHere(Exception):
    """This system does not let the scenario be played: what it lacks."""


Scenario = Callable[[Stage], Awaitable[Row]]


def names() -> list[str]:
    """Every scenario there is a file for."""
    return sorted(module.name for module in pkgutil.iter_modules(scenarios.__path__))


def is_slow(name: str) -> bool:
    """Whether its short form, too, is too long for every day."""
    return bool(getattr(importlib.import_module(f"{scenarios.__name__}.{name}"), "SLOW", False))


async def play(name: str, stage: Stage) -> Row:
    """Run a scenario; one that fails or takes too long is a row that says so."""
    run: Scenario = importlib.import_module(f"{scenarios.__name__}.{name}").run
    try:
        async with asyncio.timeout(LIMIT_S[stage.full]):
            row = await run(stage)
    except NotHere as why:
        row = Row(name, 0, notes=f"not possible here: {why}")
    except Exception as error:
        sys.stderr.write(f"{name}, seed {stage.seed}:\n{''.join(traceback.format_exception(error))}")
        what = str(error).split("\n", 1)[0]
        row = Row(name, 0, wrong=(f"{type(error).__name__}: {what}" if what else type(error).__name__,))
    return replace(row, fault=row.fault or name)
