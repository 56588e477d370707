"""Where the sample data lies, when it does: beside the project, never in it."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED: Path | None = _FOLDER if _FOLDER.is_dir() else None
