"""From signal to rating: prompts, model calls under a quota, parsing, the worker.

The names in `__all__` are those that other programs use; each is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_integration import llm_router
    from llm_integration.config import LLMConfig
    from llm_integration.csv_exporter import LLMCSVExporter
    from llm_integration.library.client import LLMClient, get_llm_client
    from llm_integration.library.completions import LocalChatCompletion
    from llm_integration.llm_processor import LLMProcessor
    from llm_integration.memory_store import SignalMemoryStore
    from llm_integration.response_parser import LLMResponseParser
    from llm_integration.signal_formatter import SignalFormatter
    from llm_integration.worker import LLMWorker

__all__ = [
    "LLMCSVExporter",
    "LLMClient",
    "LLMConfig",
    "LLMProcessor",
    "LLMResponseParser",
    "LLMWorker",
    "LocalChatCompletion",
    "SignalFormatter",
    "SignalMemoryStore",
    "get_llm_client",
    "llm_router",
]
_MODULES = {
    "LLMCSVExporter": "csv_exporter",
    "LLMClient": "library.client",
    "LLMConfig": "config",
    "LLMProcessor": "llm_processor",
    "LLMResponseParser": "response_parser",
    "LLMWorker": "worker",
    "LocalChatCompletion": "library.completions",
    "SignalFormatter": "signal_formatter",
    "SignalMemoryStore": "memory_store",
    "get_llm_client": "library.client",
}


def __getattr__(name: str) -> Any:
    if name == "llm_router":
        return importlib.import_module(f"{__name__}.llm_router")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
