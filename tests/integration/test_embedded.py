# ruff: noqa: ASYNC110, ASYNC220, ASYNC222, ASYNC240 - nothing else runs on a test's loop while it looks at files
"""The embedded PostgreSQL: made on first use, outliving its daemon, coming back from every kind of end."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from database import embedded_process
from database.embedded import EmbeddedPostgres
from database.embedded_process import find_postmaster
from database.engine import connect
from tests.postgres import make_folder
from trading.errors import StorageError

REPOSITORY = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and accounts of POSIX")
root_only = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root has to hand the server to somebody else"
)

DAEMON = """
import asyncio, sys
from pathlib import Path
from database.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]))
asyncio.run(postgres.start())
print("up", flush=True)
sys.stdin.read()
"""

FORKING_DAEMON = """
import asyncio, os, sys
from pathlib import Path
from database.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]))
asyncio.run(postgres.start())
if os.fork() == 0:
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def fresh_folder() -> Iterator[Path]:
    """A folder for a first start, that other accounts can reach, as an installation's would be."""
    place = make_folder()
    yield place / "database"
    _end(place / "database")
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A cluster at rest, made once, to be copied: making one takes longer than all else a test does."""
    place = make_folder()
    server = EmbeddedPostgres(place / "database")
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(server.start())
        runner.run(server.stop())
    yield place / "database"
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def folder(fresh_folder: Path, made: Path) -> Path:
    """A folder with a cluster in it that has been started before."""
    shutil.copytree(made, fresh_folder, ignore=shutil.ignore_patterns("owner.lock"))
    if sys.platform != "win32":
        for path in (fresh_folder, *fresh_folder.rglob("*")):
            owner = (made / path.relative_to(fresh_folder)).stat()
            os.chown(path, owner.st_uid, owner.st_gid)
    return fresh_folder


@pytest.fixture
async def postgres(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that is up."""
    server = EmbeddedPostgres(folder)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def daemon(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has started the server in `folder`."""
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def _end(folder: Path) -> None:
    """End what a failed test has left running."""
    postmaster = find_postmaster(folder / "data")
    if postmaster is not None:
        os.kill(postmaster.pid, signal.SIGINT if sys.platform == "win32" else signal.SIGQUIT)
        psutil.wait_procs([psutil.Process(postmaster.pid)], timeout=180)


def _pid(folder: Path) -> int:
    postmaster = find_postmaster(folder / "data")
    assert postmaster is not None
    return postmaster.pid


async def _value(url: str, query: str) -> object:
    connection = await connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def _run(url: str, statement: str) -> None:
    connection = await connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _kill_server(folder: Path) -> None:
    """End the postmaster as the kernel's memory killer would."""
    pid = _pid(folder)
    os.kill(pid, signal.SIGKILL)
    while find_postmaster(folder / "data") is not None:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("max_wal_size", "256MB"),
        ("password_encryption", "scram-sha-256"),
        ("lc_messages", "C"),
    ],
)
async def test_it_is_durable_and_speaks_utf8(postgres_defaults: str, setting: str, value: str) -> None:
    assert await _value(postgres_defaults, f"SHOW {setting}") == value


@pytest.fixture(scope="module")
def postgres_defaults() -> Iterator[str]:
    """A server with our settings as they are shipped."""
    place = make_folder()
    server = EmbeddedPostgres(place)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner.run(server.start())
        runner.run(server.stop())
    shutil.rmtree(place, ignore_errors=True)


async def test_both_addresses_lead_to_our_database(postgres: EmbeddedPostgres) -> None:
    assert postgres.url is not None
    assert postgres.tcp_url is not None
    for url in (postgres.url, postgres.tcp_url):
        assert await _value(url, "SELECT current_user || '@' || current_database()") == "tradent@tradent"


async def test_nobody_comes_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    assert postgres.tcp_url is not None
    password = (postgres.directory / "password").read_text().strip()
    with pytest.raises(Exception, match="password authentication failed"):
        await _value(postgres.tcp_url.replace(password, "guess"), "SELECT 1")


