"""The store: bounded, quick, safe among threads, and it never forgets a task this process holds."""

import threading
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from database.records import decode_signal, encode_record
from llm_integration.memory_store import SignalMemoryStore
from llm_integration.model import (
    Abstention,
    Action,
    Claim,
    Decision,
    DecisionKind,
    Result,
    TaskStatus,
    Verdict,
)
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
    decision = Decision(DecisionKind.REVIEW, ("no verdict: unclear",)) if abstention else None
    return Result(
        signal.id, status, verdict, abstention, None, None, None, False, None, None, ms, START, decision=decision
    )


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


def urgent(number: int, strength: float = 0.0, age_s: float = 0.0, priority: int = 0, token: int = 1) -> Claim:
    signal = replace(SIGNALS[number], strength=strength)
    return Claim(signal, token, 1, START - timedelta(seconds=age_s), priority)


def test_tasks_are_taken_by_priority_then_age_to_which_strength_adds() -> None:
    store = SignalMemoryStore(20, FakeClock())
    order = [
        urgent(0, priority=2), urgent(1, age_s=100, priority=1), urgent(2, priority=1),
        urgent(3, strength=0.9), urgent(4, age_s=40, strength=0.2), urgent(5, strength=0.6), urgent(6, age_s=29),
        urgent(7), urgent(8, age_s=900, priority=-1),
    ]  # fmt: skip
    for place in (3, 8, 1, 6, 0, 5, 2, 7, 4):
        assert store.hold(order[place])
    assert store.first(4) == order[:4]
    assert store.first(99) == order
    assert [*store.take(2), *store.take(3), *store.take(99)] == order


def test_no_weak_signal_waits_for_ever() -> None:
    """A minute is worth as much as the greatest strength."""
    store = SignalMemoryStore(20, FakeClock())
    strong, weak = urgent(0, strength=1.0), urgent(1, strength=0.0, age_s=61)
    store.hold(strong)
    store.hold(weak)
    assert store.take(2) == [weak, strong]


def test_equally_urgent_tasks_are_taken_in_the_order_they_came() -> None:
    store = SignalMemoryStore(20, FakeClock())
    claims = [claim_of(SIGNALS[n]) for n in (7, 2, 9, 4)]
    for claim in claims:
        store.hold(claim)
    assert store.first(9) == claims
    assert store.take(9) == claims


def test_what_waits_too_long_is_taken_out_of_turn_and_nothing_that_is_worked_on() -> None:
    store = SignalMemoryStore(20, FakeClock())
    assert store.oldest() is None
    busy, old, older, fresh = (
        urgent(0, age_s=90, priority=9), urgent(1, age_s=60), urgent(2, age_s=70), urgent(3, age_s=59.999),
    )  # fmt: skip
    for claim in (busy, old, older, fresh):
        store.hold(claim)
    assert store.take(1) == [busy]
    assert store.oldest() == older.created_at
    assert store.take_late(START - timedelta(seconds=60)) == [old, older]
    assert [entry.status for claim in (old, older) if (entry := store.get(claim.signal.id))] == ["processing"] * 2
    assert store.oldest() == fresh.created_at
    assert store.take(9) == [fresh]


def test_places_of_dropped_tasks_are_passed_over_and_take_no_memory() -> None:
    store = SignalMemoryStore(20, FakeClock())
    for token in range(1, 2000):
        claim = urgent(token % 7, strength=token % 10 / 10, token=token)
        store.hold(claim)
        if token % 3:
            store.drop(claim)
    assert len(store._order) < 200
    waiting = store.claims(ready_only=True)
    assert store.first(99) == store.take(99)
    assert store.waiting() == 0
    assert len(waiting) == len({claim.signal.id for claim in waiting}) <= 7


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
                foreseen = store.first(n)
                assert store.take(n) == foreseen
                assert all(held[claim.signal.id] == claim for claim in foreseen)
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
        "decisions": {"allow": 0, "deny": 0, "review": 1}, "refused_for_room": 0,
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
