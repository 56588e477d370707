"""Everything that reads what others wrote, as functions of bytes: run by hypothesis in the suite, by atheris by hand.

`python -m tests.fuzz` names the targets, `python -m tests.fuzz reply --seconds 600` looks for what breaks one.
"""
