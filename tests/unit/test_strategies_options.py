"""Strategies from settings: found by their file, checked at once, a user's own by module and class."""

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from trading.errors import StrategyError
from trading.model import Side
from trading.strategies import build_strategies, build_strategy, strategy_module, strategy_names
from trading.strategies.options import CustomOptions, StrategyOptions

ANY: TypeAdapter[Any] = TypeAdapter(StrategyOptions)

OWN = """
from trading.model import Side
from trading.strategies.base import Event

class Third:
    indicators = ("sma_3",)
    history = 1
    def __init__(self, every: int, side: str = "long") -> None:
        if every < 1:
            raise ValueError("every must be at least 1")
        self.name = f"third_{every}_{side}"
        self.every = every
        self.side = Side(side)
    def evaluate(self, view):
        return Event(self.side, 0.5)

class Half:
    name = ""
    indicators = "sma_3"
    history = 0

something = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's, importable under a name that nothing else has."""
    package = tmp_path / "strategies_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rules.py").write_text(OWN)
    (package / "broken.py").write_text("def (")
    (package / "needy.py").write_text("import a_library_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    yield_name = "strategies_of_mine"
    for name in [entry for entry in sys.modules if entry.startswith(yield_name)]:
        monkeypatch.delitem(sys.modules, name)
    return yield_name


def own_strategy(settings: dict[str, Any]) -> Any:
    return build_strategy(ANY.validate_python(settings))


@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_can_be_named_in_settings_with_its_defaults(name: str) -> None:
    assert build_strategy(ANY.validate_python({"type": name})).name.startswith(name)


def test_the_settings_of_a_strategy_are_what_it_is_built_with() -> None:
    strategy = build_strategy(ANY.validate_python({"type": "ma_cross", "fast": 5, "slow": 13, "kind": "ema"}))
    assert strategy.name == "ma_cross_ema_5_13"


def test_an_unknown_type_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValidationError) as raised:
        ANY.validate_python({"type": "ma_crosss"})
    assert all(name in str(raised.value) for name in strategy_names())


def test_a_missing_type_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="donchian_breakout"):
        ANY.validate_python({"fast": 3})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"type": "ma_cross", "fast": 30, "slow": 10}, r"fast \(30\) must be less than slow \(10\)"),
        ({"type": "ma_cross", "fast": 0}, "greater than or equal to 1"),
        ({"type": "ma_cross", "speed": 3}, "Extra inputs"),
        ({"type": "macd_cross", "fast": 26, "slow": 26}, "must be less than slow"),
        ({"type": "rsi_reversal", "oversold": 70, "overbought": 30}, r"oversold \(70\) must be less"),
        ({"type": "stochastic_reversal", "oversold": 80}, "must be less than overbought"),
        ({"type": "donchian_breakout", "period": 10, "exit_period": 10}, "must be less than period"),
        ({"type": "bollinger_breakout", "deviations": 0}, "greater than or equal to 0.1"),
        ({"type": "no spaces:Please"}, "pattern"),
    ],
)
def test_wrong_settings_of_a_strategy_say_what_is_wrong(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ANY.validate_python(settings)


@pytest.mark.parametrize("name", strategy_names())
def test_every_setting_has_a_description_and_cannot_be_changed(name: str) -> None:
    options = strategy_module(name).Options
    assert all(field.description for key, field in options.model_fields.items() if key != "type")
    assert options.__doc__
    with pytest.raises(ValidationError, match="frozen"):
        options().type = "other"


def test_a_strategy_of_one_s_own_is_made_with_the_further_keys(own: str) -> None:
    strategy = own_strategy({"type": f"{own}.rules:Third", "every": 2, "side": "short"})
    assert (strategy.name, strategy.side) == ("third_2_short", Side.SHORT)


@pytest.mark.parametrize(
    ("where", "parameters", "said"),
    [
        ("nowhere_at_all:Third", {}, "no module 'nowhere_at_all'; install it or put its folder on PYTHONPATH"),
        ("{own}.gone:Third", {}, "no module '.*gone'"),
        ("{own}.needy:Third", {}, "needs 'a_library_that_is_not_there'"),
        ("{own}.broken:Third", {}, "cannot be imported: SyntaxError"),
        ("{own}.rules:Fourth", {}, "has no class 'Fourth'; it has .*Half.*Third"),
        ("{own}.rules:something", {}, "has no class 'something'"),
        ("{own}.rules:Third", {}, "made with no parameters: TypeError.*every"),
        ("{own}.rules:Third", {"every": 1, "some": 2}, "made with every=1, some=2: TypeError.*some"),
        ("{own}.rules:Third", {"every": 0}, "every must be at least 1"),
        ("{own}.rules:Half", {}, "name must be .*indicators must be .*history must be .*evaluate.view. is missing"),
    ],
)
def test_what_is_wrong_with_a_strategy_of_one_s_own_is_said(
    own: str, where: str, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises(StrategyError, match=said):
        own_strategy({"type": where.format(own=own), **parameters})


def test_two_strategies_of_one_name_are_refused() -> None:
    twice = [ANY.validate_python({"type": "ma_cross", "fast": 5}) for _ in range(2)]
    with pytest.raises(StrategyError, match="ma_cross_5_30 is configured twice"):
        build_strategies(twice)


def test_custom_options_keep_their_further_keys() -> None:
    options = ANY.validate_python({"type": "mine.rules:Best", "period": 3})
    assert isinstance(options, CustomOptions)
    assert options.model_extra == {"period": 3}
