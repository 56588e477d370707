"""Runs a program behind the walls of a systemd unit, without systemd: `python -m tests.walls UNIT STATE COMMAND…`.

What the unit says is read from it: calls of the kernel that are let through, address families, executable memory, the
account, capabilities, umask, open files, read-only and hidden folders, processes of others. What is not done here:
PrivateUsers, PrivateDevices, DevicePolicy and what protects the kernel. Needs root, Linux on x86-64, systemd-analyze.
"""

import ctypes
import os
import platform
import re
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

UID = 61_999  # among those that DynamicUser takes
STASH = Path("/run/tradent-walls")  # empty but in the namespace
HIDDEN = ("/tmp", "/var/tmp", "/root", "/home")
NUMBERS = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
REPOSITORY = Path(__file__).resolve().parents[1]
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}

BIND, RECURSIVE, PRIVATE, REMOUNT, READ_ONLY, NO_SUID = 1 << 12, 1 << 14, 1 << 18, 1 << 5, 1, 2
NEW_MOUNTS, NEW_IPC = 0x20000, 0x8000000
NAMESPACES = 0x7E020080
LOAD, EQUAL, SET, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, DENY = 0x7FFF0000, 0x00050000
NOT_PERMITTED, NO_SUCH_CALL, NO_FAMILY = DENY | 1, DENY | 38, DENY | 97
libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """What this needs and does not find; None where it can run."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return "the filter is written for Linux on x86-64"
    if os.geteuid() != 0:
        return "only root can build the walls"
    if shutil.which("systemd-analyze") is None:
        return "systemd-analyze, which knows the sets of system calls, is not installed"
    if not NUMBERS.exists():
        return f"{NUMBERS} (linux-libc-dev) is not installed"
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        return "no mount namespace can be made here"
    return None


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Every value of each key of a unit, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def run_behind(unit: Path, state: Path, command: Sequence[str]) -> None:
    """Become `command`, with `state` as the one folder that can be written."""
    said = settings_of(unit)
    allowed = _allowed(said["SystemCallFilter"])
    families = [FAMILIES[name] for name in said["RestrictAddressFamilies"][0].split()]
    for path in (state, *state.rglob("*")):
        os.chown(path, UID, UID, follow_symlinks=False)
    _mount_walls(state)
    most = min(int(said["LimitNOFILE"][0]), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _become_nobody()
    os.umask(int(said["UMask"][0], 8))
    os.chdir(state)
    _prctl(38, 1)  # NoNewPrivileges
    if said["MemoryDenyWriteExecute"] == ["yes"]:
        _prctl(65, 1)
    _filter(allowed, families)
    os.execvpe(command[0], list(command), {**os.environ, "PYTHONPYCACHEPREFIX": str(state / "cache"), "HOME": "/"})


def _allowed(filters: Sequence[str]) -> set[int]:
    """The numbers of the calls that are let through."""
    named: set[str] = set()
    for line in filters:
        calls = {call for word in line.removeprefix("~").split() for call in _calls(word)}
        named = named - calls if line.startswith("~") else named | calls
    numbers = dict(re.findall(r"#define __NR_(\w+) (\d+)", NUMBERS.read_text()))
    return {int(numbers[name]) for name in named - {"unshare", "setns"} if name in numbers}  # RestrictNamespaces


def _calls(word: str) -> Iterator[str]:
    if not word.startswith("@"):
        yield word
        return
    shown = subprocess.run(["systemd-analyze", "syscall-filter", word], check=True, capture_output=True, text=True)
    for line in shown.stdout.splitlines():
        if line.startswith(" ") and not line.strip().startswith("#"):
            yield from _calls(line.strip())


def _mount_walls(state: Path) -> None:
    """The host read-only, but for `state` and an empty /tmp; homes empty but for what the program itself needs."""
    _checked(libc.unshare(NEW_MOUNTS | NEW_IPC), "unshare")
    _mount("none", "/", flags=RECURSIVE | PRIVATE)
    needed = [REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), state]
    STASH.mkdir(exist_ok=True)
    _mount("tmpfs", str(STASH), "tmpfs")
    for number, path in enumerate(needed):
        (STASH / str(number)).mkdir()
        _mount(str(path), str(STASH / str(number)), flags=BIND | RECURSIVE)
    for place in HIDDEN:
        if Path(place).exists():
            _mount("tmpfs", place, "tmpfs", data="mode=1777" if place.endswith("tmp") else "mode=755")
    for number, path in enumerate(needed):
        if str(path).startswith(HIDDEN):
            for folder in (*reversed(path.parents), path):
                if not folder.exists():
                    folder.mkdir(mode=0o755)
        _mount(str(STASH / str(number)), str(path), flags=BIND | RECURSIVE)
    accounts = STASH / "passwd"
    accounts.write_text(f"{Path('/etc/passwd').read_text()}tradent:x:{UID}:{UID}::/:/usr/sbin/nologin\n")
    accounts.chmod(0o644)
    _mount(str(accounts), "/etc/passwd", flags=BIND)
    open_still = (str(state), "/proc", "/sys", "/dev", "/tmp", "/var/tmp")
    for place in _mount_points():
        if place not in open_still and not place.startswith(("/proc/", "/sys/", "/dev/")):
            _mount("none", place, flags=REMOUNT | BIND | READ_ONLY | NO_SUID)
    _mount("proc", "/proc", "proc", data="hidepid=2")


def _mount_points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return list(dict.fromkeys(line.split()[4].encode().decode("unicode_escape") for line in lines))


def _mount(source: str, place: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    words = [word.encode() if word is not None else None for word in (source, place, kind, data)]
    _checked(libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), f"mount {place}")


def _become_nobody() -> None:
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # out of the bounding set
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def _filter(allowed: set[int], families: Sequence[int]) -> None:
    """seccomp: what is not allowed is refused with EPERM, as SystemCallErrorNumber has it."""
    rules = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, 0xC000003E), (RETURN, 0, 0, NOT_PERMITTED), (LOAD, 0, 0, 0)]
    rules += [(EQUAL, 0, 1, 435), (RETURN, 0, 0, NO_SUCH_CALL)]  # clone3, whose flags cannot be seen
    rules += [(EQUAL, 0, 3, 56), (LOAD, 0, 0, 16), (SET, 0, 2, NAMESPACES), (RETURN, 0, 0, NOT_PERMITTED)]
    rules += [(0x05, 0, 0, 1), (RETURN, 0, 0, ALLOW)]
    known = [rule for family in families for rule in ((EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW))]
    rules += [(LOAD, 0, 0, 0), (EQUAL, 0, len(known) + 2, 41), (LOAD, 0, 0, 16), *known, (RETURN, 0, 0, NO_FAMILY)]
    for number in sorted(allowed - {41, 56, 435}):
        rules += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    rules.append((RETURN, 0, 0, NOT_PERMITTED))
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    head = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(program))
    _checked(libc.prctl(22, 2, head, 0, 0), "seccomp")


def _prctl(option: int, value: int) -> None:
    _checked(libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _checked(outcome: int, what: str) -> None:
    if outcome:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    run_behind(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
