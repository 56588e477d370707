"""What holds for every reply: nothing raises, a whole reply comes back as it was, a cut one never as another."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_integration.model import Abstention, Action, Verdict
from llm_integration.response_parser import LLMResponseParser
from tests.unit.test_response_parser import SIGNAL

REPLIES = st.fixed_dictionaries({
    "regime": st.sampled_from(["trending_up", "ranging", "unclear"]),
    "rationale": st.text(max_size=60),
    "risks": st.lists(st.text(max_size=20), max_size=3),
    "rating": st.integers(1, 5),
    "confidence_percent": st.integers(0, 100),
    "action": st.sampled_from([action.value for action in Action]),
})  # fmt: skip
SCRAPS = st.sampled_from([
    '{"', '"action": "buy"', '"rating": 4', '"confidence": 8', "}", "{", "[", "]", ",", "```json\n", "```", "<think>",
    "</think>", "Action: ", "Rating: ", "Confidence: ", "SELL", "not ", " | ", "85%", "7/10", "\n", "建议：", "买入",
    "不", "NaN", "\\", '"', "FINAL TRANSACTION PROPOSAL: ", "<|channel|>", "\x00", "\ud800", "１２",
])  # fmt: skip


def read(text: str, finish_reason: str | None = None) -> Verdict | Abstention:
    async def once() -> Verdict | Abstention:
        parser = LLMResponseParser()
        try:
            return await parser.parse(text, SIGNAL, finish_reason)
        finally:
            await parser.close()

    return asyncio.run(once())


def answer(verdict: Verdict) -> tuple[object, ...]:
    return verdict.rating, verdict.confidence, verdict.action


@given(REPLIES, st.randoms(use_true_random=False), st.sampled_from([None, 2]))
def test_a_whole_reply_comes_back_as_it_was(reply: dict[str, Any], random: Any, indent: int | None) -> None:
    keys = list(reply)
    random.shuffle(keys)
    verdict = read(json.dumps({key: reply[key] for key in keys}, indent=indent, ensure_ascii=False))
    assert isinstance(verdict, Verdict)
    assert answer(verdict) == (reply["rating"], reply["confidence_percent"] / 100, reply["action"])
    assert verdict.rationale == reply["rationale"].replace("\x00", "\ufffd").strip()


@settings(max_examples=150, deadline=None)
@given(REPLIES, st.randoms(use_true_random=False), st.sampled_from([None, 2]), st.data())
def test_a_reply_cut_off_anywhere_is_never_read_as_another(
    reply: dict[str, Any], random: Any, indent: int | None, data: st.DataObject
) -> None:
    keys = list(reply)
    random.shuffle(keys)
    text = json.dumps({key: reply[key] for key in keys}, indent=indent, ensure_ascii=False)
    cut = read(text[: data.draw(st.integers(0, len(text) - 1))])
    whole = reply["rating"], reply["confidence_percent"] / 100, reply["action"]
    assert isinstance(cut, Abstention) or answer(cut) == whole


LAYOUTS: list[Callable[[str, int, int], str]] = [
    lambda action, rating, percent: f"{action} | {percent}% | because of the trend",
    lambda action, rating, percent: f"Action: {action}\nRating: {rating}/5\nConfidence: {percent}%\n",
    lambda action, rating, percent: f"**Rating**: {rating}\n**Confidence**: {percent / 100}\n**Decision**: {action}\n",
    lambda action, rating, percent: f"Decision: {action}\nConfidence: {percent / 100}\n",
    lambda action, rating, percent: (
        f"Confidence: {percent}%\nDecision: {action}\nRating: **{2 * rating}** out of 10.\n"
    ),
]


@settings(deadline=None)
@given(
    st.sampled_from(["BUY", "SELL", "HOLD", "CLOSE", "Overweight", "Underweight"]), st.integers(1, 5),
    st.integers(11, 100), st.sampled_from(LAYOUTS), st.data(),
)  # fmt: skip
def test_prose_cut_off_anywhere_states_nothing_else(
    action: str, rating: int, percent: int, layout: Callable[[str, int, int], str], data: st.DataObject
) -> None:
    text = layout(action, rating, percent)
    whole = read(text)
    assert isinstance(whole, Verdict)
    cut = read(text[: data.draw(st.integers(0, len(text) - 1))])
    if isinstance(cut, Verdict):
        for part, full in zip(answer(cut), answer(whole), strict=True):
            assert part is None or part == full


@settings(max_examples=200, deadline=None)
@given(st.lists(SCRAPS | st.text(max_size=10), max_size=25).map("".join))
def test_nothing_makes_the_parser_raise(text: str) -> None:
    assert isinstance(read(text), Verdict | Abstention)


@settings(max_examples=150, deadline=None)
@given(REPLIES, st.data())
def test_a_good_reply_with_a_piece_broken_does_not_make_the_parser_raise(
    reply: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps(reply)
    start, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 12))
    mutated = text[:start] + data.draw(SCRAPS | st.just("")) + text[start + length :]
    assert isinstance(read(mutated), Verdict | Abstention)
