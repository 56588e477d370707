"""Fixtures that any test may ask for: a PostgreSQL server, and a fresh migrated database on it."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests import postgres

DAY_S = 86_400
EVENING_S = 180
"""Longer than a test takes, on a loaded machine too."""
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_runtest_setup() -> None:
    """Whoever ends the tests by SIGTERM leaves no servers behind: it is as Ctrl-C, after which fixtures clear up.

    Said before each, as a daemon that has run in this process leaves the signal as it is for others.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(autouse=True)
def on_one_day() -> None:
    """No test begins in the last minutes of a day (UTC): what is counted by the day or the month would be of two."""
    left_s = DAY_S - time.time() % DAY_S
    if left_s < EVENING_S:
        time.sleep(left_s + 0.1)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In the end, the servers that daemons of failed tests have left in folders of tests are ended."""
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "postgres" and any(
            word.startswith(folder) for word in process.info["cmdline"] or ()
        ):
            with suppress(psutil.Error):
                process.send_signal(signal.SIGINT)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running server, without our tables in its default database."""
    with postgres.server() as url:
        yield url


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """What a test sets up for the log, as commands do, ends with it: the next one looks for its own lines there."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in root.handlers:
        if handler not in handlers:
            root.removeHandler(handler)


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database at the newest migration, dropped afterwards."""
    name = postgres.fresh_name()
    yield postgres.run(postgres.create_database(postgres_url, name, postgres.TEMPLATE))
    postgres.run(postgres.drop_database(postgres_url, name))


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database with nothing in it, dropped afterwards."""
    name = postgres.fresh_name()
    yield postgres.run(postgres.create_database(postgres_url, name))
    postgres.run(postgres.drop_database(postgres_url, name))
