"""The names that other programs import, and the version they are told."""

import importlib.metadata
import subprocess
import sys

import pytest

import llm_integration
from service.version import VERSION


def test_every_public_name_is_what_its_file_calls_so() -> None:
    for name in llm_integration.__all__:
        assert getattr(llm_integration, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        llm_integration.Nothing  # noqa: B018 # the access is what is tested


def test_the_package_alone_loads_nothing_heavy() -> None:
    """`import llm_integration` costs a program that wants one light name of it no settings library and no HTTP."""
    loaded = "import sys, llm_integration; from llm_integration import SignalMemoryStore; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=180)
    assert {"pydantic", "aiohttp", "pandas", "sqlalchemy"}.isdisjoint(modules.stdout.split())


def test_the_version_is_the_installed_package_s() -> None:
    """The program knows it by itself, so that it runs from a folder where nothing of it was installed, too."""
    try:
        installed = importlib.metadata.version("tradent")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here")
    assert installed == VERSION
