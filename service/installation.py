"""What this installation is to a systemd service: its command, its folders, its secrets, and what stands in the way."""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import service
from llm_integration.calling.compose import key_names
from service.settings import Settings
from service.unit_file import CACHE, LOGS, STATE, Installation, usual_credentials

HIDDEN = tuple(map(Path, ("/tmp", "/var/tmp", "/root", "/run/user")))
NAME_SERVICES = Path("/etc/nsswitch.conf")
CREDENTIALS = Path("/etc/credstore")


def this_installation(
    settings: Settings, config: Path, *, worker: bool, encrypted: bool, more: Sequence[str] = ()
) -> Installation:
    """The program that runs now, with these settings; `more` are names of further credentials."""
    command, config = _command(), config.absolute()
    names = [*usual_credentials(), *keys_in_use(settings), *more]
    return Installation(
        command,
        config,
        list(dict.fromkeys(names)),
        grace_s=settings.service.shutdown_grace_seconds,
        embedded=settings.database.embedded and not worker,
        encrypted=encrypted,
        worker=worker,
        in_home=any(path.is_relative_to("/home") for path in _read(command, config)),
        writes=[path for path in _written(settings) if path.is_absolute() and not _is_own(path)],
    )


def keys_in_use(settings: Settings) -> list[str]:
    """The names of the keys that these settings' models and webhooks take."""
    hooks = [
        name
        for hook in settings.service.webhooks
        for name in (hook.url_env, hook.secret_env, hook.authorization_env)
        if name is not None
    ]
    return sorted({*key_names(settings.llm).values(), *hooks})


def obstacles(
    about: Installation, name_services: Path = NAME_SERVICES, credentials: Path = CREDENTIALS
) -> Iterator[str]:
    """What would keep the service from starting, each with what to do."""
    if any(character in about.command[0] for character in "\"'\\"):
        yield f"{about.command[0]}: systemd runs no program with a quote or a backslash in its path; put it elsewhere"
    for path in _read(about.command, about.config):
        if hidden := next((place for place in HIDDEN if path.is_relative_to(place)), None):
            yield f"{path} is in {hidden}, which the service does not see; put it elsewhere, as in /opt or /etc"
        elif (shut := _shut(path)) is not None:
            yield f"{shut} is closed to the service's account; let others read it: chmod o+rX {shut}"
    for folder in about.writes:
        if not folder.is_dir():
            yield f"{folder} is not there, without which systemd does not start the service; make that folder"
    for name in about.credentials if about.encrypted else ():
        if os.path.lexists(plain := credentials / f"tradent.{name}"):
            yield f"{plain} is not encrypted, and systemd fails over it; encrypt it as said below, and remove this one"
    if about.worker:
        return
    if about.embedded and not _names_systemd(name_services):
        yield (
            f"PostgreSQL needs a name for the service's account, and {name_services} does not ask systemd for it; "
            "install libnss-systemd (it adds `systemd` to the line `passwd:`), or set database.url"
        )


def _command() -> list[str]:
    script = Path(sys.executable).parent / "tradent"
    if script.exists():
        return [str(script)]
    return [sys.executable, str(Path(service.__file__).parent.parent / "main_with_database.py")]


def _read(command: Sequence[str], config: Path) -> list[Path]:
    """What the service must be able to read."""
    program = [Path(part) for part in command]
    return list(dict.fromkeys([*program, Path(sys.base_prefix), Path(service.__file__).parent, config]))


def _written(settings: Settings) -> list[Path]:
    paths = [settings.llm.csv_output_directory, settings.database.journal_directory]
    if settings.database.embedded:
        paths.append(settings.database.data_directory)
    if settings.llm.audit.jsonl is not None:
        paths.append(settings.llm.audit.jsonl.parent)
    return list(dict.fromkeys(paths))


def _is_own(path: Path) -> bool:
    return any(path.is_relative_to(place / "tradent") for place in (STATE, CACHE, LOGS))


def _shut(path: Path) -> Path | None:
    """The first of a path's folders, or itself, that others may not read; None where they may, or nothing is there."""
    for part in [*reversed(path.parents), path]:
        try:
            mode = part.stat().st_mode
        except OSError:
            return None
        wanted = stat.S_IROTH if part == path and not stat.S_ISDIR(mode) else stat.S_IXOTH
        if not mode & wanted:
            return part
    return None


def _names_systemd(name_services: Path) -> bool:
    try:
        lines = name_services.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.startswith("passwd:") and "systemd" in line.split() for line in lines)
