"""The store: bounded, quick, safe among threads, and it never forgets a task this process holds."""

import threading
import tracemalloc
from datetime import datetime
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from database.records import decode_signal, encode_record
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import Abstention, Action, Claim, Result, TaskStatus, Verdict
from tests.fake_clock import FakeClock
from tests.marketdata import START, make_signal
from trading.model import Signal

SIGNALS = [make_signal(n) for n in range(12)]


def claim_of(signal: Signal, token: int = 1) -> Claim:
    return Claim(signal, token, token, START)


def result_of(
    signal: Signal, status: TaskStatus = TaskStatus.COMPLETED, rating: int | None = None, ms: float | None = 10.0
) -> Result:
    verdict = Verdict(rating, None, Action.HOLD, "because", (), None, "json", False) if rating else None
    abstention = Abstention("unclear") if status is TaskStatus.COMPLETED and rating is None else None
    return Result(
        signal.id, status, verdict, abstention, None, None, None, False, None, None, ms, START
    )  # fmt: skip


def test_a_signal_goes_from_pending_over_ready_and_processing_to_final() -> None:
    store = SignalMemoryStore(5, FakeClock())
    signal = SIGNALS[0]
    assert store.add(signal)
    assert not store.add(signal)
    seen = [store.get(signal.id)]
    assert store.hold(claim_of(signal))
    assert (store.waiting(), store.claims(ready_only=True)) == (1, [claim_of(signal)])
    assert store.take(3) == [claim_of(signal)]
    seen.append(store.get(signal.id))
    assert (store.waiting(), store.claims(), store.take(1)) == (0, [claim_of(signal)], [])
    assert store.update(signal.id, result_of(signal, rating=4))
    seen.append(store.get(signal.id))
    assert [entry.status for entry in seen if entry] == ["pending", "processing", "completed"]
    assert store.claims() == []
    assert len(store) == 1


def test_when_full_it_forgets_the_oldest_finished_and_then_refuses() -> None:
    store = SignalMemoryStore(3, FakeClock())
    for signal in SIGNALS[:3]:
        assert store.add(signal)
    assert not store.add(SIGNALS[3])
    store.update(SIGNALS[1].id, result_of(SIGNALS[1]))
    assert store.add(SIGNALS[3])
    assert store.get(SIGNALS[1].id) is None
    assert store.get_stats()["refused_for_room"] == 1


def test_a_claimed_task_finds_room_among_the_finished_and_the_merely_pending() -> None:
    store = SignalMemoryStore(2, FakeClock())
    store.add(SIGNALS[0])
    store.add(SIGNALS[1])
    assert store.room() == 2
    assert store.hold(claim_of(SIGNALS[2]))
    assert store.hold(claim_of(SIGNALS[3]))
    assert store.room() == 0
    assert not store.hold(claim_of(SIGNALS[4]))
    assert [claim.signal.id for claim in store.claims()] == [SIGNALS[2].id, SIGNALS[3].id]


def test_dropping_an_old_claim_leaves_a_newer_one() -> None:
    store = SignalMemoryStore(5, FakeClock())
    signal = SIGNALS[0]
    store.hold(claim_of(signal, 1))
    store.take(1)
    store.hold(claim_of(signal, 2))
    store.drop(claim_of(signal, 1))
    store.put_back(claim_of(signal, 1))
    assert store.take(1) == [claim_of(signal, 2)]
    store.drop(claim_of(signal, 2))
    assert store.get(signal.id) is None


def test_a_task_put_back_is_pending_and_can_be_held_again() -> None:
    store = SignalMemoryStore(5, FakeClock())
    store.hold(claim_of(SIGNALS[0], 1))
    store.take(1)
    store.put_back(claim_of(SIGNALS[0], 1))
    assert store.claims() == []
    assert store.get_stats()["pending"] == 1
    assert store.hold(claim_of(SIGNALS[0], 3))


