"""Whether everything that the settings name can be made: strategies, indicators, the prompt, routes, webhooks."""

from llm_integration.calling.router import routes_of
from service.prompts import signal_formatter
from service.settings import Settings
from service.webhooks.endpoint import Endpoint
from trading.errors import IndicatorError, SettingsError, StrategyError
from trading.indicators import IndicatorSet
from trading.strategies import build_strategies, build_strategy


def require_rules(settings: Settings) -> None:
    """Make every strategy, indicator, prompt and route once. Raises SettingsError with a line for each mistake."""
    mistakes: list[str] = []
    strategies = []
    for hook in settings.service.webhooks:
        try:
            Endpoint.of(hook)
        except SettingsError as error:
            mistakes += error.mistakes
    names = [hook.name for hook in settings.service.webhooks]
    mistakes += [f"service.webhooks: two are named {name}" for name in sorted(set(names)) if names.count(name) > 1]
    for look in (signal_formatter, routes_of):
        try:
            look(settings.llm)
        except SettingsError as error:
            mistakes += error.mistakes
    for number, options in enumerate(settings.trading.strategies):
        try:
            strategies.append(build_strategy(options))
        except StrategyError as error:
            mistakes.append(f"trading.strategies.{number}: {error}")
    wanted = {f"llm.indicators_to_include.{n}": name for n, name in enumerate(settings.llm.indicators_to_include)}
    wanted |= {f"strategy {strategy.name}: {name}": name for strategy in strategies for name in strategy.indicators}
    for place, name in wanted.items():
        try:
            IndicatorSet([name])
        except IndicatorError as error:
            mistakes.append(f"{place} = {name!r}: {error}")
    if not mistakes:
        try:
            build_strategies(settings.trading.strategies)
        except StrategyError as error:
            mistakes.append(f"trading.strategies: {error}")
    if mistakes:
        raise SettingsError(mistakes)
