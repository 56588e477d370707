"""The gate before the models: who is asked about, whose verdict is taken over, who is skipped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.backends import backend_class
from llm_integration.calling_config import SelectiveSettings
from llm_integration.config import LLMConfig
from llm_integration.llm_processor import LLMProcessor
from llm_integration.model import Action, Claim, Result, TaskStatus, Verdict
from llm_integration.ports import BackendContext
from llm_integration.response_parser import LLMResponseParser
from llm_integration.selective import EarlierAnswer, SelectiveGate
from llm_integration.signal_formatter import SignalFormatter
from tests.fake_clock import FakeClock
from tests.marketdata import START, make_signal
from trading.model import Signal, Snapshot

SAID = Verdict(4, 0.8, Action.ENTER_LONG, "the bars rise", ("a gap",), "trending_up", "strict_json", False)
INDICATORS: dict[str, float | None] = {"rsi": 50.0, "macd": -2.0, "adx": None}


class Remembered:
    """EarlierAnswers in memory, that hands out whatever it was given."""

    def __init__(self, answers: Mapping[UUID, EarlierAnswer] | None = None) -> None:
        self.answers: Mapping[UUID, EarlierAnswer] | None = answers or {}
        self.asked = 0

    async def before(self, signals: Sequence[Signal], max_age_bars: int) -> Mapping[UUID, EarlierAnswer] | None:
        self.asked += 1
        return self.answers


def signal_at(bar: int, strength: float = 0.5, indicators: Mapping[str, float | None] = INDICATORS) -> Signal:
    signal = make_signal(bar)
    return replace(signal, strength=strength, snapshot=Snapshot(indicators, signal.snapshot.bars))


def claim_of(signal: Signal, attempt: int = 1) -> Claim:
    return Claim(signal, 1, attempt, START)


def answer_at(bar: int, **changes: Any) -> EarlierAnswer:
    signal = make_signal(bar)
    answer = EarlierAnswer(
        signal.id, signal.close_time, INDICATORS, SAID, "openrouter/some/model", "model-7", True, "v1"
    )
    return replace(answer, **changes)


async def judged(
    signal: Signal, earlier: EarlierAnswer | None = None, *, attempt: int = 1, known: bool = True, **settings: Any
) -> Result | None:
    """The signal's result, None where it is to be asked about."""
    memory = Remembered({signal.id: earlier} if earlier else {})
    if not known:
        memory.answers = None
    gate = SelectiveGate(SelectiveSettings(**settings), memory, FakeClock())
    claim = claim_of(signal, attempt)
    to_ask, settled = await gate.judge([claim])
    assert len(to_ask) + len(settled) == 1
    assert all(each is claim for each in to_ask)
    return settled[0][1] if settled else None


async def test_with_everything_off_nothing_is_judged_or_looked_up() -> None:
    memory = Remembered()
    gate = SelectiveGate(SelectiveSettings(), memory, FakeClock())
    claims = [claim_of(signal_at(bar)) for bar in range(3)]
    assert await gate.judge(claims) == (claims, [])
    assert memory.asked == 0


async def test_claims_are_looked_up_together() -> None:
    memory = Remembered()
    gate = SelectiveGate(SelectiveSettings(every_n_bars=2), memory, FakeClock())
    to_ask, _ = await gate.judge([claim_of(signal_at(bar)) for bar in range(5)])
    assert (len(to_ask), memory.asked) == (5, 1)


async def test_with_only_a_least_strength_strong_signals_are_not_looked_up() -> None:
    memory = Remembered()
    gate = SelectiveGate(SelectiveSettings(min_strength=0.4), memory, FakeClock())
    await gate.judge([claim_of(signal_at(0, 0.4))])
    assert memory.asked == 0


@pytest.mark.parametrize(("bars", "taken_over"), [(1, True), (4, True), (5, False), (6, False)])
async def test_a_model_is_asked_every_so_many_bars(bars: int, taken_over: bool) -> None:
    assert (await judged(signal_at(10), answer_at(10 - bars), every_n_bars=5) is not None) is taken_over


@pytest.mark.parametrize(("bars", "taken_over"), [(1, True), (2, True), (3, False)])
async def test_a_cooldown_goes_by_the_bars_time_and_not_by_ours(bars: int, taken_over: bool) -> None:
    """A clock that stands still, as good as it does in a replay, changes nothing."""
    assert (await judged(signal_at(10), answer_at(10 - bars), cooldown_seconds=180) is not None) is taken_over


