"""One file per backend; the file's name is the backend's name.

A backend's file has a class `Backend` built as `Backend(context)` with a `BackendContext`, satisfying
`llm_integration.ports.Backend`, and two class attributes: `API_KEY_ENV` (the usual name of its key, None where it
needs none) and `METERED` (True where `llm.requests_per_minute` holds without being set for it).
"""

import importlib
import pkgutil
from typing import Any

_SHARED = {"wire"}


def backend_names() -> list[str]:
    """Every backend there is a file for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def backend_class(name: str) -> Any:
    """The `Backend` class in the file of that name. Raises ModuleNotFoundError."""
    return importlib.import_module(f"{__name__}.{name}").Backend
