"""How a command ends: its exit status, and what it means; 2, wrong usage, is argparse's own."""

OK = 0
FAILED = 1
NO_INPUT = 66  # no bars to be had
UNAVAILABLE = 69  # no database
FAULT = 70  # a fault of the program, or it stood still
UNFINISHED = 75  # something was left to the next start
SETTINGS = 78
INTERRUPTED = 130
BROKEN_PIPE = 141
