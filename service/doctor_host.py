"""What `doctor` sees of the host: whether its clock is kept, and what systemd says of our unit."""

import asyncio
import ctypes
import shutil
import sys
from pathlib import Path

from service.findings import Finding, note, well, wrong

UNIT = "tradent.service"
SYSTEMD_RUNS = Path("/run/systemd/system")
LIMIT_S = 5.0
_TIMEX_BYTES = 256
_STATUS_AT = 5 * ctypes.sizeof(ctypes.c_long)
_UNSYNCHRONIZED = 0x40
_ASKED = ("LoadState", "ActiveState", "SubState", "Result", "NRestarts", "NeedDaemonReload")


async def clock_kept() -> Finding:
    """Whether the kernel's clock is kept by NTP, as far as it knows."""
    if sys.platform != "linux":
        return well("clock", "whether NTP keeps it is not known on this system")
    asked = ctypes.create_string_buffer(_TIMEX_BYTES)
    adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
    if adjtimex is None or adjtimex(asked) < 0:
        return well("clock", "whether NTP keeps it is not known here")
    status = int.from_bytes(asked.raw[_STATUS_AT : _STATUS_AT + 4], sys.byteorder)
    if status & _UNSYNCHRONIZED:
        return note("clock", "NTP does not keep it; bars' times are told by it: install chrony or systemd-timesyncd")
    return well("clock", "kept by NTP")


def systemd_runs() -> bool:
    """Whether this host was started by it, and it can be asked."""
    return SYSTEMD_RUNS.is_dir() and shutil.which("systemctl") is not None


async def unit_finding(*, systemd: bool) -> Finding:
    """How our unit does, where systemd runs and has one."""
    if not systemd:
        return well("systemd", "it does not run here")
    said = await _systemctl_show()
    if said is None:
        return note("systemd", "systemctl does not answer; see whether systemd is well")
    if said.get("LoadState") != "loaded":
        return well("systemd", f"there is no {UNIT}")
    return _judged(said)


def _judged(said: dict[str, str]) -> Finding:
    """The unit's state, and what to do about it."""
    state = f"{UNIT} is {said.get('ActiveState')} ({said.get('SubState')}), restarted {said.get('NRestarts')} times"
    if said.get("ActiveState") == "failed":
        return wrong("systemd", f"{state}: {said.get('Result')}; `journalctl -u {UNIT} -n 50` says why")
    if said.get("ActiveState") != "active":
        return note("systemd", f"{state}; `systemctl start {UNIT}` starts it")
    if said.get("NeedDaemonReload") == "yes":
        return note("systemd", f"{state}, by a unit that was changed since; `systemctl daemon-reload`, then restart it")
    return well("systemd", state)


async def _systemctl_show() -> dict[str, str] | None:
    """The unit's properties, None where nothing is said in time."""
    process = await asyncio.create_subprocess_exec(
        "systemctl", "show", UNIT, "--no-pager", f"--property={','.join(_ASKED)}",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    if process.returncode:
        return None
    return dict(line.split("=", 1) for line in out.decode(errors="replace").splitlines() if "=" in line)
