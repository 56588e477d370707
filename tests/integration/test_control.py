"""Changing a running daemon over real HTTP, by its real command line, on a real PostgreSQL."""

import asyncio
import contextlib
import io
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
import pytest

from service.cli import run_command
from tests.daemon import Daemon, Look, Process
from tests.proxy import Proxy
from tests.servers import Answer, LlamaServer

ADMIN, READ = "admin-0123456789abcdef", "reads-0123456789abcdef"
MARKET = {"feed": {"type": "simulated", "speed": 600.0, "timeframe": "1m", "symbols": ["SIMBTC"], "seed": 11}}


class Api:
    """The HTTP API of a running daemon."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON: GET without a body, POST with one."""
        await self._process.said("is answered at http")
        url = self._process.log.partition("is answered at ")[2].split()[0]
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method or ("GET" if body is None else "POST"), url + path, json=body, headers=sent) as got,
        ):
            return got.status, orjson.loads(await got.read())

    async def until_ready(self, **headers: str) -> None:
        async with asyncio.timeout(60):
            while (await self.ask("/api/v1/control", **headers))[0] != 200:  # noqa: ASYNC110 - told by HTTP only
                await asyncio.sleep(0.05)

    @property
    def port(self) -> str:
        return self._process.log.partition("is answered at ")[2].split()[0].rpartition(":")[2]


@asynccontextmanager
async def running(daemon: Daemon, *arguments: str) -> AsyncIterator[tuple[Process, Api]]:
    async with daemon.start("--plain", *arguments) as process:
        api = Api(process)
        await api.until_ready()
        yield process, api


