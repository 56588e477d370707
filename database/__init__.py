"""What is kept: bars, signals, tasks, results and calls in PostgreSQL.

`read_signals` is for notebooks and scripts; it is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from database.frames import read_signals

__all__ = ["read_signals"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.frames"), name)