async def test_cleaning_forgets_what_has_been_final_or_in_nobodys_hands_for_long() -> None:
    clock = FakeClock()
    store = SignalMemoryStore(10, clock)
    for signal in SIGNALS[:5]:
        store.add(signal)
    store.hold(claim_of(SIGNALS[0]))
    store.hold(claim_of(SIGNALS[1]))
    store.take(1)
    store.update(SIGNALS[2].id, result_of(SIGNALS[2]))
    await clock.advance(61)
    store.update(SIGNALS[3].id, result_of(SIGNALS[3]))
    assert store.clean(60) == 2
    assert {signal.id for signal in SIGNALS[:5] if store.get(signal.id)} == {SIGNALS[n].id for n in (0, 1, 3)}


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "hold", "take", "update", "drop", "put_back", "clean"]), st.integers(0, 11))
    )
)
def test_it_is_bounded_and_never_forgets_a_held_task(steps: list[tuple[str, int]]) -> None:
    """Against a model of which claims are held, through any order of steps."""
    store = SignalMemoryStore(4, FakeClock())
    held: dict[UUID, Claim] = {}
    for token, (step, n) in enumerate(steps, start=1):
        signal = SIGNALS[n]
        match step:
            case "add":
                store.add(signal)
            case "hold":
                if store.hold(claim_of(signal, token)):
                    held[signal.id] = claim_of(signal, token)
            case "take":
                assert all(held[claim.signal.id] == claim for claim in store.take(n))
            case "update" if signal.id in held:
                store.update(signal.id, result_of(signal))
                del held[signal.id]
            case "drop" | "put_back" if signal.id in held:
                getattr(store, step)(held.pop(signal.id))
            case "clean":
                store.clean(-1)
            case _:
                pass
        assert len(store) <= 4
        assert {claim.signal.id: claim for claim in store.claims()} == held
        assert store.room() == 4 - len(held)
        stats = store.get_stats()["in_memory"]
        assert stats["total"] == stats["pending"] + stats["processing"] + stats["finished"] == len(store)
    for signal in SIGNALS:
        store.update(signal.id, result_of(signal))
    store.clean(-1)
    assert (len(store), store.get_stats()["memory_bytes"]) == (0, 0)


def test_the_statistics_are_those_of_what_happened() -> None:
    store = SignalMemoryStore(20, FakeClock())
    for signal in SIGNALS[:9]:
        store.add(signal)
    store.hold(claim_of(SIGNALS[0]))
    store.hold(claim_of(SIGNALS[1]))
    store.take(1)
    for n, (status, rating, ms) in enumerate(
        [
            (TaskStatus.COMPLETED, 5, 10.0), (TaskStatus.COMPLETED, 5, 20.0), (TaskStatus.COMPLETED, None, 30.0),
            (TaskStatus.FAILED, None, 40.0), (TaskStatus.EXPIRED, None, None), (TaskStatus.SKIPPED, None, None),
        ],
        start=2,
    ):  # fmt: skip
        store.update(SIGNALS[n].id, result_of(SIGNALS[n], status, rating, ms))
    stats = store.get_stats()
    assert stats.pop("memory_bytes") > 0
    assert stats == {
        "in_memory": {"total": 9, "pending": 2, "processing": 1, "finished": 6},
        "pending": 2, "processing": 1, "processed": 6, "completed": 3, "failed": 1, "expired": 1, "skipped": 1,
        "abstained": 1, "average_processing_ms": 25.0, "rating_distribution": {1: 0, 2: 0, 3: 0, 4: 0, 5: 2},
        "refused_for_room": 0,
    }  # fmt: skip
    assert SignalMemoryStore(1, FakeClock()).get_stats()["average_processing_ms"] is None


@pytest.mark.parametrize("lookback", [1, 20, 100])
def test_the_memory_it_reports_is_about_what_it_takes(lookback: int) -> None:
    """Within a factor of two of what tracemalloc sees, for signals as they come from the database."""
    rows = []
    for n in range(300):
        row = orjson.loads(encode_record(None, {}, [make_signal(n, lookback=lookback)], START).split(b"\n")[1])
        row["snapshot"]["indicators"] = {name: n + len(name) / 7 for name in ("rsi", "atr", "sma_20", "bb_upper", "x")}
        rows.append({**row, "id": UUID(row["id"]), "snapshot": orjson.dumps(row["snapshot"]).decode(),
                     "close_time": datetime.fromisoformat(row["close_time"])})  # fmt: skip
    store = SignalMemoryStore(1000, FakeClock())
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for row in rows:
        store.add(decode_signal(row))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.5 < store.get_stats()["memory_bytes"] / taken < 2


def test_threads_at_once_lose_and_double_nothing() -> None:
    store = SignalMemoryStore(100_000, FakeClock())
    signals = [[make_signal(n, f"S{part}") for n in range(200)] for part in range(4)]
    taken: list[Claim] = []
    failures: list[BaseException] = []

    def guarded(work: object, *arguments: object) -> None:
        try:
            work(*arguments)  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    def feed(part: list[Signal]) -> None:
        for signal in part:
            store.add(signal)
            store.hold(claim_of(signal))
            store.get_stats()

    def work() -> None:
        while len(taken) < 800 and not failures:
            for claim in store.take(3):
                taken.append(claim)
                store.update(claim.signal.id, result_of(claim.signal, rating=3))
            store.clean(10)

    threads = [threading.Thread(target=guarded, args=(feed, part)) for part in signals]
    threads += [threading.Thread(target=guarded, args=(work,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert len({claim.signal.id for claim in taken}) == len(taken) == 800
    stats = store.get_stats()
    assert (stats["processed"], stats["pending"], stats["processing"]) == (800, 0, 0)
    assert stats["rating_distribution"][3] == 800