async def do(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command; in this process, which spares it a start of the program."""
    out, err = io.StringIO(), io.StringIO()
    asked = [*arguments, "--config", str(daemon.folder / "config.json")]
    with pytest.MonkeyPatch.context() as environment:
        for name, value in daemon.environment.items():
            environment.setenv(name, value)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = await asyncio.to_thread(run_command, asked)
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def daemon(database: str, tmp_path: Path) -> Daemon:
    return Daemon(tmp_path, {"trading": MARKET, "database": {"url": database}})


async def results(look: Look) -> int:
    count: int = await look.value("SELECT count(*) FROM llm_analysis_results")
    return count


async def test_a_pause_stops_every_worker_survives_a_restart_and_is_told(daemon: Daemon, database: str) -> None:
    """The market is watched on, nothing is rated, and the next process finds it so; `resume` rates all that waited."""
    look = Look(database)
    async with running(daemon) as (process, api):
        await look.until("SELECT count(*) > 2 FROM llm_analysis_results")
        status, told = await api.ask("/api/v1/control/pause", {"reason": "the model dreams", "who": "ann"})
        assert (status, told["paused"], told["pause"]["reason"]) == (200, True, "the model dreams")
        await process.said("PAUSED: no signal is rated until `tradent resume`")
        await look.until("SELECT count(*) = 0 FROM llm_enhancement_tasks WHERE status = 'processing'")
        before = await results(look)
        await look.until("SELECT count(*) > 5 FROM llm_enhancement_tasks WHERE status = 'pending'")
        assert await results(look) == before
        code, out, _ = await do(daemon, "status", "--set", f"service.port={api.port}")
        assert code == 0
        assert "PAUSED" in out
        assert "by ann (the model dreams)" in out
    async with running(daemon) as (process, api):
        await process.said("PAUSED")
        waiting = await look.value("SELECT count(*) FROM llm_enhancement_tasks WHERE status = 'pending'")
        await look.until(f"SELECT count(*) > {waiting} + 2 FROM llm_enhancement_tasks WHERE status = 'pending'")
        assert await results(look) == before
        assert (await api.ask("/api/v1/control/resume", {}))[1]["paused"] is False
        await look.until(f"SELECT count(*) > {before} + {waiting} FROM llm_analysis_results")


async def test_a_pause_by_one_process_is_obeyed_by_another(daemon: Daemon, database: str, tmp_path: Path) -> None:
    look = Look(database)
    other = tmp_path / "other"
    other.mkdir()
    worker = Daemon(other, {"trading": MARKET, "database": {"url": database}})
    async with running(daemon, "--role", "trader") as (_, api), running(worker, "--role", "worker") as (process, _):
        await look.until("SELECT count(*) > 2 FROM llm_analysis_results")
        await api.ask("/api/v1/control/pause", {})
        await process.said("PAUSED")
        await api.ask("/api/v1/control/resume", {})
        await process.said("resumed: signals are rated again")


async def test_acts_are_kept_with_who_by_which_way_and_why(daemon: Daemon, database: str) -> None:
    """By the API, the command line and the page; a second pause changes nothing, and is none."""
    async with running(daemon) as (_, api):
        port = f"service.port={api.port}"
        await api.ask("/api/v1/control/pause", {"who": "bob"})
        await api.ask("/api/v1/control/pause", {"who": "carol"})
        code, out, _ = await do(daemon, "resume", "--reason", "all is well\x1b[31m", "--set", port)
        assert (code, out) == (0, "signals are rated\n")
        await api.ask("/api/v1/control/pause", {}, Sec_Fetch_Site="same-origin")
        kept = (await api.ask("/api/v1/control/acts"))[1]["acts"]
        assert [(act["act"], act["via"]) for act in kept] == [("pause", "page"), ("resume", "cli"), ("pause", "api")]
        assert kept[2]["who"] == "bob"
        assert kept[2]["before"] == {"paused": False}
        assert kept[2]["after"] == {"paused": True}
        assert kept[1]["reason"] == "all is well\x1b[31m"
        page = (await api.ask("/api/v1/control/acts?limit=2"))[1]
        assert (await api.ask(f"/api/v1/control/acts?cursor={page['next_cursor']}"))[1]["acts"] == kept[2:]
        code, out, _ = await do(daemon, "acts", "--set", port)
        assert code == 0
        assert "  resume (cli, " in out
        assert "\x1b" not in out
    assert await Look(database).value("SELECT count(*) FROM control_acts") == 3


async def test_only_the_admin_acts_and_what_cannot_be_understood_changes_nothing(database: str, tmp_path: Path) -> None:
    tokens = {"TRADENT_ADMIN_TOKEN": ADMIN, "TRADENT_READ_TOKEN": READ}
    daemon = Daemon(tmp_path, {"trading": MARKET, "database": {"url": database}}, tokens)
    reader, admin = {"Authorization": f"Bearer {READ}"}, {"Authorization": f"Bearer {ADMIN}"}
    async with daemon.start("--plain") as process:
        api = Api(process)
        await api.until_ready(**reader)
        assert (await api.ask("/api/v1/control/pause", {}, **reader))[0] == 403
        assert (await api.ask("/api/v1/control/pause", {}))[0] == 401
        wrong: list[tuple[Any, str]] = [
            ({"reason": 1}, "reason = 1"), ({"reason": "x" * 501}, "at most 500"), ({"why": 1}, "why = 1"),
            ({"who": "\0"}, "NUL"), ([], "a JSON object"),
        ]  # fmt: skip
        for body, said in wrong:
            status, told = await api.ask("/api/v1/control/pause", body, method="POST", **admin)
            assert (status, said in told["error"]) == (400, True), told
        assert (await api.ask("/api/v1/control", **reader))[1]["paused"] is False
        assert (await api.ask("/api/v1/control/acts?limit=x", **reader))[0] == 400
        assert (await api.ask("/api/v1/control/acts", **reader))[1]["acts"] == []
        code, out, _ = await do(daemon, "pause", "--set", f"service.port={api.port}")
        assert (code, out.startswith("paused since ")) == (0, True)


async def test_while_postgresql_is_away_nothing_is_changed_and_the_answer_says_so(
    database: str, tmp_path: Path
) -> None:
    """An act that cannot be kept is not done."""
    look = Look(database)
    async with Proxy(database) as proxy:
        daemon = Daemon(tmp_path, {"trading": MARKET, "database": {"url": proxy.url}})
        async with running(daemon) as (_, api):
            await proxy.cut()
            status, told = await api.ask("/api/v1/control/pause", {})
            assert status == 503
            assert "PostgreSQL" in told["error"]
            assert (await api.ask("/api/v1/control"))[1]["paused"] is False
            await proxy.mend()
            proxy.freeze()
            for path in ("control/pause", "control/reload", f"tasks/sig-{uuid4()}/retry"):
                assert (await api.ask(f"/api/v1/{path}", {}))[0] == 503
            proxy.thaw()
            assert (await api.ask("/api/v1/control"))[1]["paused"] is False
        assert await look.value("SELECT count(*) FROM control_acts") == 0


def with_llm(daemon: Daemon, **llm: Any) -> dict[str, Any]:
    """The daemon's settings with other values under `llm`."""
    return {**daemon.settings, "llm": {**daemon.settings["llm"], **llm}}


async def test_sighup_reads_the_settings_anew(daemon: Daemon, database: str) -> None:
    """What can change holds and is told key by key, what cannot says so; wrong settings change nothing."""
    look = Look(database)
    async with LlamaServer() as server, running(daemon) as (process, api):
        await look.until("SELECT count(*) > 1 FROM llm_analysis_results")
        before = daemon.settings
        daemon.write({**with_llm(daemon, temperature=9, bogus=1)})
        process.send(signal.SIGHUP)
        await process.said("the settings are wrong, and those that held hold on: llm.temperature = 9")
        await process.said("hold on: llm.bogus")
        backends = {"llama_cpp": {"base_url": server.base_url, "requests_per_minute": 9000}}
        daemon.settings = before
        daemon.write({**with_llm(daemon, model="llama_cpp/local", backends=backends, signal_ttl_seconds=900)})
        process.send(signal.SIGHUP)
        await process.said("llm.model holds from now on before=rules/baseline now=llama_cpp/local")
        await process.said("llm.signal_ttl_seconds cannot change while the daemon runs; restart it")
        await process.said("signals are rated by llama_cpp/local")
        await look.until("SELECT count(*) > 1 FROM llm_analysis_results WHERE model = 'llama_cpp/local'")
        assert (await api.ask("/api/v1/control"))[1]["limits"]["llama_cpp"]["requests_per_minute"] == 9000
        (act,) = (await api.ask("/api/v1/control/acts"))[1]["acts"]
        assert (act["act"], act["via"]) == ("reload", "sighup")
        assert act["before"]["llm.model"] == "rules/baseline"
        assert act["after"]["llm.model"] == "llama_cpp/local"
        quiet = {**before["service"], "log_level": "WARNING"}
        daemon.write({**before, "llm": {**before["llm"], "max_retries": 1}, "service": quiet})
        process.send(signal.SIGHUP)
        await process.said("llm.max_retries holds from now on")
        await process.said("service.log_level holds from now on before=INFO now=WARNING")
        daemon.write({**before, "llm": {**before["llm"], "model": "rules/"}})
        status, told = await api.ask("/api/v1/control/reload", {})
        assert status == 409
        assert "llm.model" in told["error"]
        assert "Traceback" not in process.log


async def test_limits_and_model_change_by_command_and_last_until_a_reload(database: str, tmp_path: Path) -> None:
    """Signals wait for a limit that is used up; raising it lets them go on at once. The file is what a reload holds."""
    look = Look(database)
    limits = {"rules": {"requests_per_minute": 1}}
    settings = {"trading": MARKET, "database": {"url": database}, "llm": {"backends": limits, "max_batch_signals": 1}}
    daemon = Daemon(tmp_path, settings)
    async with running(daemon) as (_, api):
        port = ("--set", f"service.port={api.port}")
        await look.until("SELECT count(*) > 4 FROM llm_enhancement_tasks")
        assert await results(look) == 1
        code, out, _ = await do(daemon, "limits", "rules", "--requests", "5000", "--reason", "it is paid for", *port)
        assert (code, out.splitlines()[0]) == (0, "rules: 5,000 requests, any number of tokens a minute")
        await look.until("SELECT count(*) > 4 FROM llm_analysis_results", 30)
        code, out, said = await do(daemon, "limits", "openai", *port)
        assert (code, out, said) == (1, "", "'openai' is not in use; expected one of rules\n")
        code, _, said = await do(daemon, "model", "rules/other/", "--set", "llm.model=rules/x", *port)
        assert (await api.ask("/api/v1/control"))[1]["model"] == "rules/other/"
        code, _, said = await do(daemon, "model", "nobody/x", *port)
        assert (code, "no backend is named" in said) == (1, True)
        code, out, _ = await do(daemon, "reload", *port)
        assert out.splitlines() == [
            "llm.backends.rules.requests_per_minute: 5000 → 1", "llm.model: rules/other/ → rules/baseline",
        ]  # fmt: skip
        acts = (await api.ask("/api/v1/control/acts"))[1]["acts"]
        assert [act["act"] for act in acts] == ["reload", "model", "limits"]
        assert acts[2]["reason"] == "it is paid for"
        wrong = {"backend": "openai", "requests_per_minute": 1}, {"backend": "rules"}, {"backend": "rules", "x": 1}
        for body in wrong:
            assert (await api.ask("/api/v1/control/limits", body))[0] == 400


async def test_signals_are_retried_and_skipped_by_id(daemon: Daemon, database: str) -> None:
    """One that failed is rated after all, also in the stream of events; one that waits is skipped. Others are named."""
    look = Look(database)
    async with LlamaServer() as server:
        rates = server.default
        refusal = Answer({"error": {"code": 400, "message": "no", "type": "invalid_request_error"}}, status=400)
        server.default = lambda body: rates(body) if "canary" in str(body) else refusal
        backends = {"llama_cpp": {"base_url": server.base_url}}
        daemon.write(with_llm(daemon, model="llama_cpp/local", backends=backends, max_retries=1, ask_again=False))
        async with running(daemon) as (_, api):
            port = ("--set", f"service.port={api.port}")
            await look.until("SELECT count(*) > 0 FROM llm_analysis_results WHERE status = 'failed'")
            await api.ask("/api/v1/control/pause", {})
            await look.until("SELECT count(*) > 0 FROM llm_enhancement_tasks WHERE status = 'pending'")
            failed = await look.value("SELECT signal_id FROM llm_analysis_results WHERE status = 'failed' LIMIT 1")
            waits = await look.value("SELECT signal_id FROM llm_enhancement_tasks WHERE status = 'pending' LIMIT 1")
            server.default = rates
            code, out, said = await do(daemon, "retry", f"sig-{failed}", f"sig-{waits}", "sig-0", *port)
            assert (code, out) == (1, f"sig-{failed} is rated again; it was failed\n")
            assert f"sig-{waits} is pending; only what failed, expired or was skipped can be retried" in said
            assert "there is no such signal" in said
            code, out, _ = await do(daemon, "skip", str(waits), "--reason", "a test", "--json", *port)
            assert orjson.loads(out) == [{"signal": f"sig-{waits}", "before": "pending", "status": "skipped"}]
            skipped = (await api.ask(f"/api/v1/signals/sig-{waits}"))[1]
            assert skipped["status"] == "skipped"
            assert skipped["error"].startswith("skipped by ")
            assert skipped["error"].endswith(": a test")
            assert (await api.ask("/api/v1/tasks/sig-0/skip", {}))[0] == 404
            await api.ask("/api/v1/control/resume", {})
            await look.until(f"SELECT status = 'completed' FROM llm_enhancement_tasks WHERE signal_id = '{failed}'")
            acts = (await api.ask("/api/v1/control/acts"))[1]["acts"]
            assert [(act["act"], act["signal"]) for act in acts][1:3] == [
                ("skip", f"sig-{waits}"), ("retry", f"sig-{failed}"),
            ]  # fmt: skip
