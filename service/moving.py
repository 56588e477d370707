"""Whether work moves: which part of a daemon stands still though its event loop turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_integration.config import LLMConfig

if TYPE_CHECKING:
    from service.daemon import Daemon

MARGIN_S = 30.0
STATEMENTS = 7
"""A turn of the worker's leases is so many at most: one renews them, six sweep the queue and keep its clock."""


@dataclass(slots=True)
class Part:
    """A part that has work to do while `working` is true, and of which `steps` counts on with every step that ends.

    Each wait in a step has a limit, so that a step that fails counts as one that succeeds: a PostgreSQL that is away
    for hours is no standstill. `limit_s` is more than the longest step takes.
    """

    name: str
    working: Callable[[], bool]
    steps: Callable[[], int]
    limit_s: float
    last: int = -1
    still_s: float = 0.0

    def look(self, tick_s: float) -> bool:
        """Whether it stands still, having been looked at every `tick_s`."""
        idle, steps = not self.working(), self.steps()
        moved = idle or steps != self.last
        self.last, self.still_s = steps, 0.0 if moved else self.still_s + tick_s
        return self.still_s > self.limit_s


def parts_of(daemon: Daemon) -> list[Part]:
    """The parts of a daemon that is prepared."""
    database, llm = daemon.settings.database, daemon.settings.llm
    waits_s = database.connect_timeout_seconds + database.acquire_timeout_seconds + database.command_timeout_seconds
    parts = []
    if daemon.trading is not None:
        recorder = daemon.trading.recorder
        ships_s = 2 * waits_s + MARGIN_S
        parts.append(Part("the recorder", lambda: not recorder.idle, lambda: recorder.steps, ships_s))
    if daemon.rating is not None:
        rating, worker = daemon.rating, daemon.rating.worker
        turn_s = STATEMENTS * waits_s + MARGIN_S
        parts.append(Part("the worker", lambda: worker.started, lambda: worker.steps, turn_s))

        def asking() -> bool:
            """Calls are under way, and none of them waits for the quota or for PostgreSQL, which may take any time."""
            waiting = any(usage.waiting or usage.blocked_s for usage in rating.caller.limits().values())
            return worker.asking and not waiting and not daemon.queue_unseen

        parts.append(Part("every call to a model", asking, lambda: worker.answered, _asks_s(llm) + turn_s))
    return parts


def _asks_s(llm: LLMConfig) -> float:
    """How long a request may take: after `deadline_seconds` it asks nobody any more, and its last call has a time limit
    of its own. Twice that, as a model that answers one at a time may have others in line before it.
    """
    own_s = [each.timeout_seconds for each in llm.backends.values() if each.timeout_seconds is not None]
    return 2 * (llm.deadline_seconds + max([llm.timeout_seconds, *own_s]))


def where_tasks_stand() -> list[str]:
    """Each task of the loop with the line it waits at, for whoever looks into a standstill."""
    places = []
    for task in asyncio.all_tasks():
        stack = task.get_stack(limit=1)
        where = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "nowhere"
        places.append(f"{task.get_name()} at {where}")
    return sorted(places)
