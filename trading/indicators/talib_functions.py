"""TA-Lib's functions on numpy arrays, without the pandas that its package would load beside them.

`import talib` imports pandas where it is installed, to take pandas' series as well: that is most of the memory and of
the start-up time of a process that has no other use for it.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_MODULE = "talib._ta_lib"
_SERIES_LIBRARIES = ("pandas", "polars")


def _load() -> ModuleType:
    """The compiled module inside the package; a later `import talib` finds it there and goes on from it."""
    if _MODULE in sys.modules:
        return sys.modules[_MODULE]
    package = find_spec("talib")
    spec = PathFinder.find_spec(_MODULE, package.submodule_search_locations) if package is not None else None
    if spec is None or spec.loader is None:
        raise ImportError("TA-Lib is not installed; run make install")
    hidden = [name for name in _SERIES_LIBRARIES if name not in sys.modules]
    module = module_from_spec(spec)
    try:
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
        spec.loader.exec_module(module)
    finally:
        for name in hidden:
            del sys.modules[name]
    sys.modules[_MODULE] = module
    module._ta_initialize()
    return module


ta: Any = _load()
