"""A systemd of the test's own: process 1 of new namespaces, with our units, a journal and nothing else of the host's.

What it writes is in memory and gone with it: /run, /var/lib, /var/cache, /var/log and changes of /etc. Python, its
packages and this repository are bound to /srv, as the unit hides homes and /tmp.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from service.unit_file import Installation, unit_text, usual_credentials

SYSTEMD = Path("/lib/systemd/systemd")
REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_S = 60.0
POLL_S = 0.2
SPACES = "--mount --uts --ipc --cgroup"
SERVICE = "tradent.service"
JOURNAL = {
    "journal.socket": """[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/systemd/journal/stdout
ListenDatagram=/run/systemd/journal/socket
PassCredentials=yes
""",
    "journal.service": """[Unit]
DefaultDependencies=no
[Service]
Type=notify
ExecStart=/lib/systemd/systemd-journald
StandardOutput=null
""",
}
TARGETS = ("basic", "sysinit", "shutdown", "multi-user", "network-online", "umount")
INNER = """
set -e
terminal=$(readlink /proc/self/fd/2)
mount --make-rprivate /
mkdir -p "$0/srv" && mount -t tmpfs tmpfs "$0/srv"
mkdir "$0/srv/python" "$0/srv/packages" "$0/srv/tradent" "$0/srv/here"
mount --bind "$1" "$0/srv/python" && mount --bind "$2" "$0/srv/packages" && mount --bind "$3" "$0/srv/tradent"
mount --bind "$0" "$0/srv/here" && mount --rbind "$0/srv" /srv
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/credstore /run/changed /run/work /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\n' > /run/systemd/journald.conf.d/own.conf
printf 0123456789abcdef0123456789abcdef > /run/credstore/tradent.TRADENT_READ_TOKEN
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/changed,workdir=/run/work /etc
for folder in /var/lib /var/cache /var/log; do mount -t tmpfs -o mode=755 tmpfs $folder; done
umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
mount --bind "$terminal" /dev/console
mount --make-rshared /
export container=unshare SYSTEMD_UNIT_PATH=/srv/here/units
exec /lib/systemd/systemd --system --unit=try.target --log-target=console --show-status=no \
  --default-standard-output=null --default-standard-error=null
"""


def why_not() -> str | None:
    """What this needs and does not find; None where it can run."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "only root on Linux can start a systemd of its own"
    if not SYSTEMD.exists() or any(shutil.which(each) is None for each in ("nsenter", "systemd-creds")):
        return "systemd (250 or newer) is not installed"
    if _cgroups() is None:
        return "there are no writable control groups (version 2)"
    if not any(Path("/lib").glob("*/libnss_systemd.so.2")):
        return "libnss-systemd is not installed"
    tried = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount", "--cgroup", "sh", "-c", "mount -t tmpfs tmpfs /srv"],
        check=False, capture_output=True,
    )  # fmt: skip
    return "namespaces cannot be made here" if tried.returncode else None


def _cgroups() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(place)
    return None


