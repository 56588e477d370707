"""Tokens from a credentials directory guard a real daemon, and turn up in nothing it writes."""

import re
import signal
from pathlib import Path

import aiohttp

from tests.daemon import Daemon

TOKENS = {"READ": "read-marker-0123456789", "SIGNAL": "signal-marker-0123456789", "ADMIN": "admin-marker-0123456789"}


async def test_tokens_guard_the_daemon_and_are_written_nowhere(database: str, tmp_path: Path) -> None:
    """The credentials are no stray settings; `status` sends the token; neither logs nor tables nor files hold one."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for scope, token in TOKENS.items():
        (credentials / f"TRADENT_{scope}_TOKEN").write_text(token + "\n")
    folder = tmp_path / "work"
    folder.mkdir()
    settings = {"database": {"url": database}, "service": {"log_level": "DEBUG"}}
    daemon = Daemon(folder, settings, {"CREDENTIALS_DIRECTORY": str(credentials)})
    async with daemon.start() as running, aiohttp.ClientSession() as session:
        await running.said("`status` is answered at ")
        (url,) = re.findall(r"answered at (http://\S+)", running.log)
        daemon.write({**settings, "service": {"port": int(url.rpartition(":")[2])}})
        status, out, log = await daemon.do("status", "--json")
        assert (status, log) == (0, "")
        for token, expected in ((None, 401), (TOKENS["SIGNAL"], 403), (TOKENS["READ"], 200), (TOKENS["ADMIN"], 200)):
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with session.get(f"{url}/status", headers=headers) as answer:
                assert answer.status == expected
                out += await answer.text()
            async with session.get(f"{url}/hooks/{token}/{token}?token={token}", headers=headers) as answer:
                out += await answer.text()
        running.send(signal.SIGTERM)
        assert await running.ended() == 0
        out += running.log
    written = [path for path in folder.rglob("*") if path.is_file()]
    for text in (out, *(path.read_text("utf-8", "replace") for path in written)):
        assert "-marker-" not in text
