"""The systemd units: what stands in them, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_integration.backends import backend_class, backend_names
from service import exit_codes
from service.hooks.signature import SECRET_NAME
from service.tokens import TOKEN_NAMES

STATE, CACHE, LOGS, CONFIGURATION = Path("/var/lib"), Path("/var/cache"), Path("/var/log"), Path("/etc/tradent")
DATABASE_URL = "TRADENT_DATABASE__URL"
WATCHDOG_S = 90
START_S = 120
ENDING_S = 90
"""What an end may take beyond the grace period: last writes, connections, and the embedded PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Section:
    """A few lines of a unit that belong together, and what they are for. `header` begins a part of the file."""

    why: str
    lines: Sequence[str]
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Installation:
    """What a unit is about: the command that runs, its settings, and what differs between hosts.

    `credentials` are names under which keys and tokens are looked for. `writes` are folders that the settings name
    outside of the service's own. `encrypted`: the credentials were made by systemd-creds.
    """

    command: Sequence[str]
    config: Path
    credentials: Sequence[str]
    grace_s: float = 20.0
    embedded: bool = True
    encrypted: bool = False
    worker: bool = False
    in_home: bool = False
    writes: Sequence[Path] = ()

    @property
    def unit(self) -> str:
        """The unit's file name."""
        return "tradent-worker@.service" if self.worker else "tradent.service"

    @property
    def folder(self) -> str:
        """What its folders under /var are called."""
        return "tradent-worker-%i" if self.worker else "tradent"


def usual_credentials() -> list[str]:
    """The names of all that may be secret: keys of the backends, the database's URL, what guards the HTTP server."""
    keys = {backend_class(name).API_KEY_ENV for name in backend_names()} - {None}
    return [*sorted(keys), DATABASE_URL, *TOKEN_NAMES.values(), SECRET_NAME]


def unit_text(about: Installation) -> str:
    """The unit, with what each part is for."""
    parts = [f"# {about.unit}: written by `tradent install-service`, which says what it overwrites.\n"]
    for section in sections(about):
        header = f"\n[{section.header}]\n" if section.header else "\n"
        parts.append(header + "".join(f"# {line}\n" for line in wrapped(section.why)))
        parts.append("".join(f"{line}\n" for line in section.lines))
    return "".join(parts)


def sections(about: Installation) -> list[Section]:
    """Every part of the unit, in order."""
    return [*_begin(about), *_life(about), *_files(about), *_walls(about), *_install(about)]


def _begin(about: Installation) -> list[Section]:
    what = "rates signals of others (worker %i)" if about.worker else "watches markets, and has signals rated"
    network = ["Wants=network-online.target", "After=network-online.target postgresql.service"]
    return [
        Section(
            "What it is. Of a PostgreSQL on the same host it waits for the start.",
            [f"Description=Tradent: {what}", *network],
            "Unit",
        ),
        Section(
            "Never given up: an exchange that is away for a night does not end the service.",
            ["StartLimitIntervalSec=0"],
        ),
    ]


def _life(about: Installation) -> list[Section]:
    role = ["--role", "worker"] if about.worker else []
    program, *first = about.command
    arguments = [*first, "run", "--plain", *role, "--config", str(about.config)]
    command = " ".join([_word(program), *(_word(part.replace("$", "$$")) for part in arguments)])
    ports = ["Environment=TRADENT_SERVICE__PORT=0"] if about.worker else []
    return [
        Section(
            "Ready once the market is watched, says in words how it does, and reads its settings anew on a reload.",
            ["Type=notify", "NotifyAccess=main", f"ExecStart={command}", "ExecReload=/bin/kill -HUP $MAINPID", *ports],
            "Service",
        ),
        Section(
            "A start that waits for PostgreSQL asks for more time by itself. A process that says for "
            f"{WATCHDOG_S} s that no work moves, or nothing, is ended; its own watchdog comes before this one.",
            [f"TimeoutStartSec={START_S}", f"WatchdogSec={WATCHDOG_S}"],
        ),
        Section(
            "SIGTERM to the daemon alone: it brings what is under way to an end within "
            f"service.shutdown_grace_seconds ({about.grace_s:g} s), then stops its PostgreSQL. "
            f"{exit_codes.UNFINISHED}: something was left to the next start, and nothing lost.",
            [
                "KillMode=mixed",
                f"TimeoutStopSec={round(about.grace_s) + ENDING_S}",
                f"SuccessExitStatus={exit_codes.UNFINISHED}",
            ],
        ),
        Section(
            f"Started again after a crash, but not with settings that are wrong ({exit_codes.SETTINGS}) or a wrong "
            "command line (2). What runs out of memory is ended alone: PostgreSQL and the daemon recover.",
            [
                "Restart=on-failure",
                "RestartSec=10",
                f"RestartPreventExitStatus=2 {exit_codes.SETTINGS}",
                "OOMPolicy=continue",
                "LimitNOFILE=65536",
            ],
        ),
    ]


