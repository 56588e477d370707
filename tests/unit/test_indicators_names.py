"""What an indicator may be called, and what is said of a name that is wrong: at once, not at the first bar."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.indicator_material import bars_of, computed, generated
from trading.errors import IndicatorError
from trading.indicators import IndicatorSet, classic, known_indicators
from trading.indicators.fast import FAST


def test_several_outputs_are_the_plain_name_and_its_parts() -> None:
    assert IndicatorSet(["macd_12_26_9"]).columns == ("macd_12_26_9", "macd_12_26_9.histogram", "macd_12_26_9.signal")


def test_a_part_can_be_asked_for_alone() -> None:
    assert IndicatorSet(["kc_20_1.5.upper"]).columns == ("kc_20_1.5.upper",)


def test_columns_stand_in_the_order_asked_and_once() -> None:
    names = ["stochastic_d", "rsi", "bb_upper", "rsi", "supertrend_7_3.direction"]
    assert IndicatorSet(names).columns == ("stochastic_d", "rsi", "bb_upper", "supertrend_7_3.direction")


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("rsi", "rsi_14"), ("atr", "atr_14"), ("volume_ratio", "volume_ratio_20"), ("bb_upper", "bbands_20_2.upper"),
        ("bb_middle", "bbands_20_2"), ("bb_lower", "bb_lower_20_2"), ("stochastic_k", "stoch_14_3_3"),
        ("stochastic_d", "stoch_14_3_3.d"), ("stochastic_k_5", "stoch_5_3_3"), ("macd", "macd_12_26_9"),
        ("adx_10", "adx_10_10"), ("donchian_15", "donchian_15_15"), ("supertrend", "supertrend_7_3.0"),
        ("kst", "kst_10_15_20_30_10_10_10_15_9"),
    ],
)  # fmt: skip
def test_a_short_name_means_its_defaults(short: str, full: str) -> None:
    values = computed([short, full], bars_of(generated(count=120, calmest=0.001)))
    assert (values[short][-40:] == values[full][-40:]).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rsy_14", "did you mean.*rsi"),
        ("nothing_like_it", "no indicator is called 'nothing_like_it'"),
        ("RSI", "not an indicator's name"),
        ("rsi-14", "not an indicator's name"),
        ("", "not an indicator's name"),
        ("rsi_14_3", r"takes at most 1 \(length\)"),
        ("hl2_5", "takes none"),
        ("rsi_14.5", "length must be a whole number"),
        ("rsi_0", "length must be 1 to 5000"),
        ("ema_900000", "length must be 1 to 5000"),
        ("macd_26_12_9", r"fast \(26\) must be less than slow \(12\)"),
        ("macd_12_26_9.upper", "its parts are: histogram, signal"),
        ("rsi.signal", "its parts are: none"),
        ("bb_upper.lower", "its parts are: none"),
        ("stdev_5_5", r"ddof \(5\) must be less than length"),
        ("kst_1_2_3_4_5_6_7_8_9_10", "takes at most 9"),
        ("hma_20.5", "length must be a whole number"),
        ("ppo_26_12", "fast .26. must be less than slow .12."),
        ("squeeze.nowhere", "its parts are: on, off, none"),
        ("beta_20", "cannot be computed bar by bar: it needs a second symbol"),
        ("tos_stdevall", "later bars included"),
        ("cdl_pattern", "no indicator is called"),
        ("cdl_hammer_3", "takes none"),
    ],
)
def test_a_wrong_name_says_what_is_wrong_with_it(name: str, said: str) -> None:
    with pytest.raises(IndicatorError, match=said):
        IndicatorSet(["sma_20", name])


@given(st.text(max_size=30))
def test_any_text_is_an_indicator_or_an_indicator_error(text: str) -> None:
    try:
        assert IndicatorSet([text]).columns
    except IndicatorError as error:
        assert str(error)


def test_every_known_name_can_be_asked_for_as_it_stands() -> None:
    names = known_indicators()
    assert len(names) > 230
    for name in names:
        assert IndicatorSet([name]).columns[0] == name


def test_every_indicator_has_one_output_under_its_plain_name() -> None:
    for name, parts in [*((name, recipe.parts) for name, recipe in FAST.items()), *classic.PARTS.items()]:
        assert parts.count("") == 1, name
        assert len(set(parts)) == len(parts), name


def test_the_library_is_not_imported_for_indicators_computed_here() -> None:
    code = (
        "import sys; from trading.window import BarWindow; "
        "BarWindow(['rsi', 'bb_upper', 'supertrend_7_3', 'stochastic_k']); "
        "print('pandas_ta_classic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180)
    assert done.stdout.strip() == "False"
