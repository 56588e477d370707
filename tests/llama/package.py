"""Makes the real Python package `llama_cpp`, as it was built beside llama-server, importable; starts its server."""

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.llama.build import BUILT, MODEL, PACKAGES, built
from tests.llama.server import serving

_NEEDED = ("diskcache", "jinja2", "numpy")
_NEEDED_BY_ITS_SERVER = ("fastapi", "pydantic_settings", "sse_starlette", "starlette_context", "uvicorn", "yaml")
_LIBRARIES = "LLAMA_CPP_LIB_PATH"


def why_not(*, server: bool = False) -> str | None:
    """Why the package, or its server, cannot be used here; None where it can."""
    if not built():
        return "llama-server and its libraries are not built; `make llama-server` builds them"
    needed = _NEEDED + (_NEEDED_BY_ITS_SERVER if server else ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


@contextmanager
def importable() -> Iterator[None]:
    """`import llama_cpp` finds the built one; what was imported stays so, as its libraries cannot be loaded twice."""
    before = os.environ.get(_LIBRARIES)
    os.environ[_LIBRARIES] = str(BUILT)
    sys.path.insert(0, str(PACKAGES))
    try:
        yield
    finally:
        sys.path.remove(str(PACKAGES))
        if before is None:
            del os.environ[_LIBRARIES]
        else:
            os.environ[_LIBRARIES] = before


@contextmanager
def running(log: Path, arguments: Sequence[str] = (), *, context: int = 16384) -> Iterator[str]:
    """The address of a `python -m llama_cpp.server` with that much context; its API is under /v1."""
    command = [
        sys.executable, "-m", "llama_cpp.server", "--model", str(MODEL), "--n_ctx", str(context), "--n_threads", "1",
        *arguments,
    ]  # fmt: skip
    environment = {**os.environ, _LIBRARIES: str(BUILT), "PYTHONPATH": str(PACKAGES)}
    with serving(command, log, environment, "/docs") as url:
        yield url
