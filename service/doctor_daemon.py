"""What the running daemon says of itself, for `doctor`."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from service.findings import Finding, note, well, wrong
from service.settings import Settings
from service.status import Answer, NoDaemon, ask, fetch_status
from service.version import VERSION
from service.view_words import part, rows, said
from trading.errors import TradentError


class Heard:
    """Whether the daemon has answered."""

    anything = False


async def daemon_findings(settings: Settings, heard: Heard) -> AsyncIterator[Finding]:
    """Whether it runs, in this version, and does its work. Not running is no fault."""
    host, port = settings.service.host, settings.service.port
    try:
        vitals = orjson.loads(await fetch_status(host, port))
        heard.anything = True
        yield _running(vitals)
        ready = _checks(await ask(host, port, "/readyz"))
    except NoDaemon as error:
        yield (wrong if error.listens else note)("daemon", str(error))
        return
    except TradentError as error:
        yield (wrong if port else note)("daemon", str(error))
        return
    checks = rows(ready, "checks")
    for check in checks:
        if not check.get("ok"):
            yield wrong(f"daemon, {said(check, 'check')}", said(check, "detail"))
    if passed := [said(check, "check") for check in checks if check.get("ok")]:
        yield well("daemon, by its own checks", f"{', '.join(passed)}: in order")
    for model in rows(part(vitals, "models"), "checked"):
        if not model.get("usable"):
            yield note(said(model, "model"), said(model, "detail"))


def _checks(ready: Answer) -> Any:
    """Those of the answer; none where the daemon does not know them yet, being of an earlier version."""
    try:
        return orjson.loads(ready.body)
    except orjson.JSONDecodeError:
        return {}


def _running(vitals: dict[str, object]) -> Finding:
    told = f"{said(vitals, 'phase')} since {said(vitals, 'started_at')[:19]}Z"
    if said(vitals, "version") != VERSION:
        return note("daemon", f"{told}, in version {said(vitals, 'version')}; restart it to have {VERSION}")
    return well("daemon", told)
