"""From signal to rating: prompts, model calls under a quota, parsing, the worker.

The names in `__all__` are those that other programs use; each is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_integration.config import LLMConfig
    from llm_integration.csv_exporter import LLMCSVExporter
    from llm_integration.llm_processor import LLMProcessor
    from llm_integration.memory_store import SignalMemoryStore
    from llm_integration.response_parser import LLMResponseParser
    from llm_integration.signal_formatter import SignalFormatter
    from llm_integration.worker import LLMWorker

__all__ = [
    "LLMCSVExporter",
    "LLMConfig",
    "LLMProcessor",
    "LLMResponseParser",
    "LLMWorker",
    "SignalFormatter",
    "SignalMemoryStore",
]
_MODULES = {
    "LLMCSVExporter": "csv_exporter",
    "LLMConfig": "config",
    "LLMProcessor": "llm_processor",
    "LLMResponseParser": "response_parser",
    "LLMWorker": "worker",
    "SignalFormatter": "signal_formatter",
    "SignalMemoryStore": "memory_store",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
