"""The door: parse arguments, load settings, build the service, run, drain."""

import sys

try:
    from service.cli import run_command
    from service.streams import mend_streams
except KeyboardInterrupt:  # what is imported takes a second, in which Ctrl-C is no fault of the program
    sys.exit(130)


def main() -> None:
    """Entry point of `tradent` and of `python main_with_database.py`."""
    mend_streams()
    sys.exit(run_command(sys.argv[1:]))


if __name__ == "__main__":
    main()
