"""One file per strategy; the file's name is the strategy's `type`.

A strategy's file has `Options`, a frozen pydantic model of its settings with `type: Literal["<its name>"]`, and
`Strategy`, built as `Strategy(options)` and satisfying `trading.strategies.base.Strategy`.
"""

from trading.strategies.building import build_strategies, build_strategy
from trading.strategies.discovery import strategy_module, strategy_names

__all__ = ["build_strategies", "build_strategy", "strategy_module", "strategy_names"]
