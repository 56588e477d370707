"""Which part of a daemon is held to stand still."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

from database.tasks import EXPIRE, PostgresTaskQueue
from service.daemon import Daemon
from service.moving import STATEMENTS, Part, parts_of
from service.settings import Settings
from tests.fake_clock import FakeClock


def limit_s(name: str, **llm: Any) -> float:
    """How long a part of a daemon with these settings may take for a step."""
    worker = SimpleNamespace(started=True, steps=0, answered=0, asking=True)
    settings = Settings.model_validate({"llm": llm})
    daemon = SimpleNamespace(settings=settings, trading=None, rating=SimpleNamespace(worker=worker))
    return next(part.limit_s for part in parts_of(cast("Daemon", daemon)) if part.name == name)


class SlowPool:
    """Counts the statements, each of which might take all the time it is given."""

    def __init__(self) -> None:
        self.statements = 0

    async def _answer(self, answer: Any) -> Any:
        self.statements += 1
        return answer

    async def fetch(self, query: str, *values: object) -> Any:
        return await self._answer([])

    async def fetchrow(self, query: str, *values: object) -> Any:
        return await self._answer(None)

    async def fetchval(self, query: str, *values: object) -> Any:
        return await self._answer(0 if query == EXPIRE else datetime(2026, 1, 1, tzinfo=UTC))

    async def execute(self, query: str, *values: object) -> Any:
        return await self._answer("")


def looks(steps: list[int], working: list[bool], limit_s: float = 2.0) -> list[bool]:
    """What is seen of a part, looked at once a second."""
    counted, busy = iter(steps), iter(working)
    part = Part("the part", lambda: next(busy), lambda: next(counted), limit_s)
    return [part.look(1.0) for _ in steps]


def test_a_part_whose_steps_count_on_moves() -> None:
    assert looks([1, 2, 3, 4, 5, 6], [True] * 6) == [False] * 6


def test_a_part_stands_still_once_no_step_has_ended_for_longer_than_any_takes() -> None:
    assert looks([1, 1, 1, 1, 1], [True] * 5) == [False, False, False, True, True]


def test_a_part_without_work_does_not_stand_still_however_long() -> None:
    assert looks([1] * 6, [True, True, True, False, True, True]) == [False] * 6


def test_a_part_that_moves_again_is_well_again() -> None:
    assert looks([1, 1, 1, 1, 2, 2], [True] * 6) == [False, False, False, True, False, False]


def test_a_slow_model_that_uses_its_own_time_limit_again_and_again_stands_not_still() -> None:
    """It may be tried until the deadline, and the last try takes as long as any."""
    slow = {"llama_cpp": {"timeout_seconds": 1800}}
    assert limit_s("every call to a model", deadline_seconds=3600, backends=slow, max_retries=1) > 3600 + 1800


async def test_a_worker_whose_every_statement_takes_its_whole_time_stands_not_still() -> None:
    pool = SlowPool()
    queue = PostgresTaskQueue(cast("Any", pool), cast("Any", None), worker="w", max_attempts=3, clock=FakeClock())
    queue._server_clock.gone_back = True
    await queue.extend([])
    await queue.sweep()
    assert pool.statements == STATEMENTS
    database = Settings().database
    each_s = database.acquire_timeout_seconds + database.connect_timeout_seconds + database.command_timeout_seconds
    assert limit_s("the worker") > pool.statements * each_s
