"""llama.cpp's Python package as it is loaded here, and what it says of a GGUF file before the file is."""

import ctypes
import importlib
import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from llm_integration.errors import NotUsable

_log = logging.getLogger(__name__)
_MOST_UNASKED_TOKENS = 8192
_MAGIC = b"GGUF"
_ERROR_LEVEL = 4
_NO_PACKAGE = 'the package llama-cpp-python is not installed; `pip install "tradent[gguf]"` brings it'


def inspect(path: Path, wanted: int | None) -> int:
    """How many tokens of context the file would be loaded with. Raises NotUsable where it cannot be."""
    package = llama_package()
    if not path.is_file():
        raise NotUsable(f"there is no file {path}; the model string is gguf/ and the path of a GGUF file")
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(_MAGIC))
    except OSError as error:
        raise NotUsable(f"{path} cannot be read: {error.strerror}") from None
    if magic != _MAGIC:
        raise NotUsable(f"{path} is no GGUF file")
    parameters = package.llama_model_default_params()
    parameters.vocab_only = True
    model = package.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise NotUsable(f"{path} cannot be loaded: it is damaged, or llama.cpp does not know its kind of model")
    try:
        trained = _field(package, model, f"{_field(package, model, 'general.architecture')}.context_length")
    finally:
        package.llama_model_free(model)
    if not trained.isdecimal():
        raise NotUsable(f"{path} does not say how long its context is; take another conversion of the model")
    return min(wanted or _MOST_UNASKED_TOKENS, int(trained))


def llama_package() -> Any:
    """The package. Raises NotUsable."""
    try:
        package = importlib.import_module("llama_cpp")
    except ImportError:
        raise NotUsable(_NO_PACKAGE) from None
    except (OSError, RuntimeError) as error:
        raise NotUsable(f"llama-cpp-python is installed, but cannot be loaded: {error}; install it anew") from None
    package.llama_log_set(_LOG, None)
    # It points the output of the whole process nowhere while it loads a model: what others log meanwhile would be lost.
    for name in ("llama", "_internals"):
        module: Any = sys.modules.get(f"llama_cpp.{name}")
        if hasattr(module, "suppress_stdout_stderr"):
            module.suppress_stdout_stderr = _leave_output_alone
    return package


def _field(package: Any, model: Any, name: str) -> str:
    """What the file says under that name, empty where it says nothing."""
    buffer = ctypes.create_string_buffer(256)
    length: int = package.llama_model_meta_val_str(model, name.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if length >= 0 else ""


def _take_line(level: int, text: bytes, _: object) -> None:
    if level == _ERROR_LEVEL:
        _log.warning("llama.cpp: %s", text.decode("utf-8", "replace").strip())


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(_take_line)


def _leave_output_alone(disable: bool = True) -> nullcontext[None]:
    return nullcontext()
