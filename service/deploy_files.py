"""What `make docs` writes into deploy/: the systemd units as `install-service` makes them for /opt/tradent."""

from pathlib import Path

from service.unit_file import CONFIGURATION, Installation, unit_text, usual_credentials

PROGRAM = "/opt/tradent/.venv/bin/tradent"


def written() -> dict[str, str]:
    """The files by path from the project's folder."""
    config = CONFIGURATION / "config.json"
    units = [Installation([PROGRAM], config, usual_credentials(), worker=worker) for worker in (False, True)]
    return {f"deploy/systemd/{unit.unit}": unit_text(unit) for unit in units}


if __name__ == "__main__":
    for path, text in written().items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
        print(path)  # noqa: T201
