"""One file per strategy; the file's name is the strategy's `type`.

A strategy's file has `Options`, a frozen pydantic model of its settings with `type: Literal["<its name>"]`, and
`Strategy`, built as `Strategy(options)` and satisfying `trading.strategies.base.Strategy`.
"""

import importlib
import pkgutil
from types import ModuleType

_SHARED = {"base", "building", "crossing", "options"}


def strategy_names() -> list[str]:
    """Every strategy there is a file for."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg and module.name not in _SHARED
    )


def strategy_module(name: str) -> ModuleType:
    """The file of that strategy, with its `Options` and `Strategy`. Raises ModuleNotFoundError."""
    if name not in strategy_names():
        raise ModuleNotFoundError(f"no strategy is named {name!r}; there are {', '.join(strategy_names())}", name=name)
    return importlib.import_module(f"{__name__}.{name}")