@pytest.mark.parametrize(
    ("now", "taken_over"),
    [
        ({"rsi": 50.0, "macd": -2.0, "adx": None}, True),
        ({"rsi": 52.5, "macd": -1.91, "adx": None}, True),
        ({"rsi": 52.6, "macd": -2.0, "adx": None}, False),
        ({"rsi": 50.0, "macd": 2.0, "adx": None}, False),
        ({"rsi": 50.0, "macd": -2.0, "adx": 20.0}, False),
        ({"rsi": 50.0, "macd": None, "adx": None}, False),
        ({"rsi": 50.0, "macd": math.nan, "adx": None}, False),
        ({"rsi": 50.0, "adx": None}, False),
        ({"rsi": 50.0, "macd": -2.0, "adx": math.nan}, True),
    ],
)
async def test_indicators_within_the_tolerance_are_no_reason_to_ask(
    now: dict[str, float | None], taken_over: bool
) -> None:
    """5 % of what each was; one that came or went has changed, and what is not finite is not there."""
    result = await judged(signal_at(10, indicators=now), answer_at(9), indicator_tolerance=0.05)
    assert (result is not None) is taken_over


async def test_zero_stays_like_zero_only() -> None:
    earlier = answer_at(9, indicators={"macd": 0.0})
    assert await judged(signal_at(10, indicators={"macd": 0.0}), earlier, indicator_tolerance=0.5) is not None
    assert await judged(signal_at(10, indicators={"macd": 1e-9}), earlier, indicator_tolerance=0.5) is None


@pytest.mark.parametrize("none_known", [{}, {"rsi": None}])
async def test_without_a_known_indicator_nothing_shows_that_little_changed(none_known: dict[str, None]) -> None:
    earlier = answer_at(9, indicators=none_known)
    assert await judged(signal_at(10, indicators=none_known), earlier, indicator_tolerance=0.5) is None


async def test_without_a_tolerance_equal_indicators_are_asked_about() -> None:
    """0 is off, also where another rule has the last verdict looked up."""
    assert await judged(signal_at(10), answer_at(9), every_n_bars=1) is None


async def test_a_verdict_taken_over_says_so_and_says_whose_it_was() -> None:
    signal, earlier = signal_at(10), answer_at(7)
    result = await judged(signal, earlier, every_n_bars=5, cache_decay_rate=0.1)
    assert result is not None
    assert result.verdict is not None
    assert (result.status, result.signal_id) == (TaskStatus.COMPLETED, signal.id)
    assert result.verdict == replace(SAID, confidence=result.verdict.confidence, rationale=result.verdict.rationale)
    assert result.verdict.confidence == pytest.approx(0.8 * 0.9**3)
    assert result.verdict.rationale == (
        "[taken over from 2026-01-05 09:08:00, 3 bars ago: a model is asked every 5 bars] the bars rise"
    )
    assert (result.model, result.answered_model, result.fallback, result.prompt_version) == (
        "openrouter/some/model", "model-7", True, "v1",
    )  # fmt: skip
    assert (result.reused_from, result.reused_age_s) == (earlier.signal_id, 180.0)
    assert (result.call_id, result.rating_expected, result.members) == (None, None, None)


async def test_no_call_is_no_tokens_and_no_cost_unless_an_earlier_attempt_made_some() -> None:
    """A second attempt may follow calls that are stored elsewhere: then it is not known."""
    first = await judged(signal_at(10), answer_at(9), every_n_bars=5)
    second = await judged(signal_at(10), answer_at(9), every_n_bars=5, attempt=2)
    assert first is not None
    assert second is not None
    assert (first.prompt_tokens, first.completion_tokens, first.cost_usd) == (0, 0, Decimal(0))
    assert (second.prompt_tokens, second.completion_tokens, second.cost_usd) == (None, None, None)


async def test_a_confidence_that_was_not_stated_stays_unknown() -> None:
    result = await judged(signal_at(10), answer_at(9, verdict=replace(SAID, confidence=None)), every_n_bars=5)
    assert result is not None
    assert result.verdict is not None
    assert result.verdict.confidence is None


async def test_with_no_earlier_answer_or_an_abstention_a_model_is_asked() -> None:
    assert await judged(signal_at(10), None, every_n_bars=5) is None
    assert await judged(signal_at(10), answer_at(9, verdict=None), every_n_bars=5) is None


async def test_a_verdict_too_old_is_not_taken_over() -> None:
    asked = {"every_n_bars": 100, "max_age_bars": 20}
    assert await judged(signal_at(30), answer_at(10), **asked) is not None
    assert await judged(signal_at(30), answer_at(9), **asked) is None


