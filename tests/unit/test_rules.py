"""The rules: what they say of a signal, and that they say nothing where there is nothing to go by."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.backends.rules import Backend, rate
from llm_integration.contracts import batch_schema, load_schema
from llm_integration.errors import RequestRejected
from llm_integration.ports import BackendContext, ChatReply, ChatRequest
from tests.fake_clock import FakeClock
from trading.model import Bar, Side, Signal, Snapshot

GOOD = {
    "sma_20": 104.0, "sma_50": 100.0, "atr": 2.0, "rsi": 60.0, "bb_lower": 104.0, "bb_upper": 112.0,
    "stochastic_k": 55.0, "stochastic_d": 50.0, "volume_ratio": 1.8,
}  # fmt: skip


def signal(
    indicators: dict[str, float | None], side: Side = Side.LONG, price: float = 106.0, height: float = 2
) -> Signal:
    low, high = price - height / 2, price + height / 2
    bar = Bar("BTC/USDT", "1h", datetime(2026, 1, 5, tzinfo=UTC), price, high, low, price, 10.0, "test")
    return Signal.on(bar, "test", side, 0.5, Snapshot(indicators, (bar,)))


def mirrored(indicators: dict[str, float]) -> dict[str, float]:
    """The same picture upside down, around a price of 106."""
    turned = {name: 212 - value for name, value in indicators.items()}
    return {
        **turned,
        "bb_lower": turned["bb_upper"], "bb_upper": turned["bb_lower"],
        "rsi": 100 - indicators["rsi"], "stochastic_k": 100 - indicators["stochastic_k"],
        "stochastic_d": 100 - indicators["stochastic_d"],
        "atr": indicators["atr"], "volume_ratio": indicators["volume_ratio"],
    }  # fmt: skip


async def ask(*signals: Signal, **fields: Any) -> ChatReply:
    return await Backend(BackendContext("rules", FakeClock())).chat(
        ChatRequest((), "baseline", signals=signals, **fields)
    )


def fits(answer: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether an answer keeps to the contract's fields and bounds."""
    bounds = schema["properties"]
    return (
        set(answer) == set(schema["required"])
        and answer["regime"] in bounds["regime"]["enum"]
        and answer["action"] in bounds["action"]["enum"]
        and len(answer["rationale"]) <= bounds["rationale"]["maxLength"]
        and len(answer["risks"]) <= bounds["risks"]["maxItems"]
        and all(len(risk) <= bounds["risks"]["items"]["maxLength"] for risk in answer["risks"])
        and 1 <= answer["rating"] <= 5
        and 0 <= answer["confidence_percent"] <= 100
    )


def test_a_long_with_the_trend_is_confirmed() -> None:
    """Averages in order, momentum, volume: 5, and the signal's own action."""
    answer = rate(signal(GOOD))
    assert (answer["rating"], answer["action"], answer["regime"]) == (5, "enter_long", "trending_up")


def test_the_table_gives_the_score_it_says() -> None:
    """Worked by hand: (3*1 + 2*1 + 2*.5 + 2*.25 + 1*.5 + 1*1 + 1*.25) / 12 = 0.6875; confidence 0.5 + 0.34."""
    answer = rate(signal(GOOD))
    assert str(answer["rationale"]).startswith("score +0.69: ")
    assert answer["confidence_percent"] == 84


def test_a_short_against_it_is_rejected() -> None:
    """The same picture speaks against a short: the action is to hold, the risks say why."""
    answer = rate(signal(GOOD, Side.SHORT))
    assert answer["rating"] in (1, 2) and answer["action"] == "hold"
    assert str(answer["risks"][0]).startswith("trend")  # type: ignore[index]


def test_a_short_is_a_long_upside_down() -> None:
    """Mirrored, the picture gives the mirrored signal the same rating and confidence."""
    long, short = rate(signal(GOOD)), rate(signal(mirrored(GOOD), Side.SHORT))
    assert (long["rating"], long["confidence_percent"]) == (short["rating"], short["confidence_percent"])
    assert (short["action"], short["regime"]) == ("enter_short", "trending_down")


def test_an_exit_is_confirmed_where_a_move_is_stretched() -> None:
    """Flat averages, extreme oscillators and a price outside its bands speak for an exit, a calm trend against it."""
    stretched = {**GOOD, "sma_20": 100.1, "sma_50": 100.0, "rsi": 80.0, "stochastic_k": 95.0, "bb_upper": 105.0}
    assert (rate(signal(stretched, Side.EXIT))["rating"], rate(signal(stretched, Side.EXIT))["action"]) == (5, "exit")
    assert rate(signal({**GOOD, "volume_ratio": 0.9}, Side.EXIT))["rating"] in (1, 2)


def test_what_is_missing_contributes_nothing_and_costs_confidence() -> None:
    """Without half of the indicators the same score is less sure."""
    whole = rate(signal(GOOD))
    part = rate(signal({**GOOD, "volume_ratio": None, "stochastic_k": None, "rsi": math.nan}))
    assert part["confidence_percent"] < whole["confidence_percent"]  # type: ignore[operator]
    assert "rsi" not in str(part["rationale"]) and "volume" not in str(part["rationale"])


async def test_with_nothing_to_go_by_no_rating_is_made_up() -> None:
    """No indicator: no rating, no action, and a reason."""
    reply = await ask(signal({"sma_20": None, "rsi": math.inf}))
    assert list(json.loads(reply.text)) == ["rationale"]


async def test_the_reply_is_what_a_model_would_send() -> None:
    """One signal gives the contract's object; it costs nothing and takes no tokens."""
    reply = await ask(signal(GOOD), schema=load_schema())
    assert fits(json.loads(reply.text), load_schema())
    assert (reply.model, reply.cost_usd, reply.prompt_tokens, reply.finish_reason) == (
        "baseline",
        Decimal(0),
        0,
        "stop",
    )


@pytest.mark.parametrize("count", [1, 3])
async def test_a_batch_is_answered_by_number(count: int) -> None:
    """Each signal's entry carries its number, even where the batch holds one."""
    schema = load_schema()
    signals = [signal(GOOD, side) for side in (Side.LONG, Side.SHORT, Side.EXIT)][:count]
    verdicts = json.loads((await ask(*signals, schema=batch_schema(schema, count))).text)["verdicts"]
    assert [verdict.pop("signal") for verdict in verdicts] == list(range(1, count + 1))
    assert all(fits(verdict, schema) for verdict in verdicts)


async def test_the_text_is_handed_on_in_one_piece() -> None:
    """Nothing comes before the whole is there, and it is not said to."""
    pieces: list[str] = []
    reply = await ask(signal(GOOD), on_delta=pieces.append)
    assert pieces == [reply.text] and reply.cost_source == "free"
    can = Backend(BackendContext("rules", FakeClock())).capabilities("baseline")
    assert (can.schema, can.streaming, can.logprobs, can.local) == (True, False, False, True)


async def test_a_request_about_no_signal_is_refused() -> None:
    """There is nothing to rate."""
    with pytest.raises(RequestRejected):
        await ask()


values = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.fixed_dictionaries(dict.fromkeys(GOOD, values)), st.sampled_from(Side),
    st.floats(1e-8, 1e9), st.floats(0, 1e9),
)  # fmt: skip
def test_no_picture_breaks_the_contract(
    indicators: dict[str, float | None], side: Side, price: float, height: float
) -> None:
    """Whatever the values, the answer keeps to the schema or states no rating; the same picture gives the same one."""
    one = signal(indicators, side, price, height)
    answer = rate(one)
    assert fits(answer, load_schema()) or list(answer) == ["rationale"]
    assert answer == rate(one)
