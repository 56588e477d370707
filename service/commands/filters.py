"""Options that several commands know: which signals."""

import argparse


def rating_options(parser: argparse.ArgumentParser) -> None:
    """--rating-min and --rating-max."""
    parser.add_argument("--rating-min", type=int, choices=range(1, 6), help="only rated so or higher")
    parser.add_argument("--rating-max", type=int, choices=range(1, 6), help="only rated so or lower")
