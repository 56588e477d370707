"""TA-Lib's functions on numpy arrays, without the pandas that its package would load beside them.

`import talib` imports pandas where it is installed, to take pandas' series as well: that is two fifths of the memory,
and some of the start-up time, of a process that has no other use for it.
"""

import sys
from importlib import import_module
from typing import Any

_FUNCTIONS = "talib._ta_lib"


def _load() -> Any:
    """The compiled functions. Whoever imports `talib` later gets a package that knows pandas."""
    if "pandas" in sys.modules or _FUNCTIONS in sys.modules:
        return import_module(_FUNCTIONS)
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        functions = import_module(_FUNCTIONS)
    finally:
        del sys.modules["pandas"]
    del sys.modules["talib"], sys.modules["talib.stream"]
    return functions


ta = _load()