class RealSystemd:
    """Runs while it is entered. `folder` has `config.json`, which the services read.

    What tradent.service says goes into `log`, what the workers say into the journal. Encrypted credentials are theirs.
    """

    def __init__(self, folder: Path, drop_in: str) -> None:
        self._folder = folder
        self._drop_in = drop_in
        self._cgroup = (_cgroups() or Path()) / f"tradent-test-{os.getpid()}"
        self._outer: subprocess.Popen[bytes] | None = None
        self._first = 0
        self.log = folder / "log"

    def __enter__(self) -> Self:
        self._write_units()
        self._cgroup.mkdir()
        controller, terminal = os.openpty()
        packages = sysconfig.get_paths()["purelib"]
        enter = f'echo $$ > {self._cgroup}/cgroup.procs; exec unshare --pid --fork --kill-child {SPACES} "$@"'
        inner = ["sh", "-c", INNER, str(self._folder), sys.base_prefix, packages, str(REPOSITORY)]
        self._outer = subprocess.Popen(
            ["sh", "-c", enter, "sh", *inner], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
            start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        self._console = controller
        os.set_blocking(controller, False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(
                f"--- what systemd said ---\n{self.said()[-4000:]}\n--- the service ---\n{self.logged()[-4000:]}"
            )
        assert self._outer is not None
        for process in psutil.Process(self._outer.pid).children():
            process.send_signal(signal.SIGKILL)  # process 1 of its namespace: all of it ends
        self._outer.kill()
        self._outer.wait()
        os.close(self._console)
        deadline = time.monotonic() + LIMIT_S
        while self._cgroup.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # the last processes are still ending
                for group in sorted((path for path in self._cgroup.rglob("*") if path.is_dir()), reverse=True):
                    group.rmdir()
                self._cgroup.rmdir()

    def said(self) -> str:
        """What it has written to its console since it was last asked."""
        try:
            return os.read(self._console, 1 << 20).decode(errors="replace")
        except OSError:
            return ""

    def logged(self) -> str:
        """What the service has said."""
        return self.log.read_text() if self.log.exists() else ""

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command beside the service, as root."""
        assert self._outer is not None
        first = psutil.Process(self._outer.pid).children()
        if not first:
            return subprocess.CompletedProcess(command, 1, "", "it has not begun, or has ended")
        nsenter = ["nsenter", f"--target={first[0].pid}", "--mount", "--pid", "--"]
        return subprocess.run([*nsenter, *command], capture_output=True, text=True, check=False, timeout=LIMIT_S)

    def send(self, name: str, unit: str = SERVICE) -> str:
        """Send a service's first process a signal; its number, which is not 0 (that would be this very test)."""
        process = self.shown("MainPID", unit)
        assert int(process) > 1
        self.inside("kill", f"-{name}", process)
        return process

    def shown(self, name: str, unit: str = SERVICE) -> str:
        """A property of a service; "" while nobody answers."""
        return self.inside("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def control(self, act: str, *units: str) -> bool:
        """Whether systemctl could do this with the services."""
        return not self.inside("systemctl", act, *units).returncode

    def keep_encrypted(self, name: str, value: str) -> None:
        """Put a secret where encrypted ones are looked for, by the key of this host; a plain one would not be taken."""
        store, secret = "/etc/credstore.encrypted", f"tradent.{name}"
        encrypt = f"systemd-creds encrypt --with-key=host --name={name} - {store}/{secret}"
        script = f"rm -f /run/credstore/*; install -d {store}; systemd-creds setup; printf %s '{value}' | {encrypt}"
        done = self.inside("sh", "-c", script)
        assert done.returncode == 0, done.stderr

    def journal(self, unit: str, *more: str) -> str:
        """What a service has said into the journal."""
        return self.inside("journalctl", "--no-pager", "--output=cat", f"--unit={unit}", *more).stdout

    async def until(self, name: str, value: str, unit: str = SERVICE) -> None:
        """Wait until a property of a service has this value."""
        async with asyncio.timeout(LIMIT_S):
            while self.shown(name, unit) != value:  # noqa: ASYNC110 - what is waited for is another process's
                await asyncio.sleep(POLL_S)

    def _write_units(self) -> None:
        units = self._folder / "units"
        units.mkdir()
        self._folder.chmod(0o755)
        python = f"/srv/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        command = [python, "/srv/tradent/main_with_database.py"]
        paths = "PYTHONHOME=/srv/python PYTHONPATH=/srv/tradent:/srv/packages LD_LIBRARY_PATH=/srv/python/lib"
        service = Installation(command, Path("/srv/here/config.json"), usual_credentials())
        workers = replace(service, worker=True, encrypted=True)
        for about, said_to in ((service, "append:/srv/here/log"), (workers, "journal")):
            (units / about.unit).write_text(unit_text(about))
            (units / f"{about.unit}.d").mkdir()
            own = f"[Service]\nEnvironment={paths}\nStandardError={said_to}\n{self._drop_in}\n"
            (units / f"{about.unit}.d" / "test.conf").write_text(own)
        for name, text in JOURNAL.items():
            (units / name).write_text(text)
        (units / "try.target").write_text("[Unit]\nWants=journal.socket tradent.service\n")
        for target in TARGETS:
            (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
