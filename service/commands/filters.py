"""Options that several commands know: which signals, since when, how many."""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from service.http.queries import Time

_AGO = re.compile(r"(\d{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_TIME: TypeAdapter[datetime] = TypeAdapter(Time)


def rating_options(parser: argparse.ArgumentParser) -> None:
    """--rating-min and --rating-max."""
    parser.add_argument("--rating-min", type=int, choices=range(1, 6), help="only rated so or higher")
    parser.add_argument("--rating-max", type=int, choices=range(1, 6), help="only rated so or lower")


def moment(text: str) -> datetime:
    """A time in ISO 8601, UTC where it says no offset, or as long ago as 90m, 24h, 7d say."""
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return _TIME.validate_python(text)
    except ValidationError:
        raise argparse.ArgumentTypeError("expected a time such as 2026-01-31T10:15:00Z, or 90m, 24h, 7d") from None


def up_to(most: int, least: int = 0) -> Callable[[str], int]:
    """A whole number within these bounds."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected {least} to {most}")
        return int(text)

    return number
