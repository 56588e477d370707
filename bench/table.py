"""How the benches print: what was measured, the figure, what is wanted, whether it was reached."""

import sys

WIDTHS = (52, 46, 16)


def say(what: str, figure: str, wanted: str = "", met: bool | None = None) -> None:
    """One line, at once; `met` None where nothing is wanted or nothing can be said."""
    mark = "" if met is None else "met" if met else "NOT MET"
    cells = [text.ljust(width) for text, width in zip((what, figure, wanted), WIDTHS, strict=True)]
    sys.stdout.write(" ".join([*cells, mark]).rstrip() + "\n")
    sys.stdout.flush()
