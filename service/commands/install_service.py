"""`install-service`: a systemd unit for this installation, written and explained."""

import argparse
import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from database.embedded_files import replace_text
from service import exit_codes
from service.commands.command import Command, Given
from service.installation import keys_in_use, obstacles, this_installation
from service.safe_text import escaped
from service.settings import Settings
from service.unit_file import Installation, Section, sections, unit_text, wrapped
from trading.errors import TradentError

UNITS = Path("/etc/systemd/system")
DIFF_LINES = 40
ENCRYPTED = "/etc/credstore.encrypted"


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only print the unit")
    parser.add_argument("--worker", action="store_true", help="a unit for workers in place of the whole daemon")
    parser.add_argument("--encrypted", action="store_true", help="keys and tokens are made by systemd-creds encrypt")
    parser.add_argument(
        "--credential",
        action="append",
        default=[],
        type=_name,
        metavar="NAME",
        help="one more secret that the service may read",
    )
    parser.add_argument("--directory", type=Path, default=UNITS, metavar="DIR", help=f"where units lie ({UNITS})")
    parser.add_argument(
        "--force", action="store_true", help="overwrite another unit, and write one that cannot work yet"
    )
    parser.add_argument("--start", action="store_true", help="let systemctl start it at once, and with the system")


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise argparse.ArgumentTypeError(f"expected a name as in the environment, such as HOUSE_KEY, got {text!r}")
    return text


def _do(given: Given) -> int:
    settings = given.settings()
    about = this_installation(
        settings, given.config, worker=given.worker, encrypted=given.encrypted, more=given.credential
    )
    text = unit_text(about)
    in_the_way = list(obstacles(about))
    if given.dry_run:
        sys.stdout.write(text)
        sys.stderr.write("".join(f"# {escaped(line)}\n" for line in in_the_way))
        return exit_codes.OK
    if in_the_way and not given.force:
        raise TradentError("\n".join([*in_the_way, "nothing was written; --force writes the unit all the same"]))
    path = given.directory / about.unit
    write_unit(path, text, force=given.force)
    sys.stdout.write("".join(f"{line}\n" for line in explanation(about, settings, path)))
    return _start(about) if given.start else exit_codes.OK


def write_unit(path: Path, text: str, *, force: bool) -> None:
    """Put the unit there; one that says something else is left alone unless forced. Raises TradentError.

    A link is replaced, and what it leads to is left alone: systemd links a unit that is masked to /dev/null.
    """
    if path.resolve() == Path(os.devnull):
        raise TradentError(f"{path} is masked; unmask it first: systemctl unmask {path.name}")
    try:
        before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else text
        if before != text and not force:
            changes = list(difflib.unified_diff(before.splitlines(), text.splitlines(), "there", "new", lineterm=""))
            more = [f"… and {len(changes) - DIFF_LINES} lines more"] if len(changes) > DIFF_LINES else []
            own = f"changes of your own belong into a drop-in: systemctl edit {path.name}"
            advice = f"{path} says something else, as shown; --force overwrites it; {own}"
            raise TradentError("\n".join([*changes[:DIFF_LINES], *more, advice]))
        replace_text(path, text, 0o644)
    except OSError as error:
        advice = "run this as root, or see --dry-run" if isinstance(error, PermissionError) else "see --directory"
        raise TradentError(f"{path} cannot be written: {error.strerror}; {advice}") from error


def explanation(about: Installation, settings: Settings, path: Path) -> Iterator[str]:
    """What was written, part by part, and what to do next."""
    yield f"{path} is written. What stands in it:"
    for section in sections(about):
        yield ""
        yield from (f"  {line}" for line in wrapped(_keys(section)))
        yield from (f"      {line}" for line in wrapped(section.why, 96))
    unit = about.unit.removesuffix(".service") + ("1" if about.worker else "")
    yield ""
    yield "What to do next:"
    yield ""
    for name in keys_in_use(settings):
        yield f"  {_key_command(about, name)}"
    if about.worker:
        yield f"  {_key_command(about, 'TRADENT_DATABASE__URL')}"
    yield "      asks for the key and keeps it where only the service gets it; again for each further one"
    for folder in about.writes:
        yield f"  {folder} is not one of the service's own folders: docs/service.md says whom it must belong to"
    yield "  systemctl daemon-reload"
    yield f"  systemctl enable --now {unit}"
    yield f"  systemctl status {unit}"
    yield f"  journalctl -u {unit} -f"


def _keys(section: Section) -> str:
    """The names that are set in a section, each once."""
    return ", ".join(dict.fromkeys(line.partition("=")[0] for line in section.lines))


def _key_command(about: Installation, name: str) -> str:
    """How to store a secret so that the unit finds it."""
    if about.encrypted:
        encrypt = f"systemd-creds encrypt --name={name} - {ENCRYPTED}/tradent.{name}"
        return f"install -d -m 700 {ENCRYPTED} && systemd-ask-password {name}: | {encrypt}"
    return f"systemd-ask-password {name}: | install -D -m 600 /dev/stdin /etc/credstore/tradent.{name}"


def _start(about: Installation) -> int:
    unit = about.unit.replace("@", "@1")
    for arguments in (["daemon-reload"], ["enable", "--now", unit]):
        try:
            ran = subprocess.run(["systemctl", *arguments], check=False)
        except OSError as error:
            raise TradentError(f"systemctl cannot be run: {error.strerror}; is this a system with systemd?") from error
        if ran.returncode:
            raise TradentError(f"systemctl {' '.join(arguments)} failed; see above, and journalctl -u {unit}")
    return exit_codes.OK


COMMAND = Command(_do, _options)