async def test_a_weak_signal_takes_the_last_verdict_over_or_is_skipped() -> None:
    weak = signal_at(10, strength=0.2)
    taken = await judged(weak, answer_at(8), min_strength=0.3)
    assert taken is not None
    assert taken.reused_from == answer_at(8).signal_id
    for earlier in (None, answer_at(8, verdict=None)):
        skipped = await judged(weak, earlier, min_strength=0.3)
        assert skipped is not None
        assert (skipped.status, skipped.verdict) == (TaskStatus.SKIPPED, None)
        assert skipped.error == (
            "the signal's strength 0.2 is below 0.3, and an earlier verdict to take over does not exist"
        )


async def test_while_nothing_can_be_looked_up_models_are_asked_but_not_about_weak_signals() -> None:
    assert await judged(signal_at(10), known=False, every_n_bars=5) is None
    skipped = await judged(signal_at(10, 0.2), known=False, min_strength=0.3)
    assert skipped is not None
    assert skipped.error is not None
    assert "cannot be looked up at present" in skipped.error


SETTINGS = st.fixed_dictionaries(
    {
        "every_n_bars": st.integers(0, 6),
        "min_strength": st.sampled_from([0.0, 0.6]),
        "cooldown_seconds": st.sampled_from([0.0, 90.0, 300.0]),
        "indicator_tolerance": st.sampled_from([0.0, 0.1]),
        "cache_decay_rate": st.floats(0, 1),
        "max_age_bars": st.integers(1, 10),
    }
)


@given(SETTINGS, st.integers(0, 20), st.integers(0, 20), st.floats(0, 1))
async def test_no_verdict_comes_from_the_same_bar_or_a_later_one(
    settings: dict[str, Any], asked_bar: int, bar: int, strength: float
) -> None:
    """Whatever is looked up, as by a worker that is ahead; nor from too long ago, nor surer than it was."""
    result = await judged(signal_at(bar, strength), answer_at(asked_bar), **settings)
    if result is not None and result.reused_from is not None:
        assert asked_bar < bar <= asked_bar + settings["max_age_bars"]
        assert result.reused_age_s == (bar - asked_bar) * 60
        assert result.verdict is not None
        assert 0 <= (result.verdict.confidence or 0) <= 0.8


@given(SETTINGS, st.lists(st.tuples(st.integers(0, 20), st.floats(0, 1)), max_size=6, unique_by=lambda each: each[0]))
async def test_every_claim_is_either_asked_about_or_settled(
    settings: dict[str, Any], drawn: list[tuple[int, float]]
) -> None:
    claims = [claim_of(signal_at(bar, strength)) for bar, strength in drawn]
    memory = Remembered({claim.signal.id: answer_at(3) for claim in claims})
    to_ask, settled = await SelectiveGate(SelectiveSettings(**settings), memory, FakeClock()).judge(claims)
    done = [claim for claim, _ in settled]
    assert sorted(id(each) for each in (*to_ask, *done)) == sorted(map(id, claims))
    assert all(result.signal_id == claim.signal.id and result.status.final for claim, result in settled)


async def test_settling_takes_the_time_it_takes() -> None:
    """From claim to result, as for any other."""
    clock = FakeClock()

    class Slow(Remembered):
        async def before(self, signals: Sequence[Signal], max_age_bars: int) -> Mapping[UUID, EarlierAnswer] | None:
            await clock.advance(0.25)
            return await super().before(signals, max_age_bars)

    signal = signal_at(10)
    gate = SelectiveGate(SelectiveSettings(every_n_bars=5), Slow({signal.id: answer_at(9)}), clock)
    _, ((_, result),) = await gate.judge([claim_of(signal)])
    assert result.processing_ms == 250.0
    assert result.finished_at == clock.now() == FakeClock().now() + timedelta(seconds=0.25)


async def test_a_processor_asks_no_model_about_what_the_gate_settles() -> None:
    """One of two is taken over, the other is rated by the rules; each gets its own result."""
    config = LLMConfig(model="rules/baseline")
    old, new = signal_at(10), signal_at(20)
    gate = SelectiveGate(SelectiveSettings(every_n_bars=5), Remembered({old.id: answer_at(8)}), FakeClock(START))
    formatter, clock = SignalFormatter(3, ["rsi"]), FakeClock(START)
    rules = backend_class("rules")(BackendContext("rules", clock))
    processor = LLMProcessor(config, formatter, LLMResponseParser(), rules, clock, gate=gate)
    processed = await processor.process([claim_of(old), claim_of(new)])
    results = {result.signal_id: result for _, result, _ in processed if isinstance(result, Result)}
    assert results[old.id].reused_from == answer_at(8).signal_id
    assert (results[new.id].reused_from, results[new.id].model) == (None, "rules/baseline")
