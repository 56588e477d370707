"""The units that are shipped and written: what systemd itself says of them, and what `install-service` does."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from service import deploy_files
from service.cli import run_command
from service.commands.install_service import explanation, write_unit
from service.installation import obstacles, this_installation
from service.notify import Notifier
from service.settings import Settings
from service.unit_file import Installation, unit_text, usual_credentials
from trading.errors import TradentError

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
WORST = 1.5


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with settings, and one for units."""
    (tmp_path / "config.json").write_text(json.dumps({"llm": {"model": "openrouter/a/b"}}))
    (tmp_path / "units").mkdir()
    return tmp_path


def install(home: Path, *options: str) -> int:
    """The exit status of the command, with the settings and the folder for units of `home`."""
    given = ["--config", str(home / "config.json"), "--directory", str(home / "units"), *options]
    return run_command(["install-service", *given])


def test_there_are_units_for_the_daemon_and_for_workers() -> None:
    assert [path.name for path in UNITS] == ["tradent-worker@.service", "tradent.service"]


def test_the_shipped_units_are_those_that_make_docs_writes() -> None:
    for path, text in deploy_files.written().items():
        assert (ROOT / path).read_text() == text, "run `make docs`"


@analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_to_say_about_a_unit(unit: Path, tmp_path: Path) -> None:
    """It exits with 0 on keys it does not know, so what it says counts. Its program is not on this machine."""
    text = unit.read_text().replace(deploy_files.PROGRAM, "/bin/true")
    name = unit.name.replace("@", "@1")
    (tmp_path / name).write_text(text)

    verify = ["systemd-analyze", "verify", f"./{name}"]
    said = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (said.returncode, said.stderr) == (0, "")


@analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_hardened(unit: Path) -> None:
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", unit], capture_output=True, text=True, check=True
    )

    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", ran.stdout)
    assert found is not None
    assert float(found[1]) <= WORST


def test_a_unit_gives_the_process_more_time_to_end_than_its_own_grace_takes() -> None:
    slow = Installation(["/opt/tradent"], Path("/etc/tradent/config.json"), usual_credentials(), grace_s=300)

    [limit] = re.findall(r"^TimeoutStopSec=(\d+)$", unit_text(slow), re.MULTILINE)
    assert int(limit) > 300 + 60


def test_words_that_mean_something_to_systemd_arrive_as_they_are() -> None:
    odd = Installation(["/opt/my tradent/100%/$x"], Path("/etc/$a;b.json"), [], writes=[Path("/srv/$c d")])

    assert 'ExecStart="/opt/my tradent/100%%/$x" run --plain --config "/etc/$$a;b.json"' in unit_text(odd)
    assert 'ReadWritePaths="/srv/$c d"\n' in unit_text(odd)


