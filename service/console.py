"""The terminal that commands write to, or the file or pipe that stands in its place."""

import rich.console


class Console(rich.console.Console):
    """As rich's, but for a pipe that nobody reads any more: it raises BrokenPipeError, as every other stream does.

    rich's ends the process by itself with status 1, as if something had failed.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
