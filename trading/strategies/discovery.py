"""Which strategies there are: the files beside this one."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

_PACKAGE = __name__.rpartition(".")[0]
_SHARED = {"base", "building", "crossing", "discovery", "options"}


def strategy_names() -> list[str]:
    """Every strategy there is a file for."""
    files = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in files if not module.ispkg and module.name not in _SHARED)


def strategy_module(name: str) -> ModuleType:
    """The file of that strategy, with its `Options` and `Strategy`. Raises ModuleNotFoundError."""
    if name not in strategy_names():
        raise ModuleNotFoundError(f"no strategy is named {name!r}; there are {', '.join(strategy_names())}", name=name)
    return importlib.import_module(f"{_PACKAGE}.{name}")