@analyze
def test_systemd_finds_a_program_with_an_odd_path(tmp_path: Path) -> None:
    folder = tmp_path / "my $x; 100%"
    folder.mkdir()
    program = shutil.copy("/bin/true", folder)
    (tmp_path / "tradent.service").write_text(unit_text(Installation([program], folder / "config.json", [])))

    verify = ["systemd-analyze", "verify", "./tradent.service"]
    said = subprocess.run(verify, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (said.returncode, said.stderr) == (0, "")


def test_our_own_watchdog_comes_before_that_of_systemd() -> None:
    """It says where the process stood, and why."""
    [seconds] = re.findall(r"^WatchdogSec=(\d+)$", UNITS[1].read_text(), re.MULTILINE)

    assert Notifier("/run/notify", float(seconds)).watchdog_s == float(seconds)
    assert Settings.model_validate({}).service.watchdog_seconds < float(seconds)


def test_a_dry_run_prints_the_unit_and_writes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(home, "--dry-run") == 0

    printed = capsys.readouterr().out
    assert f"--config {home}/config.json" in printed
    assert printed.startswith("# tradent.service: written by")
    assert list((home / "units").iterdir()) == []


def test_a_unit_is_written_and_explained_part_by_part(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert install(home, "--force") == 0

    printed = capsys.readouterr().out
    unit = (home / "units" / "tradent.service").read_text()
    keys = {line.partition("=")[0] for line in unit.splitlines() if "=" in line and not line.startswith("#")}
    assert [key for key in keys if not re.search(rf"\b{key}\b", printed)] == []
    assert "/etc/credstore/tradent.OPENROUTER_API_KEY" in printed
    assert "systemctl enable --now tradent\n" in printed


def test_a_unit_that_says_something_else_is_left_alone_unless_forced(home: Path) -> None:
    unit = home / "units" / "tradent.service"
    write_unit(unit, "Restart=on-failure\n", force=False)
    write_unit(unit, "Restart=on-failure\n", force=False)
    unit.write_text("Restart=no\n")

    with pytest.raises(TradentError, match=r"(?s)-Restart=no\n\+Restart=on-failure\n.*--force.*systemctl edit tradent"):
        write_unit(unit, "Restart=on-failure\n", force=False)
    assert unit.read_text() == "Restart=no\n"
    write_unit(unit, "Restart=on-failure\n", force=True)
    assert unit.read_text() == "Restart=on-failure\n"


def test_a_folder_for_units_that_is_not_there_is_no_matter_of_rights(tmp_path: Path) -> None:
    with pytest.raises(TradentError, match="No such file or directory; see --directory"):
        write_unit(tmp_path / "units" / "tradent.service", "Restart=on-failure\n", force=False)


def test_a_masked_unit_is_left_masked_and_what_a_link_leads_to_alone(home: Path) -> None:
    """Written through its link, the unit would go to /dev/null, with other rights from then on."""
    unit, elsewhere = home / "units" / "tradent.service", home / "elsewhere"
    unit.symlink_to("/dev/null")
    rights = Path("/dev/null").stat().st_mode

    with pytest.raises(TradentError, match=r"masked; .* systemctl unmask tradent\.service"):
        write_unit(unit, "Restart=on-failure\n", force=True)
    assert Path("/dev/null").stat().st_mode == rights

    unit.unlink()
    unit.symlink_to(elsewhere)
    elsewhere.write_bytes(b"# \xff\n")
    with pytest.raises(TradentError, match="says something else"):
        write_unit(unit, "Restart=on-failure\n", force=False)
    write_unit(unit, "Restart=on-failure\n", force=True)
    assert (unit.is_symlink(), unit.stat().st_mode & 0o777, elsewhere.read_bytes()) == (False, 0o644, b"# \xff\n")


def test_options_say_whose_secrets_they_are_and_what_is_run(home: Path) -> None:
    settings = Settings.load(home / "config.json")
    own = this_installation(settings, home / "config.json", worker=True, encrypted=True, more=["HOUSE_KEY"])

    assert own.unit == "tradent-worker@.service"
    assert " run --plain --role worker --config " in unit_text(own)
    assert "LoadCredentialEncrypted=HOUSE_KEY:tradent.HOUSE_KEY\n" in unit_text(own)
    told = "\n".join(explanation(own, settings, Path("unit")))
    assert "install -d -m 700 /etc/credstore.encrypted && systemd-ask-password TRADENT_DATABASE__URL: | " in told
    assert "systemd-creds encrypt --name=TRADENT_DATABASE__URL - /etc/credstore.encrypted/tradent." in told


def about(home: Path, **settings: object) -> Installation:
    (home / "config.json").write_text(json.dumps(settings))
    return this_installation(Settings.load(home / "config.json"), home / "config.json", worker=False, encrypted=False)


def test_folders_of_the_settings_that_lie_elsewhere_can_be_written(home: Path) -> None:
    chosen = about(home, llm={"csv_output_directory": "/srv/csv"}, database={"data_directory": "/var/lib/tradent/db"})

    assert "ReadWritePaths=/srv/csv\n" in unit_text(chosen)
    assert "  /srv/csv is not one of" in "\n".join(explanation(chosen, Settings(), Path("unit")))
    assert "/var/lib/tradent/db" not in unit_text(chosen)


def test_a_program_that_systemd_would_not_run_is_said() -> None:
    quoted = Installation(["/opt/it's/tradent"], Path("/etc/passwd"), [], embedded=False)

    assert any("systemd runs no program with a quote" in line for line in obstacles(quoted))


def test_a_folder_that_is_not_there_is_said_as_the_service_would_not_start(tmp_path: Path) -> None:
    gone = Installation(["/bin/true"], Path("/etc/passwd"), [], embedded=False, writes=[tmp_path, tmp_path / "csv"])

    [said] = [line for line in obstacles(gone) if str(tmp_path) in line]
    assert said.startswith(f"{tmp_path}/csv is not there")


def test_plain_secrets_are_said_where_encrypted_ones_are_wanted(tmp_path: Path) -> None:
    """systemd looks for both in the plain folder, and refuses the start over one that it cannot decrypt."""
    (tmp_path / "tradent.HOUSE_KEY").write_text("x")
    own = Installation(["/bin/true"], Path("/etc/passwd"), ["HOUSE_KEY", "OTHER_KEY"], embedded=False, encrypted=True)

    [said] = [line for line in obstacles(own, credentials=tmp_path) if "not encrypted" in line]
    assert said.startswith(f"{tmp_path}/tradent.HOUSE_KEY")
    assert not any("encrypted" in line for line in obstacles(replace(own, encrypted=False), credentials=tmp_path))


@pytest.mark.parametrize("name", ["", "../x", "a/b", "A:B", "x%y", "1A", "K\u00c4Y", "A B"])
def test_a_name_that_no_secret_can_have_is_refused(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        install(home, "--dry-run", "--credential", name)

    assert ended.value.code == 2
    assert "a name as in the environment" in capsys.readouterr().err


def test_what_the_service_could_not_read_is_said_before_anything_is_written() -> None:
    seen = Installation(["/bin/true"], Path("/etc/passwd"), [], embedded=False)
    shut = Installation(["/bin/true"], Path("/etc/shadow"), [], embedded=False)
    private = Installation(["/tmp/tradent"], Path("/etc/passwd"), [], embedded=False)

    assert [line for line in obstacles(seen) if "/bin/true" in line or "/etc/passwd" in line] == []
    assert any("/etc/shadow is closed" in line for line in obstacles(shut))
    assert any("/tmp/tradent is in /tmp, which the service does not see" in line for line in obstacles(private))


@pytest.mark.parametrize(("line", "told"), [("passwd: files", True), ("passwd:\tfiles systemd", False)])
def test_an_account_without_a_name_is_said_as_postgresql_wants_one(line: str, told: bool, tmp_path: Path) -> None:
    """initdb ends with "user does not exist" where nothing resolves DynamicUser's numbers."""
    services = tmp_path / "nsswitch.conf"
    services.write_text(f"# names\n{line}\n")
    embedded = Installation(["/bin/true"], Path("/etc/passwd"), [])

    assert any("libnss-systemd" in obstacle for obstacle in obstacles(embedded, services)) is told


def test_secrets_of_webhooks_are_among_the_credentials(home: Path) -> None:
    hook = {"name": "house", "url_env": "HOUSE_HOOK_URL", "secret_env": "HOUSE_HOOK_SECRET"}

    unit = unit_text(about(home, service={"webhooks": [hook]}))

    assert "LoadCredential=HOUSE_HOOK_URL:tradent.HOUSE_HOOK_URL\n" in unit
    assert "LoadCredential=HOUSE_HOOK_SECRET:tradent.HOUSE_HOOK_SECRET\n" in unit
    assert "LoadCredential=TRADENT_WEBHOOK_SECRET:tradent.TRADENT_WEBHOOK_SECRET\n" in unit
