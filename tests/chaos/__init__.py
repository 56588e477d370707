"""What must hold whatever happens: the real daemon as processes, against what goes wrong, and a table of what it cost.

`python -m tests.chaos [scenario …] [--full] [--seed N]` prints the table; `make chaos` runs all, at full length.

A scenario is one file in `scenarios/`, found by its name: an async function `run(stage)` that takes a Stage and
returns a Row. Each has a short form, which the tests run, and a full one; where the file says `SLOW = True`, the
short form is run by `make test-all` only.
"""
