"""What a model is shown: the signal, its bars up to its close, the chosen indicators, and nothing that can speak."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.calling.tokens import estimate_tokens
from llm_integration.prompts import content_version, load_prompt
from llm_integration.prompts.values import number_text, quote
from llm_integration.signal_formatter import SignalFormatter
from trading.errors import SettingsError
from trading.model import Bar, Side, Signal, Snapshot

START = datetime(2026, 11, 20, 10, tzinfo=UTC)


def made_signal(count: int = 30, **changes: object) -> Signal:
    bars = tuple(
        Bar(
            "BTC/USDT",
            "5m",
            START + timedelta(minutes=5 * i),
            100.0 + i,
            101.5 + i,
            99.25 + i,
            100.5 + i,
            None,
            "replay",
        )
        for i in range(count)
    )
    snapshot = Snapshot({"rsi": 54.2389123871238, "sma_20": None}, bars)
    return replace(Signal.on(bars[-1], "ma_cross_10_30", Side.LONG, 0.75, snapshot), **changes)


def shown(signal: Signal, lookback: int = 3, indicators: tuple[str, ...] = ("rsi", "sma_20")) -> str:
    return SignalFormatter(lookback, indicators).messages([signal])[1].content


def test_only_the_last_bars_are_shown_up_to_the_signals_own() -> None:
    lines = shown(made_signal(), lookback=2).splitlines()
    table = lines[lines.index("time,open,high,low,close,volume") + 1 :]
    assert table[0] == "2026-11-20 12:20:00,128,129.5,127.25,128.5,n/a"
    assert table[1] == "2026-11-20 12:25:00,129,130.5,128.25,129.5,n/a"
    assert table[2].startswith("indicators")


def test_a_bar_that_closed_after_the_signal_is_refused() -> None:
    signal = made_signal()
    with pytest.raises(ValueError, match="must not see what came later"):
        shown(replace(signal, close_time=signal.close_time - timedelta(minutes=5)))


def test_a_bar_of_another_timeframe_that_closed_later_is_refused() -> None:
    signal = made_signal()
    last = replace(signal.snapshot.bars[-1], timeframe="1h")
    with pytest.raises(ValueError, match="must not see what came later"):
        shown(replace(signal, snapshot=replace(signal.snapshot, bars=(*signal.snapshot.bars[:-1], last))))


def test_bars_out_of_order_are_refused() -> None:
    signal = made_signal()
    bars = tuple(reversed(signal.snapshot.bars))
    with pytest.raises(ValueError, match="not in order"):
        shown(replace(signal, snapshot=replace(signal.snapshot, bars=bars)))


def test_an_indicator_that_is_not_known_is_not_made_up() -> None:
    text = shown(made_signal(), indicators=("rsi", "sma_20", "atr"))
    assert "rsi: 54.238912\nsma_20: n/a\natr: n/a\n" in text


def test_the_same_signal_gives_the_same_bytes() -> None:
    one, other = SignalFormatter(20, ("rsi",)), SignalFormatter(20, ("rsi",))
    assert one.messages([made_signal()]) == other.messages([made_signal()])
    assert one.version == other.version


def test_the_system_prompt_is_first_and_the_same_for_one_signal_and_for_several() -> None:
    formatter = SignalFormatter(5, ("rsi",))
    single, batch = formatter.messages([made_signal()]), formatter.messages([made_signal(), made_signal(40)])
    assert single[0] == batch[0]
    assert [message.role for message in single] == ["system", "user"]
    assert single[1].content.endswith("END SIGNAL 1")


def test_signals_of_a_batch_are_numbered_in_order() -> None:
    content = SignalFormatter(1, ()).messages([made_signal(3), made_signal(4), made_signal(5)])[1].content
    assert [line for line in content.splitlines() if line.startswith("BEGIN SIGNAL")] == [
        "BEGIN SIGNAL 1", "BEGIN SIGNAL 2", "BEGIN SIGNAL 3",
    ]  # fmt: skip
    assert "list of exactly 3 objects" in content


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_figures_keep_every_digit_and_show_no_exponent(value: float) -> None:
    text = number_text(value)
    assert float(text) == value
    assert "e" not in text.casefold()


def test_what_is_no_number_is_shown_as_not_known() -> None:
    assert [number_text(value) for value in (None, float("nan"), float("inf"))] == ["n/a"] * 3


@given(st.text(max_size=150))
def test_outside_text_is_one_quoted_line_that_means_the_same(text: str) -> None:
    quoted = quote(text)
    assert quoted.splitlines() == [quoted]
    assert not set("<>`[]{}|#&\n\r\t") & set(quoted)
    assert json.loads(quoted) == text


def test_an_overlong_name_is_cut_and_says_so() -> None:
    assert quote("x" * 5000) == '"' + "x" * 200 + '" (cut from 5000 characters)'


def test_the_version_changes_with_any_part_of_the_prompt() -> None:
    assert content_version(["a", "b"]) != content_version(["a", "c"])
    assert content_version(["ab", "c"]) != content_version(["a", "bc"])
    assert len(load_prompt().version) == 12


def test_a_batch_schema_asks_for_exactly_one_entry_per_signal() -> None:
    verdicts = (SignalFormatter(1, ()).schema(3) or {})["properties"]["verdicts"]
    assert (verdicts["minItems"], verdicts["maxItems"]) == (3, 3)
    assert verdicts["items"]["properties"]["signal"]["maximum"] == 3


def test_the_token_estimate_counts_bytes_and_the_whole_reply() -> None:
    messages = SignalFormatter(20, ("rsi",)).messages([made_signal()])
    size = sum(len(message.content.encode()) for message in messages)
    assert estimate_tokens(messages, 1024, bytes_per_token=2.0) == pytest.approx(size / 2 + 1024, abs=10)


def test_as_json_or_as_a_line_no_schema_is_asked_for() -> None:
    modes = {mode: SignalFormatter(1, (), mode=mode) for mode in ("schema", "json", "line")}
    assert {mode: (one.schema() is None, one.json_object, one.most_at_once) for mode, one in modes.items()} == {
        "schema": (False, False, None), "json": (True, True, None), "line": (True, False, 1),
    }  # fmt: skip


def test_one_line_is_asked_about_one_signal_only() -> None:
    formatter = SignalFormatter(1, (), mode="line")
    assert "\nACTION | confidence | reason\n" in formatter.messages([made_signal()])[1].content
    with pytest.raises(ValueError, match="one line answers for one signal"):
        formatter.messages([made_signal(), made_signal(40)])


def test_a_prompt_that_proposes_trades_cannot_be_answered_in_a_line() -> None:
    with pytest.raises(SettingsError, match="has no line part"):
        SignalFormatter(1, (), load_prompt("propose_trade.v1"), mode="line")


def test_the_schema_is_the_one_the_prompts_contract_names() -> None:
    formatter = SignalFormatter(1, (), load_prompt("propose_trade.v1"))
    assert formatter.schema_name == "propose_trade"
    assert "intent" in (formatter.schema() or {})["properties"]


def test_it_says_who_made_a_signal_and_whose_bars_are_shown() -> None:
    """On a stream that is watched here a signal from outside has its source; else its source is its sender."""
    ours = made_signal()
    theirs = replace(ours, source="tradingview", origin="tradingview")
    empty = replace(theirs, snapshot=Snapshot({}, ()))
    said = [next(line for line in shown(each).splitlines() if line.startswith("origin: ")) for each in (
        ours, replace(ours, origin="api"), theirs, empty,
    )]  # fmt: skip
    assert said == [
        "origin: a rule here, on bars watched here",
        'origin: sent by "api"; the bars and indicators are those watched here',
        'origin: sent by "tradingview"; the bars and indicators are the sender\'s, not checked',
        'origin: sent by "tradingview"; no bars are watched here, and none were sent',
    ]


def test_the_indicators_that_a_sender_gave_are_shown_under_their_own_names() -> None:
    snapshot = Snapshot({"their rsi\n5": 55.0, "rsi": 60.0}, ())
    text = shown(replace(made_signal(), source="api", origin="api", snapshot=snapshot))
    assert "indicators at that close\ntheir rsi\\u000a5: 55\nrsi: 60\nEND SIGNAL" in text
