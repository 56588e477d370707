"""How the daemon starts: the market does not wait for a model."""

import asyncio
from pathlib import Path

import pytest

from service.daemon import Daemon
from service.settings import Settings
from tests.waiting import until


async def test_the_market_is_watched_while_a_model_does_not_say_whether_it_is_there(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-test-mute")
    asked = asyncio.Event()
    hang_up = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await hang_up.wait()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    chosen = Settings.model_validate(
        {
            "trading": {"feed": {"type": "simulated", "bars": 30, "speed": "max"}},
            "llm": {
                "model": "openrouter/a/model",
                "backends": {"openrouter": {"base_url": f"http://127.0.0.1:{port}"}},
                "csv_output_directory": str(tmp_path / "csv"),
            },
            "database": {"url": database, "journal_directory": str(tmp_path / "journal")},
            "service": {"port": 0},
        }
    )
    daemon = Daemon(chosen)
    running = asyncio.create_task(daemon.run())
    try:
        await until(lambda: daemon.trading is not None and daemon.trading.recorder.shipped.bars == 90)
        await until(asked.is_set)

        assert daemon.rating is not None
        assert not daemon.rating.checked
    finally:
        daemon.request_stop()
        hang_up.set()
        await running
        server.close()
