"""One file per feed; the file's name is the feed's `type`.

A feed's file has `Options`, a frozen pydantic model of its settings with `type: Literal["<its name>"]`, and `Feed`,
built as `Feed(options, clock)` and satisfying `trading.feeds.base.Feed`. Folders here hold what a feed is made of.
"""

import importlib
import pkgutil
from types import ModuleType

_SHARED = {"base", "guard"}


def feed_names() -> list[str]:
    """Every feed there is a file for."""
    return sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg and module.name not in _SHARED
    )


def feed_module(name: str) -> ModuleType:
    """The file of that feed, with its `Options` and `Feed`. Raises ModuleNotFoundError."""
    if name not in feed_names():
        raise ModuleNotFoundError(f"no feed is named {name!r}; there are {', '.join(feed_names())}", name=name)
    return importlib.import_module(f"{__name__}.{name}")
