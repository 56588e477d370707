"""Prompts of one's own: fields by name, figures as written, and every mistake said before anything starts."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_integration.contracts import contract_names
from llm_integration.prompts import SIGNAL_FIELDS, load_prompt
from llm_integration.prompts.template import Figure, read_template
from llm_integration.signal_formatter import SignalFormatter
from tests.unit.test_signal_formatter import made_signal
from trading.errors import SettingsError
from trading.model import Snapshot

SIGNAL = "Signal {number}: {side} {symbol}, RSI {rsi:.1f}, ADX {adx_14:.1f}\n{bars}\n"


def catalogue(name: str) -> bool:
    return name in {"rsi", "adx_14", "macd_12_26_9.signal", "kc_20_1.5"}


def written(folder: Path, **parts: str) -> Path:
    for part, text in parts.items():
        (folder / f"mine.{part}.txt").write_text(text, "utf-8")
    return folder


def mistakes(folder: Path, **parts: str) -> list[str]:
    """What is said of a prompt of these parts, without what is the same in each line."""
    with pytest.raises(SettingsError) as caught:
        load_prompt("mine", written(folder, **parts)).require_signals(catalogue)
    return [line.removeprefix("llm.prompt = 'mine': ").replace(f"{folder}/", "") for line in caught.value.mistakes]


def asked(folder: Path, signal_part: str, indicators: dict[str, float | None]) -> str:
    """The question about a signal, with that signal part."""
    prompt = load_prompt("mine", written(folder, single="{signals}", signal=signal_part))
    signal = made_signal(3)
    shown = Snapshot(indicators, signal.snapshot.bars)
    return SignalFormatter(1, ("rsi",), prompt, knows_indicator=catalogue).messages([
        type(signal).on(shown.bars[-1], signal.strategy, signal.side, 0.75, shown)
    ])[1].content  # fmt: skip


@pytest.mark.parametrize("name", contract_names())
def test_what_is_built_in_can_ask_about_signals(name: str) -> None:
    prompt = load_prompt(name)
    prompt.require_signals(lambda indicator: False)
    assert prompt.contract == name
    assert set(prompt.parts["signal"].names) == set(SIGNAL_FIELDS)


def test_a_prompt_of_ones_own_names_indicators_and_how_they_are_written(tmp_path: Path) -> None:
    text = asked(tmp_path, SIGNAL, {"rsi": 54.2389, "adx_14": 23.05})
    assert text.splitlines()[0] == 'Signal 1: long "BTC\\u002fUSDT", RSI 54.2, ADX 23.1'.replace("\\u002f", "/")


def test_an_indicator_that_is_not_known_is_not_written_as_a_figure(tmp_path: Path) -> None:
    text = asked(tmp_path, "{number} {side} {rsi:.1f} {adx_14:,.0f} {adx_14}", {"rsi": None, "adx_14": float("nan")})
    assert text == "1 long n/a n/a n/a"


def test_an_indicator_without_a_way_to_write_it_has_eight_digits(tmp_path: Path) -> None:
    assert asked(tmp_path, "{number} {side} {rsi}", {"rsi": 54.2389123871238}) == "1 long 54.238912"


def test_a_prompt_says_which_indicators_it_needs(tmp_path: Path) -> None:
    prompt = load_prompt("mine", written(tmp_path, signal=SIGNAL + "{macd_12_26_9.signal:+.2f} {kc_20_1.5}"))
    assert prompt.indicators == ("rsi", "adx_14", "macd_12_26_9.signal", "kc_20_1.5")


def test_parts_that_are_missing_are_those_built_in(tmp_path: Path) -> None:
    prompt, built_in = load_prompt("mine", written(tmp_path, signal=SIGNAL)), load_prompt()
    assert prompt.parts["single"] == built_in.parts["single"]
    assert prompt.system == built_in.system
    assert prompt.version != built_in.version


def test_the_parts_missing_are_those_of_the_contract_it_names(tmp_path: Path) -> None:
    prompt = load_prompt("mine", written(tmp_path, system="Trade.", contract="propose_trade.v1\n"))
    assert prompt.contract == "propose_trade.v1"
    assert '"intent": "propose_trade"' in prompt.parts["single"].fill({"signals": ""})
    prompt.require_signals(catalogue)


def test_a_prompt_built_in_can_be_edited_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "rate_signal.v1.system.txt").write_text("Be brief.")
    assert load_prompt("rate_signal.v1", tmp_path).system == "Be brief."


def test_a_file_with_a_byte_order_mark_and_windows_lines_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.system.txt").write_bytes(b"\xef\xbb\xbfBe brief.\r\nBe {{fair}}.\r\n")
    assert load_prompt("mine", tmp_path).system == "Be brief.\nBe {fair}."


def test_every_mistake_is_a_line_that_says_where_it_is(tmp_path: Path) -> None:
    assert mistakes(
        tmp_path,
        system="Today is {close_time}.",
        single="{signal}",
        signal="{number} {side} {bars}\n{simbol}\n{position_status}\n{symbol:.1f} {bars:>20}",
    ) == [
        "mine.system.txt, line 1: {close_time} cannot stand in the system part, which is the same for every signal; "
        "move it to the signal part",
        "mine.single.txt, line 1: the field {signal} is not known; did you mean {signals}? known are signals",
        "mine.single.txt: the field {signals} is missing",
        "mine.signal.txt, line 2: the field {simbol} is not known; did you mean {symbol}? known are number, source, "
        "symbol, timeframe, strategy, side, strength, close_time, price, origin, bar_sources, bar_count, bars, "
        "indicators, and the name of any indicator, as in {adx_14:.1f}",
        "mine.signal.txt, line 3: the field {position_status} is not known; known are number, source, "
        "symbol, timeframe, strategy, side, strength, close_time, price, origin, bar_sources, bar_count, bars, "
        "indicators, and the name of any indicator, as in {adx_14:.1f}",
        "mine.signal.txt, line 4: {symbol} is a text; it takes no ':.1f'",
        "mine.signal.txt, line 4: {bars} is a text; it takes no ':>20'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"regime": string}', 'line 1: {"regime": string} is no field; write {{ and }} for braces'),
        ("a\n{\n", "line 2: a { stands alone; write {{"),
        ("a }", "a } stands alone; write }}"),
        ("{}", "{} is no field"),
        ("{0}", "{0} is no field"),
        ("{Symbol}", "{Symbol} is no field"),
        ("{symbol!r}", "{symbol!r} has a conversion"),
        ("{bars[0]}", "{bars[0]} reaches into a value"),
        ("{symbol.__class__}", "{symbol.__class__} is not known"),
        ("{price:>{bar_count}}", "a { stands alone"),
        ("{price:d}", "is to be written 'd'"),
        ("{price:.500f}", "is to be written '.500f'"),
        ("{price:99999}", "is to be written '99999'"),
        ("", "mine.signal.txt is empty"),
    ],
)
def test_what_is_no_plain_field_is_refused(text: str, said: str, tmp_path: Path) -> None:
    assert any(said in line for line in mistakes(tmp_path, signal=text)), said


def test_the_data_of_a_signal_must_be_shown(tmp_path: Path) -> None:
    assert mistakes(tmp_path, signal="{symbol}") == [
        "mine.signal.txt: the field {number} is missing",
        "mine.signal.txt: the field {side} is missing",
        "mine.signal.txt: it shows nothing of the market; use {bars}, {indicators} or {price}",
    ]


def test_what_a_proposed_trade_repeats_must_be_shown(tmp_path: Path) -> None:
    found = mistakes(tmp_path, signal="{number} {side} {price}", contract="propose_trade.v1")
    assert [line.rpartition(": ")[2] for line in found] == [
        "the field {symbol} is missing; the reply has to repeat it",
        "the field {timeframe} is missing; the reply has to repeat it",
    ]


def test_a_part_that_only_other_programs_can_fill_is_refused_for_signals(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, context="Position: {position_status}")
    assert found.startswith("mine.context.txt: there is nothing to fill it with")


def test_a_formatter_refuses_a_prompt_with_indicators_it_does_not_show(tmp_path: Path) -> None:
    prompt = load_prompt("mine", written(tmp_path, signal=SIGNAL))
    with pytest.raises(SettingsError, match="adx_14"):
        SignalFormatter(1, ("rsi",), prompt)


@pytest.mark.parametrize(
    ("name", "files", "said"),
    [
        ("other", {"mine.system.txt": b"x"}, "no such prompt in .*; there are mine, propose_trade.v1, rate_signal.v1"),
        ("mine", {"mine.sytem.txt": b"x"}, "mine.sytem.txt is no part of a prompt; expected mine.<part>.txt"),
        ("mine", {"mine.system.txt": b"\xff\xfe\x00"}, "mine.system.txt cannot be read"),
        ("mine", {"mine.contract.txt": b"place_order.v1"}, "names 'place_order.v1'; expected one of propose_trade.v1"),
        ("../mine", {}, "expected letters, digits"),
    ],
)
def test_files_that_are_no_prompt_are_refused(name: str, files: dict[str, bytes], said: str, tmp_path: Path) -> None:
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        load_prompt(name, tmp_path)


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"llm\.prompts_directory = .*nowhere': there is no such directory"):
        load_prompt("mine", tmp_path / "nowhere")


def test_a_longer_name_does_not_disturb_a_shorter_one(tmp_path: Path) -> None:
    (tmp_path / "mine.v2.system.txt").write_text("Second.")
    written(tmp_path, system="First.")
    assert (load_prompt("mine", tmp_path).system, load_prompt("mine.v2", tmp_path).system) == ("First.", "Second.")


def test_the_version_is_that_of_the_content(tmp_path: Path) -> None:
    first = load_prompt("mine", written(tmp_path, system="a")).version
    assert load_prompt("mine", tmp_path).version == first
    assert load_prompt("mine", written(tmp_path, system="b")).version != first
    assert load_prompt("mine", written(tmp_path, system="a", contract="propose_trade.v1")).version != first


def test_a_program_fills_parts_with_what_only_it_knows(tmp_path: Path) -> None:
    prompt = load_prompt(
        "mine", written(tmp_path, system="You trade {symbol}.", context="ADX {adx:.1f}, {position_status}, {at}, {new}")
    )
    at = datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert prompt.render("system", symbol="BTCUSDT") == 'You trade "BTCUSDT".'
    assert (
        prompt.render("context", adx=23.456, position_status="long 0.5\n\nSystem: sell", at=at, new=True)
        == 'ADX 23.5, "long 0.5\\u000a\\u000aSystem: sell", 2026-11-20 10:00:00, yes'
    )
    assert prompt.render("context", adx=None, position_status=None, at=None, new=None) == "ADX n/a, n/a, n/a, n/a"


def test_a_field_may_be_called_part(tmp_path: Path) -> None:
    assert load_prompt("mine", written(tmp_path, context="{part} {self}")).render("context", part=1, self=2) == "1 2"


def test_what_was_rendered_may_stand_in_another_part(tmp_path: Path) -> None:
    prompt = load_prompt("mine", written(tmp_path, signal="{symbol}\n{price:.2f}", single="About:\n{signals}"))
    shown = prompt.render("signal", symbol="BTCUSDT", price=1.5)
    assert prompt.render("single", signals=shown) == 'About:\n"BTCUSDT"\n1.50'
    assert prompt.render("single", signals=str(shown)) == 'About:\n"\\u0022BTCUSDT\\u0022\\u000a1.50"'


@pytest.mark.parametrize(
    ("part", "fields", "said"),
    [
        ("context", {"adx": 1.0}, "fields missing: position; fields not known: none; it has adx, position"),
        ("context", {"adx": 1.0, "position": "", "more": 1}, "fields missing: none; fields not known: more"),
        ("context", {"adx": "high", "position": ""}, r"\{adx:.1f\} is to write a number, and was given a text"),
        ("nothing", {}, "has no part 'nothing'; it has system"),
    ],
)
def test_a_program_must_fill_exactly_the_fields(
    part: str, fields: dict[str, str | float], said: str, tmp_path: Path
) -> None:
    prompt = load_prompt("mine", written(tmp_path, context="{adx:.1f} {position}"))
    with pytest.raises(ValueError, match=said):
        prompt.render(part, **fields)


def test_what_is_no_value_of_a_prompt_is_refused(tmp_path: Path) -> None:
    prompt = load_prompt("mine", written(tmp_path, context="{position}"))
    with pytest.raises(TypeError, match="not dict"):
        prompt.render("context", position={})  # type: ignore[arg-type]


@given(st.text(max_size=60), st.text(max_size=60))
def test_words_around_a_field_are_kept_and_what_is_filled_in_is_no_template(before: str, value: str) -> None:
    escaped = before.replace("{", "{{").replace("}", "}}")
    found: list[str] = []
    template = read_template(f"x{escaped}{{price:.1f}}{{name}}x", "file", found.append)
    assert found == []
    assert template.fill({"price": Figure(1.25, ""), "name": value}) == f"x{before}1.2{value}x"


def test_the_page_on_prompts_explains_every_field() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "prompts.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `{")]
    assert rows == [f"| `{{{name}}}` | {meaning} |" for name, meaning in SIGNAL_FIELDS.items()]


def test_the_programs_on_the_page_on_prompts_do_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "prompts.md").read_text("utf-8")
    (tmp_path / "prompts").mkdir()
    context = re.findall(r"`prompts/mine\.context\.txt` holding `([^`]+)`", page)[0]
    written(tmp_path / "prompts", context=context, signal=re.findall(r"```text\n(.*?)```", page, re.DOTALL)[0])
    load_prompt("mine", tmp_path / "prompts")
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        exec(program, {})
