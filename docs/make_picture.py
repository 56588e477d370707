"""Makes the picture of the live view from the real program: `python -m docs.make_picture docs/live-view.svg`.

Runs the daemon as `config.json` has it, in a folder of its own and without any key, and draws its view as it stands
after 20 s. The picture fetches no font, and keeps its spaces in viewers that would take them for nothing.
"""

import asyncio
import io
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from llm_integration.calling.compose import key_names
from service.daemon import Daemon
from service.logs import LineFormatter, RecentLines
from service.settings import Settings
from service.view import frame_of, picture

ROOT = Path(__file__).parent.parent
AFTER_S = 20.0
WIDTH, HEIGHT = 132, 36
_FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


async def draw(settings: Settings) -> str:
    """The view after 20 s, as SVG."""
    lines = RecentLines()
    lines.setFormatter(LineFormatter())
    logging.getLogger().addHandler(lines)
    logging.getLogger().setLevel(logging.INFO)
    console = Console(
        record=True, width=WIDTH, height=HEIGHT, force_terminal=True, color_system="truecolor", file=io.StringIO()
    )
    daemon = Daemon(settings)
    running = asyncio.create_task(daemon.run())
    await asyncio.wait([running], timeout=AFTER_S)
    if running.done():
        running.result()
        raise SystemExit("the daemon ended by itself; there is nothing to draw")
    console.print(picture(frame_of(daemon, lines), console), "", sep="")
    daemon.request_stop()
    await running
    svg = _FONT_FACE.sub("", console.export_svg(title="tradent", theme=MONOKAI))
    return svg.replace("<text ", '<text xml:space="preserve" ')


def main() -> None:
    """Write the picture to the file that is named."""
    if len(sys.argv) != 2:
        raise SystemExit("name the file to write: python -m docs.make_picture docs/live-view.svg")
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="tradent-picture-") as folder:
        Path(folder).chmod(0o711)
        places = {
            "database.data_directory": "database",
            "database.journal_directory": "journal",
            "llm.csv_output_directory": "csv",
        }
        os.environ.pop("DATABASE_URL", None)
        for name in key_names(Settings.load(ROOT / "config.json").llm).values():
            os.environ.pop(name, None)
        assignments = [f"{key}={folder}/{name}" for key, name in places.items()]
        svg = asyncio.run(draw(Settings.load(ROOT / "config.json", [*assignments, "service.port=0"])))
    target.write_text(svg, encoding="utf-8")
    sys.stdout.write(f"{target}: {len(svg)} bytes\n")


if __name__ == "__main__":
    main()