async def test_our_role_is_no_superuser(postgres_defaults: str) -> None:
    assert await _value(postgres_defaults, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False


@posix
async def test_the_role_that_grafana_reads_by_is_made_as_its_page_says_and_only_reads(
    postgres: EmbeddedPostgres,
) -> None:
    page = (REPOSITORY / "docs" / "monitoring.md").read_text("utf-8")
    assert postgres.tcp_url is not None
    (statements,) = re.findall(r'^echo "(CREATE ROLE .*)" \| tradent sql$', page, re.MULTILINE)
    ours = await connect(postgres.tcp_url)
    try:
        await ours.execute(f"{statements}; CREATE TABLE seen AS SELECT 7 AS number")
        theirs = await connect(re.sub("//[^@]*@", "//grafana:change-me@", postgres.tcp_url))
        try:
            assert await theirs.fetchval("SELECT number FROM seen") == 7
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await theirs.execute("DELETE FROM seen")
        finally:
            await theirs.close()
    finally:
        await ours.execute("DROP TABLE IF EXISTS seen; DROP ROLE IF EXISTS grafana")
        await ours.close()


async def test_secrets_are_readable_by_their_owner_only(postgres: EmbeddedPostgres) -> None:
    assert (postgres.directory / "password").stat().st_mode & 0o777 == 0o600
    assert (postgres.directory / "data").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_api_keys_do_not_reach_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-secret")
    server = EmbeddedPostgres(folder)
    await server.start()
    try:
        assert b"sk-secret" not in Path(f"/proc/{_pid(folder)}/environ").read_bytes()
    finally:
        await server.stop()


async def test_what_was_written_is_there_after_a_stop_and_a_start(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    await _run(await server.start(), "CREATE TABLE kept AS SELECT 42 AS n")
    await server.stop()
    assert not server.running
    assert server.url is None
    try:
        assert await _value(await server.start(), "SELECT n FROM kept") == 42
    finally:
        await server.stop()


async def test_the_address_stays_the_same_from_start_to_start(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    first = await server.start()
    await server.stop()
    second = await server.start()
    await server.stop()
    assert first == second


async def test_a_port_taken_meanwhile_is_left_to_its_taker(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    await server.start()
    postmaster = find_postmaster(folder / "data")
    assert postmaster is not None
    await server.stop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", postmaster.port))
        taker.listen()
        again = EmbeddedPostgres(folder)
        url = await again.start()
        assert f"port={postmaster.port}" not in url
        await again.stop()


async def test_a_folder_too_deep_for_sockets_is_served_over_loopback(folder: Path) -> None:
    server = EmbeddedPostgres(folder / ("deep" * 10) / ("deeper" * 10))
    url = await server.start()
    try:
        assert "@127.0.0.1:" in url
        assert await _value(url, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_settings_of_the_operator_are_read_last(folder: Path) -> None:
    (folder / "custom.conf").write_text("work_mem = 3MB\n")
    (folder / "custom.conf").chmod(0o644)
    server = EmbeddedPostgres(folder)
    try:
        assert await _value(await server.start(), "SHOW work_mem") == "3MB"
    finally:
        await server.stop()


async def test_a_server_that_refuses_its_settings_is_quoted(folder: Path) -> None:
    (folder / "custom.conf").write_text("no_such_setting = 1\n")
    (folder / "custom.conf").chmod(0o644)
    with pytest.raises(StorageError, match="no_such_setting"):
        await EmbeddedPostgres(folder).start()


@posix
async def test_a_killed_daemon_leaves_its_server_to_the_next(folder: Path, daemon: "subprocess.Popen[str]") -> None:
    pid = _pid(folder)
    url = EmbeddedPostgres(folder).url
    assert url is not None
    await _run(url, "CREATE TABLE kept AS SELECT 42 AS n")
    daemon.kill()
    daemon.wait()
    assert EmbeddedPostgres(folder).running
    next_one = EmbeddedPostgres(folder)
    try:
        assert await _value(await next_one.start(), "SELECT n FROM kept") == 42
        assert _pid(folder) == pid
    finally:
        await next_one.stop()
    assert not next_one.running


@posix
async def test_a_child_that_outlives_a_killed_daemon_does_not_keep_the_server(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORKING_DAEMON, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        assert psutil.pid_exists(child)
        next_one = EmbeddedPostgres(folder)
        await next_one.start()
        await next_one.stop()


@posix
async def test_the_server_is_in_a_session_of_its_own_away_from_ctrl_c(postgres: EmbeddedPostgres) -> None:
    assert os.getsid(_pid(postgres.directory)) != os.getsid(0)


async def test_a_server_another_process_owns_is_refused_with_its_pid(
    folder: Path, daemon: "subprocess.Popen[str]"
) -> None:
    with pytest.raises(StorageError, match=f"process {daemon.pid} already"):
        await EmbeddedPostgres(folder).start()


async def test_stop_leaves_a_server_that_another_process_owns(folder: Path, daemon: "subprocess.Popen[str]") -> None:
    looking = EmbeddedPostgres(folder)
    await looking.stop()
    assert looking.running


@posix
async def test_a_stale_pid_file_that_names_a_living_stranger_does_not_hinder(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    await server.start()
    pid_file = folder / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    await server.stop()
    with subprocess.Popen(["sleep", "600"], **_as_owner(folder)) as stranger:
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        shutil.chown(pid_file, (folder / "data").stat().st_uid)
        assert not server.running
        assert await _value(await server.start(), "SELECT 1") == 1
        assert stranger.poll() is None
        stranger.kill()
    await server.stop()


@posix
async def test_a_zombie_is_not_taken_for_a_server(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    await server.start()
    pid_file = folder / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    await server.stop()
    zombie = subprocess.Popen(["true"], **_as_owner(folder))
    try:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        pid_file.write_text("\n".join([str(zombie.pid), *lines[1:]]) + "\n")
        shutil.chown(pid_file, (folder / "data").stat().st_uid)
        assert not server.running
        assert await _value(await server.start(), "SELECT 1") == 1
    finally:
        zombie.wait()
        await server.stop()


def _as_owner(folder: Path) -> dict[str, int]:
    """Arguments that start a process as the server's account, whose pid PostgreSQL would take for a rival."""
    owner = (folder / "data").stat().st_uid
    return {} if owner == os.geteuid() else {"user": owner}


@posix
async def test_committed_rows_survive_a_killed_server_and_its_orphans_are_ended(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    url = await server.start()
    await _run(url, "CREATE TABLE kept (n int)")
    await _run(url, "INSERT INTO kept SELECT generate_series(1, 1000)")
    busy = await connect(url)
    orphan = await busy.fetchval("SELECT pg_backend_pid()")
    spinning = asyncio.create_task(busy.execute("SELECT count(*) FROM generate_series(1, 1e12::bigint)"))
    while psutil.Process(orphan).cpu_times().user < 0.05:
        await asyncio.sleep(0.01)
    await _kill_server(folder)
    try:
        assert await _value(await server.start(), "SELECT count(*) FROM kept") == 1000
        assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE
    finally:
        await server.stop()
        await asyncio.gather(spinning, return_exceptions=True)
        busy.terminate()


@posix
async def test_a_killed_server_is_brought_back_at_the_same_address(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    url = await server.start()
    first = _pid(folder)
    guard = asyncio.create_task(server.supervise())
    try:
        await _kill_server(folder)
        async with asyncio.timeout(120):
            while not server.running:
                await asyncio.sleep(0.02)
        assert _pid(folder) != first
        assert server.url == url
        assert await _value(url, "SELECT 1") == 1
    finally:
        guard.cancel()
        await asyncio.gather(guard, return_exceptions=True)
        await server.stop()


async def test_half_a_cluster_left_by_a_killed_start_is_cleared_away(fresh_folder: Path) -> None:
    (fresh_folder / "making-before").mkdir(parents=True)
    (fresh_folder / "making-before" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(fresh_folder)
    await server.start()
    await server.stop()
    assert list(fresh_folder.glob("making-*")) == []


async def test_a_removed_password_is_replaced(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    before = await server.start()
    await server.stop()
    (folder / "password").unlink()
    after = await server.start()
    try:
        assert after != before
        assert await _value(after, "SELECT 1") == 1
    finally:
        await server.stop()


async def test_data_of_another_version_is_refused(fresh_folder: Path) -> None:
    (fresh_folder / "data").mkdir(parents=True)
    (fresh_folder / "data" / "PG_VERSION").write_text("15\n")
    with pytest.raises(StorageError, match=r"made by PostgreSQL 15.*brings 18"):
        await EmbeddedPostgres(fresh_folder).start()


async def test_a_folder_of_something_else_is_refused_and_left_alone(fresh_folder: Path) -> None:
    (fresh_folder / "data").mkdir(parents=True)
    (fresh_folder / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(StorageError, match="no PostgreSQL data directory"):
        await EmbeddedPostgres(fresh_folder).start()
    assert (fresh_folder / "data" / "thesis.txt").read_text() == "mine"


async def test_a_start_that_failed_lets_go_of_the_folder(fresh_folder: Path) -> None:
    (fresh_folder / "data").mkdir(parents=True)
    with pytest.raises(StorageError):
        await EmbeddedPostgres(fresh_folder).start()
    (fresh_folder / "data").rmdir()
    other = EmbeddedPostgres(fresh_folder)
    await other.start()
    await other.stop()


@root_only
async def test_root_hands_the_server_to_an_unprivileged_account(postgres: EmbeddedPostgres) -> None:
    assert psutil.Process(_pid(postgres.directory)).uids().effective != 0


@root_only
@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not installed")
async def test_root_serves_a_folder_that_nobody_else_reaches_through_a_user_namespace(fresh_folder: Path) -> None:
    fresh_folder.parent.chmod(0o700)
    server = EmbeddedPostgres(fresh_folder)
    url = await server.start()
    try:
        assert await _value(url, "SELECT 1") == 1
        assert (fresh_folder / "data").stat().st_uid == 0
        namespaces = [Path(f"/proc/{pid}/ns/user").readlink() for pid in (_pid(fresh_folder), "self")]
        assert namespaces[0] != namespaces[1]
    finally:
        await server.stop()


@root_only
async def test_root_without_any_way_to_step_down_is_told_what_to_do(
    fresh_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_process, "ACCOUNTS", ())
    with pytest.raises(StorageError, match="ordinary user"):
        await EmbeddedPostgres(fresh_folder).start()
