"""Starts the real llama-server on a free port, and ends it."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.llama.build import MODEL, SERVER
from tests.ports import kept_port

_START_LIMIT_S = 180.0


@contextmanager
def running(log: Path, arguments: Sequence[str] = (), *, slots: int = 2, context: int = 16384) -> Iterator[str]:
    """The base_url of a server that takes `slots` requests at once, `context` tokens each. Its output goes to `log`."""
    with launched(log, arguments, slots=slots, context=context) as url:
        _wait_until_answered(f"{url}/health", log)
        yield url


@contextmanager
def launched(log: Path, arguments: Sequence[str] = (), *, slots: int = 2, context: int = 16384) -> Iterator[str]:
    """As `running`, without waiting until it has loaded its model."""
    command = [
        str(SERVER), "--model", str(MODEL), "--parallel", str(slots),
        "--ctx-size", str(slots * context), "--no-kv-unified", "--threads", "1", "--threads-http", "4",
        *arguments,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
    with _process(command, log, environment) as url:
        yield url


@contextmanager
def serving(command: Sequence[str], log: Path, environment: Mapping[str, str], probe: str) -> Iterator[str]:
    """The address at which `command`, told a free port by --port, serves, once it answers a GET of `probe`."""
    with _process(command, log, environment) as url:
        _wait_until_answered(url + probe, log)
        yield url


@contextmanager
def _process(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    with kept_port() as port, log.open("wb") as output:
        placed = [*command, "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(placed, stdout=output, stderr=subprocess.STDOUT, env=dict(environment))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait_until_answered(url: str, log: Path) -> None:
    end = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError(f"{url} did not answer within {_START_LIMIT_S:.0f} s:\n{log.read_text()[-2000:]}")
