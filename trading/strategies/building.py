"""From settings to strategies, a user's own included."""

import importlib
from collections.abc import Iterable

from pydantic import BaseModel

from trading.errors import StrategyError
from trading.strategies.base import Strategy
from trading.strategies.discovery import strategy_module
from trading.strategies.options import CustomOptions


def build_strategies(settings: Iterable[BaseModel]) -> list[Strategy]:
    """One strategy per entry. Raises StrategyError, also when two bear one name: their signals would be one."""
    strategies = [build_strategy(options) for options in settings]
    names = [strategy.name for strategy in strategies]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise StrategyError(f"strategy {', '.join(twice)} is configured twice; remove one or change its parameters")
    return strategies


def build_strategy(options: BaseModel) -> Strategy:
    """The strategy that `options`, one of StrategyOptions, describes. Raises StrategyError."""
    if isinstance(options, CustomOptions):
        return _own(options)
    strategy: Strategy = strategy_module(str(getattr(options, "type", ""))).Strategy(options)
    return strategy


def _own(options: CustomOptions) -> Strategy:
    module_name, _, class_name = options.type.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise StrategyError(
                f"strategy {options.type!r}: no module {error.name!r}; install it or put its folder on PYTHONPATH"
            ) from error
        raise StrategyError(f"strategy {options.type!r}: its module needs {error.name!r}, which is missing") from error
    except Exception as error:
        raise StrategyError(
            f"strategy {options.type!r}: its module cannot be imported: {type(error).__name__}: {error}"
        ) from error
    made = getattr(module, class_name, None)
    if not isinstance(made, type):
        classes = sorted(name for name, value in vars(module).items() if isinstance(value, type))
        found = ", ".join(classes) or "none"
        raise StrategyError(f"strategy {options.type!r}: {module_name} has no class {class_name!r}; it has {found}")
    parameters = options.model_extra or {}
    try:
        strategy = made(**parameters)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in parameters.items()) or "no parameters"
        raise StrategyError(
            f"strategy {options.type!r} cannot be made with {given}: {type(error).__name__}: {error}"
        ) from error
    return _checked(options.type, strategy)


def _checked(kind: str, strategy: object) -> Strategy:
    name, history = getattr(strategy, "name", None), getattr(strategy, "history", None)
    indicators = getattr(strategy, "indicators", None)
    wrong = []
    if not isinstance(name, str) or not name:
        wrong.append(f"name must be a text that carries its parameters, not {name!r}")
    if not isinstance(indicators, tuple | list) or not all(isinstance(entry, str) for entry in indicators):
        wrong.append(f"indicators must be a tuple of names, not {indicators!r}")
    if not isinstance(history, int) or history < 1:
        wrong.append(f"history must be a number of bars, at least 1, not {history!r}")
    if not callable(getattr(strategy, "evaluate", None)):
        wrong.append("evaluate(view) is missing")
    if wrong:
        raise StrategyError(f"strategy {kind!r} is not one yet: {'; '.join(wrong)}")
    return strategy  # type: ignore[return-value] # what the protocol asks has just been checked