def _files(about: Installation) -> list[Section]:
    kind = "LoadCredentialEncrypted" if about.encrypted else "LoadCredential"
    store = "/etc/credstore.encrypted" if about.encrypted else "/etc/credstore"
    written = [f"ReadWritePaths={_word(str(path))}" for path in about.writes]
    return [
        Section(
            "An account of its own, made at each start. Relative paths in the settings are in its state folder, "
            f"{STATE / about.folder}; what Python compiles is in its cache folder. UMask keeps others out.",
            [
                "DynamicUser=yes",
                "UMask=0077",
                f"StateDirectory={about.folder}",
                "StateDirectoryMode=0700",
                f"CacheDirectory={about.folder}",
                f"LogsDirectory={about.folder}",
                f"WorkingDirectory=%S/{about.folder}",
                f"Environment=PYTHONPYCACHEPREFIX=%C/{about.folder}/python XDG_CACHE_HOME=%C/{about.folder}",
                *written,
            ],
        ),
        Section(
            f"Keys and tokens: each from {store}/tradent.NAME where there is such a file, and no other process "
            "sees it. The first line is no secret: it keeps the folder there where no key is.",
            ["SetCredential=unit:%n", *(f"{kind}={name}:tradent.{name}" for name in about.credentials)],
        ),
        Section(
            "Lines carry their priority: journalctl -p warning shows what matters.",
            ["SyslogIdentifier=%N", "SyslogLevelPrefix=yes"],
        ),
    ]


def _walls(about: Installation) -> list[Section]:
    home = "read-only" if about.in_home else "yes"
    return [
        Section(
            "The system is read-only, homes and other processes out of sight"
            + (" (but the program lies in a home)." if about.in_home else "."),
            [
                "ProtectSystem=strict",
                f"ProtectHome={home}",
                "PrivateTmp=yes",
                "PrivateDevices=yes",
                "DevicePolicy=closed",
                "ProtectProc=invisible",
                "PrivateUsers=yes",
                "PrivateIPC=yes",
                "PrivateMounts=yes",
            ],
        ),
        Section(
            "Nothing of the kernel can be changed, nor the host's name and clock.",
            [
                "ProtectKernelTunables=yes",
                "ProtectKernelModules=yes",
                "ProtectKernelLogs=yes",
                "ProtectControlGroups=yes",
                "ProtectHostname=yes",
                "ProtectClock=yes",
            ],
        ),
        Section(
            "No privilege, none to be had, and only the calls that such a program and PostgreSQL need.",
            [
                "CapabilityBoundingSet=",
                "AmbientCapabilities=",
                "NoNewPrivileges=yes",
                "RestrictSUIDSGID=yes",
                "RestrictRealtime=yes",
                "RestrictNamespaces=yes",
                "LockPersonality=yes",
                "MemoryDenyWriteExecute=yes",
                "KeyringMode=private",
                "RemoveIPC=yes",
                "SystemCallArchitectures=native",
                "SystemCallFilter=@system-service",
                "SystemCallFilter=~@privileged @resources",
                "SystemCallErrorNumber=EPERM",
                "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
            ],
        ),
    ]


def _install(about: Installation) -> list[Section]:
    return [Section("Started with the system once it is enabled.", ["WantedBy=multi-user.target"], "Install")]


def wrapped(text: str, width: int = 100) -> list[str]:
    """Lines of at most so many characters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _word(text: str) -> str:
    """A word as systemd reads it; a "$" it takes for a variable only in what follows a program's path."""
    doubled = text.replace("\\", "\\\\").replace("%", "%%").replace('"', '\\"')
    return f'"{doubled}"' if any(character.isspace() or character in "\\\"';" for character in text) else doubled
