"""The running daemon does what its /openapi.json says, whatever is sent: schemathesis asks it."""

import asyncio
import re
import sys
from pathlib import Path

from tests.daemon import LIMIT_S, Daemon

ADMIN = "admin-token-0123456789"
NEVER_ENDS = "/api/v1/stream"
# What the form allows may still be refused by what is there: a backend that is not in use, a model without a key.
BY_STATE = ["/api/v1/control/limits", "/api/v1/control/model"]
EXCEPTIONS = "".join(
    f"[[operations]]\ninclude-path = '{path}'\nchecks.positive_data_acceptance.enabled = false\n" for path in BY_STATE
)
ONE_SIGNAL = "[[operations]]\ninclude-path = '/api/v1/signals/{{id}}'\nparameters = {{ 'path.id' = '{}' }}\n"


async def test_what_is_said_in_openapi_json_is_held(database: str, tmp_path: Path) -> None:
    """Forms, statuses, tokens and methods; good values are taken, bad ones refused, and nothing ends in a 500."""
    daemon = Daemon(tmp_path, {"database": {"url": database}}, {"TRADENT_ADMIN_TOKEN": ADMIN})
    async with daemon.start() as running:
        await running.said("rated sig-", times=3)
        (signal, *_) = re.findall(r"rated (sig-\S+)", running.log)
        (tmp_path / "schemathesis.toml").write_text(EXCEPTIONS + ONE_SIGNAL.format(signal))
        (url,) = re.findall(r"answered at (http://\S+)", running.log)
        asking = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json",
            "--header", f"Authorization: Bearer {ADMIN}", "--exclude-path", NEVER_ENDS, "--continue-on-failure",
            "--phases", "coverage,fuzzing", "--max-examples", "8", "--generation-deterministic", "--no-color",
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(3 * LIMIT_S):
                said, _ = await asking.communicate()
        finally:
            if asking.returncode is None:
                asking.kill()
        assert asking.returncode == 0, said.decode()
        (tested,) = re.findall(r"Tested: +(\d+)", said.decode())
        assert int(tested) >= 20
        assert "failed; please report it" not in running.log
