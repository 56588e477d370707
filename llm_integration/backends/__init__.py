"""One file per backend; the file's name is the backend's name.

A backend's file has a class `Backend` built as `Backend(context)` with a `BackendContext`, satisfying
`llm_integration.ports.Backend`, and two class attributes: `API_KEY_ENV` (the usual name of its key, None where it
needs none) and `METERED` (True where `llm.requests_per_minute` holds without being set for it). Another package brings
one by an entry point of the group `tradent.backends`, whose name is the backend's and whose value names the class.

A class may also have `count_tokens(request)` (exact tokens of its messages, None where unknown) and the static
`reread(raw)` (the reply in a body that the audit trail kept), which `replay` uses.
"""

import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Any

GROUP = "tradent.backends"
SAME_EVERY_TIME = frozenset({"rules", "replay"})
"""Backends that ask nobody: their answers need not be kept, and would be no better a second time."""
_SHARED = {"wire"}


def backend_names() -> list[str]:
    """Every backend there is a file or an entry point for."""
    return sorted({*_files(), *_entries()})


def backend_class(name: str) -> Any:
    """The `Backend` class of that name; a file goes before an entry point. Raises ModuleNotFoundError."""
    entry = None if name in _files() else _entries().get(name)
    return importlib.import_module(f"{__name__}.{name}").Backend if entry is None else entry.load()


def _files() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED]


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
